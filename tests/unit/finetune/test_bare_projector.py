"""Gemma 3's projector is a bare parameter: trained whole in the engine and the final run, and reloaded by PEFT."""

import copy
import json

import pytest
import torch
import transformers
from peft import PeftModel

from marslora.core.allocation import Allocation
from marslora.core.spec import DataSpec, FinalSpec, ModelSpec, TrainingSpec
from marslora.models.discovery import discover
from marslora.models.loading import register_model
from tests.helpers._tiny_vision import TEXT, VISION
from tests.helpers.exactness import EXACT, assert_exact, keep_float64
from tests.helpers.tiny_processors import gemma3_processor
from tests.unit.finetune.test_continues_the_engine import RATE, calibrate
from tests.unit.finetune.tiny import run, weights, write_rows

WEIGHT = "base_model.model.model.multi_modal_projector.mm_input_projection_weight"


@pytest.fixture(scope="module")
def gemma():
    """A tiny float64 model whose vocabulary is the processor's, with an open projector."""
    processor = gemma3_processor()
    config = transformers.Gemma3Config(
        vision_config={"model_type": "siglip_vision_model", **VISION, "patch_size": 7, "projection_dim": 32},
        text_config={**TEXT, "sliding_window": 64, "vocab_size": len(processor.tokenizer)},
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<soft>"),
        mm_tokens_per_image=4,
    )
    torch.manual_seed(0)
    model = transformers.Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.1)
    return model.eval().double(), register_model("gemma3", model, processor)


@pytest.fixture
def spec(gemma, tmp_path):
    model, name = gemma
    info = discover(model, targets=r"(?!.*vision_tower\.head).*")  # no gradient reaches the head
    allocation = Allocation.of(vision=2, language=4)
    rows = {split: (write_rows(tmp_path, split, count, 0),) for split, count in (("train", 48), ("validation", 8))}
    training = TrainingSpec(batch_size=8, learning_rate=RATE, full=("projector",), decay=0.0, evaluations=2)
    return FinalSpec(
        model=ModelSpec(path=name),
        data=DataSpec(**rows),
        training=training,
        allocation=allocation,
        module_ranks=info.module_ranks(allocation),
        full_modules=info.part("projector").whole,
        full_examples=24,
        output_folder=str(tmp_path / "final"),
        cache_folder=str(tmp_path / "cache"),
    )


def test_a_bare_projector_is_trained_saved_continued_and_reloaded(gemma, spec, tmp_path):
    model, _ = gemma
    before = model.model.multi_modal_projector.mm_input_projection_weight.detach().clone()
    untouched = copy.deepcopy(model)
    with keep_float64():
        calibrated, losses = calibrate(spec, 24, tmp_path / "members")
        half, _ = calibrate(spec, 16, tmp_path / "half")
        result = run(spec.model_copy(update={"start_folder": str(half)}))[-1]
    trained = weights(spec)
    assert not torch.equal(trained[WEIGHT], before)
    assert torch.equal(model.model.multi_modal_projector.mm_input_projection_weight, before)
    assert json.loads((tmp_path / "final/adapter/adapter_config.json").read_text())["modules_to_save"]
    assert result.validation_loss == pytest.approx(losses[24], rel=EXACT)
    loaded = PeftModel.from_pretrained(untouched, tmp_path / "final/adapter")
    projector = loaded.base_model.model.model.multi_modal_projector.modules_to_save["default"]
    assert torch.equal(projector.mm_input_projection_weight, trained[WEIGHT])
    from safetensors.torch import load_file

    assert_exact(trained, load_file(calibrated / "adapter_model.safetensors"))
