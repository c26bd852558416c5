"""What every exporter promises: readable output that names every part's rank, the same each time.

Subclass the class in a test file of your own and return your plugin from the fixture `exporter`; pytest runs the rest.
"""

import json
import re
import shlex
import subprocess

import pytest
import yaml

from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate, DecisionRecord
from marslora.core.exported_run import ExportedRun
from marslora.core.parts import LinearInfo, ModelInfo, PartInfo

RANKS = {"vision": 4, "projector": 12, "language": 24}


def part(name, path, count):
    linears = [LinearInfo(name=f"model.{path}.layers.{i}.q_proj", inputs=8, outputs=6) for i in range(count)]
    return PartInfo(name=name, paths=(f"model.{path}",), num_parameters=100, linears=tuple(linears))


INFO = ModelInfo(
    architecture="LlavaForConditionalGeneration",
    modalities=("image", "text"),
    num_parameters=300,
    parts=(part("vision", "vision_tower", 2), part("projector", "projector", 1), part("language", "language_model", 3)),
)


def decision(**ranks):
    chosen = Allocation.of({**RANKS, **ranks})
    return DecisionRecord(
        strategy="mars",
        chosen=chosen,
        verdict="clear",
        summary="Clear.",
        candidates=(Candidate(allocation=chosen, status="chosen", reason="best"),),
    )


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def check_readable(path):
    """Parse a file by its suffix; an unknown suffix is an error."""
    text = path.read_text()
    match path.suffix:
        case ".py":
            compile(text, str(path), "exec")
        case ".yaml":
            assert isinstance(yaml.safe_load(text), dict)
        case ".json":
            json.loads(text)
        case ".sh":
            subprocess.run(["sh", "-n", str(path)], check=True)
            assert shlex.split(text, comments=True)
        case other:
            raise AssertionError(f"{path.name}: nothing reads {other}")


class ExporterContract:
    """What every exporter promises: readable output that names every part's rank, the same each time."""

    @pytest.fixture
    def exporter(self):
        """Return an instance of the exporter to check."""
        raise NotImplementedError("Define the fixture `exporter` in a subclass.")

    @pytest.mark.parametrize(
        "training",
        [
            ExportedRun(
                num_examples=800,
            ),
            ExportedRun(num_examples=800, full=("projector",), accumulation=4),
        ],
    )
    @pytest.mark.parametrize("adapter_folder", [None, "study/adapter"])
    def test_output_is_readable_and_says_for_which_version(self, exporter, tmp_path, training, adapter_folder):
        paths = exporter.export(decision(), INFO, training, adapter_folder, tmp_path / "new" / "folder")
        assert paths
        for path in paths:
            assert path.is_relative_to(tmp_path)
            check_readable(path)
        header = paths[0].read_text()
        assert re.search(r"For .*\d\.\d+.*(tested|not run here)", header)
        assert (adapter_folder is None) or (adapter_folder in header)

    def test_every_rank_is_named(self, exporter, tmp_path):
        text = exporter.export(
            decision(),
            INFO,
            ExportedRun(
                num_examples=800,
            ),
            None,
            tmp_path,
        )[0].read_text()
        for name, rank in RANKS.items():
            assert f"{name} {rank}" in text

    def test_a_part_left_alone_is_not_adapted(self, exporter, tmp_path):
        exporter.export(
            decision(vision=0),
            INFO,
            ExportedRun(
                num_examples=800,
            ),
            None,
            tmp_path,
        )
        for name, content in contents(tmp_path).items():
            if name.suffix == ".safetensors":
                assert b"vision_tower" not in content
        text = next(path for path in tmp_path.iterdir() if path.is_file()).read_text()
        assert "vision 0" in text

    def test_the_same_decision_gives_the_same_bytes(self, exporter, tmp_path):
        exporter.export(
            decision(),
            INFO,
            ExportedRun(
                num_examples=800,
            ),
            None,
            tmp_path / "one",
        )
        first = contents(tmp_path / "one")
        exporter.export(decision(), INFO, ExportedRun(num_examples=800), None, tmp_path / "one")
        assert contents(tmp_path / "one") == first
        exporter.export(decision(language=8), INFO, ExportedRun(num_examples=800), None, tmp_path / "one")
        assert contents(tmp_path / "one") != first
