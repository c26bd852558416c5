"""`marslora.inspect`, from rows to parts with gradients, memory and warnings."""

import pytest

import marslora
from marslora.core.errors import ConfigError, DataError, ModelError
from tests.unit.finetune.tiny import rows


def test_the_configuration_alone_says_nothing_of_gradients(world):
    info = marslora.inspect(model=world / "model")
    assert info.member_bytes is None
    assert {part.gradient_norm for part in info.parts} == {None} == {part.frozen for part in info.parts}


def test_a_probe_measures_gradients_and_memory(world):
    info = marslora.inspect(model=world / "model", train=world / "train.jsonl", rank=4)
    assert all(part.gradient_norm > 0 and part.frozen for part in info.parts)
    vision, projector, language = (part.member_bytes for part in info.parts)
    assert 0 < projector < vision and 0 < language < info.member_bytes < vision + projector + language
    larger = marslora.inspect(model=world / "model", train=world / "train.jsonl", rank=64)
    extra = sum(linear.num_trainable(60) for part in info.parts for linear in part.linears)
    assert larger.member_bytes - info.member_bytes > 16 * extra


def test_models_and_rows_in_memory_are_as_good(world):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(world / "model")
    info = marslora.inspect(
        model=model, processor=AutoProcessor.from_pretrained(world / "model"), train=rows(12, 0), targets=r".*\.fc\d"
    )
    assert info.part("vision").gradient_norm > 0 and not info.part("language").linears
    assert any("matches no linear of language" in warning for warning in info.warnings)


def test_what_cannot_be_probed_is_one_clear_error(world, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        marslora.inspect(model=world / "model", train=tmp_path / "nowhere.jsonl")
    with pytest.raises(ModelError, match="does not exist"):
        marslora.inspect(model=tmp_path / "nothing", probe=True)


def test_a_model_that_only_hears_needs_rows():
    from marslora.models.loading import register_model
    from tests.helpers.tiny_models import build

    model, _ = build("qwen2_audio")
    with pytest.raises(ConfigError, match="no pictures, so probe it on your own rows"):
        marslora.inspect(model=register_model("ears", model, None), probe=True)
