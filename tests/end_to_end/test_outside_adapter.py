"""A packed adapter from outside goes from calibration to an adapter folder that `marslora.attach` reads."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

import marslora
from marslora.core.errors import ConfigError
from marslora.demo import settings
from tests.helpers.outside_adapter import NAME


def search(folder, adapter, **options):
    demo = settings.make_settings("small", folder / "data")
    return marslora.search(
        model=demo["model"]["path"],
        train=demo["data"]["train"],
        validation=demo["data"]["validation"],
        ranks=[2, 8],
        budget=0.15,
        training={**demo["training"], "examples": 160, "learning_rate": 1e-3, "adapter": adapter},
        study=folder / "study",
        **options,
    )


@pytest.mark.slow
def test_it_trains_packed_and_in_the_final_run_and_is_attached(tmp_path):
    decision = search(tmp_path, NAME)
    assert decision.final.started_at_examples > 0
    assert decision.final.validation_loss < decision.final.base_validation_loss - 0.5
    model = AutoModelForImageTextToText.from_pretrained(
        settings.make_settings("small", tmp_path / "data")["model"]["path"]
    )
    change = marslora.attach(model, decision.adapter_folder, trust_remote_code=True)
    gains = [each.parameter for each in change.trainables() if each.name.endswith(".gain")]
    assert gains and any(bool((gain != 1).any()) for gain in gains)
    assert not any(torch.isnan(gain).any() for gain in gains)


@pytest.mark.parametrize("adapter", ["hydralora", "pathlib:Path", f"{NAME}:stort=2"])
def test_what_cannot_train_packed_is_refused_before_anything_is_read(tmp_path, adapter, monkeypatch):
    monkeypatch.setattr("marslora.pipeline.Pipeline.prepare", lambda _: pytest.fail("the rows were read"))
    with pytest.raises(ConfigError, match=r"adapter|has no option"):
        search(tmp_path, adapter)
