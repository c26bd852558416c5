"""The probe tells dead layers from those with a zero gradient and from living ones, and leaves no trace."""

from __future__ import annotations

import re

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from marslora.core.errors import ModelError
from marslora.models.discovery import discover
from marslora.models.probe import probe
from tests.helpers.tiny_models import TINY, build

DEAD = {
    "llava": r"vision_tower\.encoder\.layers\.1\.",
    "llava_next": r"vision_tower\.encoder\.layers\.1\.",
    "llava_onevision": r"vision_tower\.head\.",
    "paligemma": r"vision_tower\.head\.",
    "gemma3": r"vision_tower\.head\.",
    "phi4_multimodal": r"audio_embed|img_processor\.encoder\.layers\.2|img_processor\.head",
}
"""Linears that a batch of pictures cannot reach; nothing is dead in the other architectures."""


def frozen(name):
    model, batch = build(name)
    return model.requires_grad_(False), batch


def truly_reached(model, batch, names):
    """The slow twin: unfreeze the weights, run autograd, look at `.grad`."""
    weights = {name: model.get_submodule(name).weight for name in names}
    for weight in weights.values():
        weight.requires_grad_(True)
    model(**batch).loss.backward()
    reached = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    for weight in weights.values():
        weight.grad = None
        weight.requires_grad_(False)
    return {name: float(gradient.norm()) for name, gradient in reached.items()}


@pytest.mark.parametrize("name", TINY)
def test_dead_layers_are_those_without_a_gradient(name):
    model, batch = frozen(name)
    info = probe(model, batch, discover(model))
    linears = [linear for part in info.parts for linear in part.linears]
    reached = truly_reached(model, batch, [linear.name for linear in linears])
    assert {linear.name for linear in linears if not linear.dead} == set(reached)
    dead = [linear.name for linear in linears if linear.dead]
    pattern = DEAD.get(name)
    assert bool(dead) == (pattern is not None)
    assert all(re.search(pattern, path) for path in dead)
    for part in info.parts:
        assert part.frozen
        assert part.reached == (name != "phi4_multimodal" or part.name != "audio")
        if not part.linears:
            continue
        expected = sum(reached.get(linear.name, 0.0) ** 2 for linear in part.linears) ** 0.5
        assert part.gradient_norm == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_no_trace_is_left():
    model, batch = frozen("llava")
    model(**batch)  # transformers adds its own hooks at the first forward
    hooks = {name: list(module._forward_hooks) for name, module in model.named_modules()}
    model.train()
    model.lm_head.weight.requires_grad_(True)
    before = {name: parameter.detach().clone() for name, parameter in model.state_dict().items()}
    modules = dict(model.named_modules())
    torch.manual_seed(3)
    drawn = torch.get_rng_state()
    probe(model, batch, discover(model))
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["lm_head.weight"]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert dict(model.named_modules()) == modules
    assert {name: list(module._forward_hooks) for name, module in model.named_modules()} == hooks
    assert model.training


def test_a_tower_under_no_grad_is_dead_and_the_fix_is_named():
    model, batch = frozen("llava")
    tower = model.model.vision_tower
    tower.forward = torch.no_grad()(tower.forward)
    info = probe(model, batch, discover(model))
    assert not info.part("vision").alive and info.part("language").alive
    assert any("no_grad" in warning and "rank 0" in warning for warning in info.warnings)


def test_a_zero_initialised_projector_is_a_warning_not_a_death():
    model, batch = frozen("llava")
    nn.init.zeros_(model.model.multi_modal_projector.linear_2.weight)
    info = probe(model, batch, discover(model))
    assert info.part("vision").gradient_norm == 0.0
    assert info.part("vision").alive
    assert any("vision but are exactly zero" in warning for warning in info.warnings)


def test_masked_labels_are_noticed():
    model, batch = frozen("llava")
    info = probe(model, {**batch, "labels": torch.full_like(batch["labels"], -100)}, discover(model))
    assert any("Every label is masked" in warning for warning in info.warnings)


def test_rows_without_an_answer_are_counted():
    model, batch = frozen("llava")
    labels = batch["labels"].clone()
    labels[1] = -100
    info = probe(model, {**batch, "labels": labels}, discover(model))
    assert any("1 of 2 rows have no answer token" in warning for warning in info.warnings)
    assert not any("no answer token" in warning for warning in probe(model, batch, discover(model)).warnings)


def cut_short(name):
    model, batch = frozen(name)
    return model, {key: value[:, :4] if key != "pixel_values" else value for key, value in batch.items()}


@pytest.mark.parametrize("name", ["llava", "idefics3"])
def test_image_tokens_that_do_not_fit_the_images_are_the_reason(name):
    model, cut = cut_short(name)
    with pytest.raises(ModelError, match=r"hold \[2, 2\] image tokens, which do not fit the images: a `max_length`"):
        probe(model, cut, discover(model))


def test_tokens_beyond_the_embedding_are_the_reason_and_no_length_is_blamed():
    model, batch = frozen("llava")
    beyond = batch["input_ids"].clone()
    beyond[0, -1] = rows = model.get_input_embeddings().num_embeddings
    with pytest.raises(ModelError, match=rf"embedding of {rows} rows does not have: ids \[{rows}\]") as error:
        probe(model, {**batch, "input_ids": beyond}, discover(model))
    assert "max_length" not in str(error.value)


def test_another_error_blames_nothing_that_was_not_seen():
    model, batch = frozen("llava")
    with pytest.raises(ModelError) as error:
        probe(model, {**batch, "pixel_values": batch["pixel_values"][:, :1]}, discover(model))
    assert "channels" in str(error.value) and "max_length" not in str(error.value)


def lora_gradients(model, batch):
    """How many LoRA weights of the vision tower get a gradient while activations are recomputed."""
    adapted = inject_adapter_in_model(LoraConfig(target_modules=r".*vision_tower.*\.fc1", r=2), model)
    loss = adapted.train()(**batch).loss
    if loss.requires_grad:
        loss.backward()
    return sum(bool(p.grad.any()) for name, p in adapted.named_parameters() if "lora_B" in name and p.grad is not None)


@pytest.mark.parametrize(("reentrant", "rescued"), [(True, False), (True, True), (False, False)])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_reentrant_checkpointing_is_noticed_where_it_loses_gradients(reentrant, rescued):
    model, batch = frozen("llava")
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if not rescued:
        model.disable_input_require_grads()
    info = probe(model, batch, discover(model))
    is_lost = reentrant and not rescued
    assert any("reentrant" in warning for warning in info.warnings) == is_lost
    assert (lora_gradients(model, batch) == 0) == is_lost


def test_what_is_not_frozen_is_shown():
    model, batch = frozen("llava")
    model.model.multi_modal_projector.linear_1.bias.requires_grad_(True)
    info = probe(model, batch, discover(model))
    assert {part.name: part.frozen for part in info.parts} == {"vision": True, "projector": False, "language": True}
    assert model.model.multi_modal_projector.linear_1.bias.requires_grad


def test_a_part_without_linears_has_the_gradient_of_its_parameters():
    model, batch = frozen("gemma3")
    info = probe(model, batch, discover(model))
    projector = model.model.multi_modal_projector
    assert not any(parameter.requires_grad for parameter in projector.parameters())
    projector.requires_grad_(True)
    model(**batch).loss.backward()
    expected = sum(float(p.grad.square().sum()) for p in projector.parameters()) ** 0.5
    assert expected > 0 and info.part("projector").gradient_norm == pytest.approx(expected, rel=1e-4)
    assert info.part("projector").whole == ("model.multi_modal_projector",)


def test_missing_image_tokens_are_noticed():
    model, batch = frozen("mllama")
    info = probe(model, {**batch, "input_ids": batch["input_ids"].clamp(max=200)}, discover(model))
    assert any("no image token" in warning for warning in info.warnings)


def test_a_part_the_batch_does_not_use_is_named():
    model, batch = frozen("phi4_multimodal")
    info = probe(model, batch, discover(model))
    assert any("audio was not used by this batch" in warning for warning in info.warnings)


def test_a_batch_that_does_not_fit_is_one_clear_error():
    model, batch = frozen("llava")
    with pytest.raises(ModelError, match="cannot run a batch"):
        probe(model, {**batch, "input_ids": batch["input_ids"].clamp(max=200)}, discover(model))
