"""The example in the manual of the package runs."""

from marslora import engine
from tests.helpers.manuals import run_examples


def test_the_example_runs(world, tmp_path, monkeypatch, capsys):
    for name in ("model", "pictures", "train.jsonl", "validation.jsonl"):
        (tmp_path / name).symlink_to(world / name)
    monkeypatch.chdir(tmp_path)
    run_examples(engine)
    printed = capsys.readouterr().out.splitlines()
    assert "'complete'" in printed[-1] and "rank8" in printed[-1]
    assert (tmp_path / "members" / "rank8" / "adapter_config.json").exists()
