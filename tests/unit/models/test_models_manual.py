"""The example in the manual of the package runs."""

import pytest

from marslora import models
from tests.helpers.manuals import run_examples
from tests.unit.finetune.tiny import write_model


@pytest.fixture(autouse=True)
def forget_registered(monkeypatch):
    monkeypatch.setattr("marslora.models.loading._registered", {})


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    write_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    seen = run_examples(models)
    assert "('vision'," in capsys.readouterr().out
    assert seen["path"] == "memory:mine" and seen["info"].part("language").linears
