"""Gradients of three members (ranks 2, 8, 4) of a pack against three PEFT models, in every way that training can go."""

import contextlib
from unittest import mock

import pytest
import torch

from marslora.adapters import _products
from marslora.engine.speedups import recomputed_layers
from tests.helpers.exactness import assert_exact, keep_float64, measure_error
from tests.helpers.tiny_models import TINY
from tests.twins.worlds import alone_gradients, member, packed_gradients, tiny_base, varied

RANKS = (2, 8, 4)
HALF = 1.5
"""A pack's largest error in bf16, in PEFT's own."""
WAYS = {
    "dropout": {"dropout": 0.1},
    "recomputed": {"dropout": 0.1, "recompute": True},
    "accumulated": {"dropout": 0.1, "num_micro": 3},
    "projector whole": {"dropout": 0.1, "full": ("projector",)},
    "experts": {"experts": True, "num_micro": 2, "options": {"use_rslora": True}},
    "rslora": {"options": {"use_rslora": True}},
    "dora": {"options": {"use_dora": True}},
    "dora with dropout": {"dropout": 0.1, "options": {"use_dora": True, "use_rslora": True}},
    "padded": {"dropout": 0.1, "padding_worth_avoiding": 0.0},
    "everything": {"dropout": 0.2, "recompute": True, "num_micro": 2, "options": {"use_dora": True}},
}
FEW = ("llava", "qwen2_5_vl", "gemma3", "qwen2_audio", "qwen2_5_omni_thinker")
WITH_EXPERTS = ("qwen3_vl_moe",)
FAST = [*((name, "everything") for name in FEW), *(("llava", way) for way in WAYS if way != "experts")]
FAST += [("gemma3", "projector whole"), ("qwen3_vl_moe", "experts"), ("phi4_multimodal", "everything")]


def gradients(name, dtype, recompute=False, num_micro=1, options=None, padding_worth_avoiding=None, **settings):
    """(packed, alone) gradients by tensor of every member; ``padding_worth_avoiding`` 0: multiplied as on a GPU."""
    if padding_worth_avoiding is not None:
        with mock.patch.object(_products, "PADDING_WORTH_AVOIDING", padding_worth_avoiding):
            return gradients(name, dtype, recompute, num_micro, options, **settings)
    base, batch = tiny_base(name, dtype, adapter={"name": "lora", "options": options or {}}, **settings)
    specs = [member(base, rank, seed=rank) for rank in RANKS]
    batches = [batch] if num_micro == 1 else varied(batch, 1, num_micro)[0]
    with recomputed_layers(base.model) if recompute else contextlib.nullcontext():
        weights, packed = packed_gradients(base, specs, *batches)
    alone = [alone_gradients(base, spec, own, *batches) for spec, own in zip(specs, weights, strict=True)]
    return packed, alone


def agree(name, way):
    with keep_float64():
        packed, alone = gradients(name, torch.float64, **WAYS[way])
    for ours, theirs in zip(packed, alone, strict=True):
        assert_exact(ours, theirs)


@pytest.mark.parametrize(("name", "way"), dict.fromkeys(FAST))
def test_few(name, way):
    agree(name, way)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), [(n, w) for n in TINY for w in WAYS if w != "experts" or n in WITH_EXPERTS])
def test_all(name, way):
    agree(name, way)


def half_agrees(name):
    """Under bf16 autocast a pack is as near as PEFT to the gradient that float32 gives for the same rounded weights."""
    base, batch = tiny_base(name, torch.bfloat16, dropout=0.1)
    specs = [member(base, rank, seed=rank) for rank in RANKS]
    weights, packed = packed_gradients(base, specs, batch)
    alone = [alone_gradients(base, spec, own, batch) for spec, own in zip(specs, weights, strict=True)]
    base.model.float()
    base.dtype = torch.float32
    batch = {key: value.float() if value.is_floating_point() else value for key, value in batch.items()}
    for spec, own, ours, theirs in zip(specs, weights, packed, alone, strict=True):
        exact = alone_gradients(base, spec, own, batch)
        assert 0 < measure_error(ours, exact) < HALF * measure_error(theirs, exact)


@pytest.mark.parametrize("name", ["llava", "qwen2_audio"])
def test_few_in_half_precision(name):
    half_agrees(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_all_in_half_precision(name):
    half_agrees(name)
