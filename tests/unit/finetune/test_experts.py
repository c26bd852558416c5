"""Stacked experts: adapted in the engine, continued in the final run, reloaded by PEFT."""

import copy
import json

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

from marslora.core.allocation import Allocation
from marslora.core.errors import ConfigError
from marslora.core.spec import DataSpec, FinalSpec, ModelSpec, StudySpec, TrainingSpec
from marslora.models.discovery import discover
from marslora.models.loading import register_model
from tests.helpers._tiny_vision import TEXT, VISION
from tests.helpers.exactness import EXACT, assert_exact, keep_float64
from tests.helpers.tiny_processors import llava_processor
from tests.unit.finetune.test_continues_the_engine import RATE, calibrate
from tests.unit.finetune.tiny import run, weights, write_rows


@pytest.fixture(scope="module")
def mixture():
    """A LLaVA in float64 whose language model has four experts a layer."""
    processor = llava_processor()
    text = {**TEXT, "num_local_experts": 4, "num_experts_per_tok": 2, "vocab_size": len(processor.tokenizer)}
    config = transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **VISION, "projection_dim": 32},
        text_config={"model_type": "mixtral", **text},
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    model = transformers.LlavaForConditionalGeneration(config).eval().double()
    model.set_experts_implementation("eager")  # the grouped product of experts has no float64
    return model, register_model("mixture", model, processor)


def final_spec(mixture, folder):
    model, name = mixture
    info = discover(model, experts=True)
    allocation = Allocation.of(vision=1, language=2)
    rows = {split: (write_rows(folder, split, count, 0),) for split, count in (("train", 48), ("validation", 8))}
    return FinalSpec(
        model=ModelSpec(path=name, experts=True),
        data=DataSpec(**rows),
        training=TrainingSpec(batch_size=8, learning_rate=RATE, decay=0.0, evaluations=2),
        allocation=allocation,
        module_ranks=info.module_ranks(allocation),
        stacked=info.stacked(allocation),
        full_examples=24,
        output_folder=str(folder / "final"),
        cache_folder=str(folder / "cache"),
    )


def test_experts_from_the_engine_to_peft(mixture, tmp_path):
    model, _ = mixture
    untouched = copy.deepcopy(model)
    spec = final_spec(mixture, tmp_path)
    assert len(spec.stacked) == 4
    with keep_float64():
        calibrated, losses = calibrate(spec, 24, tmp_path / "members")
        half, _ = calibrate(spec, 16, tmp_path / "half")
        result = run(spec.model_copy(update={"start_folder": str(half)}))[-1]
    trained = weights(spec)
    experts = [key for key in trained if ".experts." in key]
    assert len(experts) == 8 and all(trained[key].any() for key in experts)
    assert_exact(trained, load_file(calibrated / "adapter_model.safetensors"))
    assert result.validation_loss == pytest.approx(losses[24], rel=EXACT)
    adapter = tmp_path / "final/adapter"
    assert len(json.loads((adapter / "adapter_config.json").read_text())["target_parameters"]) == 4
    loaded = PeftModel.from_pretrained(untouched, adapter)
    found = {name.replace(".default", ""): p for name, p in loaded.named_parameters() if "lora_" in name}
    assert found.keys() == trained.keys() and all(torch.equal(found[key], trained[key]) for key in trained)
    assert result.num_trainable == sum(tensor.numel() for tensor in trained.values())
    assert result.num_trainable == discover(model, experts=True).num_trainable(spec.allocation)


def test_experts_need_adamw():
    asked = {"model": {"path": "m", "experts": True}, "data": {"train": ["x"]}, "space": {"language": [1]}}
    StudySpec.parse(asked, "test")
    with pytest.raises(ConfigError, match="experts"):
        StudySpec.parse({**asked, "training": {"optimizer": {"name": "muon"}}}, "test")
