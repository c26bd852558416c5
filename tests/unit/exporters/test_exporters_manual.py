"""The example in the manual of the exporters writes the ranks."""

import json

from marslora import exporters
from marslora.core.exported_run import ExportedRun
from marslora.testing.exporters_contract import INFO, RANKS, decision
from tests.helpers.manuals import run_examples


def test_the_example_writes_the_ranks(tmp_path):
    exporter = run_examples(exporters)["RanksOnly"]()
    (path,) = exporter.export(
        decision(),
        INFO,
        ExportedRun(
            num_examples=800,
        ),
        None,
        tmp_path / "new",
    )
    assert json.loads(path.read_text()) == RANKS
