"""The pure parts of benchmarks/real: checked downloads, splits by object, the small file of what was trained."""

import hashlib
import json
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

FOLDER = Path(__file__).parents[2] / "benchmarks" / "real"


@pytest.fixture(autouse=True)
def _scripts_on_path(monkeypatch):
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == FOLDER:
            del sys.modules[name]


def test_a_changed_download_is_refused(tmp_path):
    import fetch

    path = tmp_path / "a.whl"
    path.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    fetch.check(path, sha256)
    path.write_bytes(b"other weights")
    with pytest.raises(SystemExit, match=f"expected {sha256}"):
        fetch.check(path, sha256)


def test_packages_are_pinned_and_licensed():
    import fetch

    for package in fetch.PACKAGES:
        assert len(package.sha256) == 64
        assert package.licence
        assert package.version.replace(":", "%3a") in package.file


def test_a_split_keeps_objects_together_and_has_the_shares_that_are_said():
    import tasks

    items = [(f"object {n % 150}", n) for n in range(600)]
    parts = tasks.split(items, lambda item: item[0])
    assert sorted(item for own in parts.values() for item in own) == sorted(items)
    for name, share in tasks.SHARES.items():
        assert len(parts[name]) == pytest.approx(share * 600, abs=4)
    owners = {name: {item[0] for item in own} for name, own in parts.items()}
    assert not owners["train"] & owners["validation"]
    assert not owners["train"] & owners["test"]
    assert not owners["validation"] & owners["test"]
    assert parts == tasks.split(items, lambda item: item[0])


def test_held_out_pictures_are_all_of_their_name_and_source():
    import pictures

    listed = [
        pictures.Picture(source, f"name {n % 40}", "", "") for source in ("noto", "openclipart") for n in range(100)
    ]
    held = pictures.hold_out(listed, {"openclipart": 20})
    counts = Counter(p.source for p in held if p.is_held)
    assert set(counts) == {"openclipart"}
    assert 20 <= counts["openclipart"] < 26
    names = {p.name for p in held if p.is_held}
    assert not [p for p in held if p.source == "openclipart" and p.name in names and not p.is_held]


def test_titles_and_captions_are_read(tmp_path):
    import pictures
    import tasks

    data = b"<dc:title>A  Bull #2</dc:title><dc:subject><rdf:li>Animal</rdf:li></dc:subject>"
    assert pictures.read_titles(b"<svg><metadata>" + data + b"</metadata></svg>") == ("a bull", ["animal"])
    assert pictures.read_titles(b"<svg/>") == ("", [])
    path = tmp_path / "a.txt"
    path.write_text("A frog.\nfr.utf8=Une grenouille.\nde.utf8=\n", encoding="utf8")
    assert tasks.read_captions(path) == {"en": "A frog.", "fr": "Une grenouille."}


class Core(nn.Module):
    def __init__(self):
        super().__init__()
        self.multi_modal_projector = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 6))
        self.language_model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))

    def forward(self, x):
        return self.language_model(self.multi_modal_projector(x))


def test_the_small_file_gives_a_fresh_model_what_was_trained(tmp_path):
    import small_file

    torch.manual_seed(0)
    base, trained = Core(), Core()
    trained.load_state_dict(base.state_dict())
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=6, target_modules=["0", "2"]), trained.language_model)
    for parameter in trained.parameters():
        parameter.data = parameter.data.bfloat16().float()
    for name, parameter in trained.named_parameters():
        if "lora_" in name or "projector" in name:
            parameter.data = torch.randn_like(parameter).bfloat16().float()
    for parameter in base.parameters():
        parameter.data = parameter.data.bfloat16().float()
    small_file.save(trained, tmp_path / "a.safetensors", scale=3.0)
    small_file.load_into(base, tmp_path / "a.safetensors")
    x = torch.randn(5, 4)
    torch.testing.assert_close(base(x), trained(x), atol=0.1, rtol=0.02)
    assert (tmp_path / "a.safetensors").stat().st_size < 3000


def test_no_constant_is_learnt_from_the_real_tables():
    tables = json.loads((files("marslora.laws") / "setting_law.json").read_text())["about"]["tables"]
    assert tables
    assert not [name for name in tables if name.startswith("real_")]
