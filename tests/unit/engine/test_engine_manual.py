"""The example in the manual of the package runs."""

import shutil

from marslora import engine
from tests.helpers.manuals import run_examples


def test_the_example_runs(world, tmp_path, monkeypatch, capsys):
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    run_examples(engine)
    printed = capsys.readouterr().out.splitlines()
    assert "'complete'" in printed[-1] and "rank8" in printed[-1]
    assert (tmp_path / "members" / "rank8" / "adapter_config.json").exists()
