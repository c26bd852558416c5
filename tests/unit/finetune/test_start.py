"""Checkpoints that cannot be continued are refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from marslora.core.errors import StudyError
from tests.unit.finetune.test_worker import first_checkpoint
from tests.unit.finetune.tiny import plain_model, run


@pytest.fixture
def start(world, final_spec):
    spec = final_spec()
    folder = first_checkpoint(spec, plain_model(world, torch.float32))
    return spec.model_copy(update={"start_folder": str(folder)}), folder


def test_a_folder_without_state(start):
    spec, folder = start
    (folder / "state.json").unlink()
    with pytest.raises(StudyError, match=r"must hold a checkpoint, but state.json is missing"):
        run(spec)


def test_a_torn_state(start):
    spec, folder = start
    (folder / "state.json").write_text('{"exam')
    with pytest.raises(StudyError, match=r"state.json cannot be read"):
        run(spec)


def test_other_ranks(start, final_spec):
    from marslora.core.allocation import Allocation

    _, folder = start
    spec = final_spec(allocation=Allocation.of(vision=4, projector=4, language=8), start_folder=str(folder))
    with pytest.raises(StudyError, match=r"must have the ranks of this run"):
        run(spec)


def test_missing_weights(start):
    spec, folder = start
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(dict(list(weights.items())[1:]), folder / "adapter_model.safetensors")
    with pytest.raises(StudyError, match=r"lacks 1, e.g. "):
        run(spec)


def test_weights_of_more_modules(start, final_spec):
    from marslora.core.allocation import Allocation

    _, folder = start
    spec = final_spec(allocation=Allocation.of(vision=0, projector=4, language=8), start_folder=str(folder))
    with pytest.raises(StudyError, match=r"must hold only weights that this run trains"):
        run(spec)


def test_moments_of_another_optimizer(start):
    spec, folder = start
    moments = load_file(folder / "optimizer.safetensors")
    save_file(
        {name: value for name, value in moments.items() if "exp_avg_sq" not in name}, folder / "optimizer.safetensors"
    )
    with pytest.raises(StudyError, match=r"must hold `.*exp_avg_sq`, but does not: it comes from another optimizer"):
        run(spec)


def test_a_start_that_is_the_end(start):
    spec, folder = start
    (folder / "state.json").write_text(json.dumps({"examples": 40, "step": 5}))
    result = run(spec)[-1]
    assert result.examples == (40,)
    assert result.validation_loss == pytest.approx(result.base_validation_loss)
    assert torch.isfinite(torch.tensor(result.test_loss))
