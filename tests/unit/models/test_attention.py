"""The kernel of attention that is asked for is the one that runs."""

import pytest
import torch

from marslora.core.errors import ConfigError
from marslora.core.spec import ModelSpec
from marslora.models import attention
from marslora.models.attention import set_attention
from marslora.models.loading import load, register_model
from tests.helpers import tiny_models
from tests.helpers.packs import world  # noqa: F401 (a fixture)


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_kernels_agree_and_are_used(world, place):  # noqa: F811
    path = str(world / "model")
    if place == "memory":
        loaded = load(ModelSpec(path=path, device="cpu", attention="sdpa"))
        path = register_model("attention", loaded.model, loaded.processor)
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8, 9, 11]])}
    logits = {}
    for kernel in ("eager", "sdpa"):
        model = load(ModelSpec(path=path, device="cpu" if place == "folder" else "auto", attention=kernel)).model
        assert model.config._attn_implementation == kernel
        assert model.model.language_model.config._attn_implementation == kernel
        logits[kernel] = model(**inputs).logits
    torch.testing.assert_close(logits["eager"], logits["sdpa"], rtol=1e-4, atol=1e-5)


def test_flash_attention_needs_a_gpu(world):  # noqa: F811
    with pytest.raises(ConfigError, match=r"flash_attention_2 needs a CUDA device and `dtype` bfloat16 .* found cpu"):
        load(ModelSpec(path=str(world / "model"), device="cpu", attention="flash_attention_2", dtype="bfloat16"))


def test_a_kernel_that_a_model_does_not_have_is_refused(monkeypatch):
    model, _ = tiny_models.build("florence2")
    monkeypatch.setattr(type(model), "_supports_sdpa", False)
    with pytest.raises(ConfigError, match=r"`attention` sdpa cannot be used by Florence2"):
        set_attention(model, ModelSpec(path="m", attention="sdpa"), torch.device("cpu"), torch.float32)


def draw_heads(heads, keys, dtype=torch.float64, queries=None):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, heads, queries or keys, 8, generator=generator, dtype=torch.float64).to(dtype)


READABLE = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
READABLE[0, :, :, 0] = False  # a row that begins with padding: its first token may read nothing


@pytest.mark.parametrize("mask", [None, READABLE, torch.zeros(2, 1, 5, 5).masked_fill(~READABLE, -1e30).double()])
@pytest.mark.parametrize("is_causal", [False, True])
def test_products_are_attention(mask, is_causal):
    query, key, value = draw_heads(4, 5), draw_heads(2, 5) + 1, draw_heads(2, 5) - 1
    ours = attention.multiply(query, key, value, mask, 0.3, is_causal=is_causal)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, mask, scale=0.3, is_causal=is_causal and mask is None, enable_gqa=True
    )
    assert ours.isfinite().all()
    reads = slice(1, None) if mask is not None else slice(None)
    torch.testing.assert_close(ours[:, :, reads], theirs[:, :, reads], rtol=1e-12, atol=1e-12)


def test_one_row_of_queries_reads_every_row():
    query, key, value = draw_heads(4, 5, queries=3)[:1], draw_heads(2, 5) + 1, draw_heads(2, 5) - 1
    ours = attention.multiply(query, key, value, None, None, is_causal=False)
    theirs = torch.nn.functional.scaled_dot_product_attention(query.expand(2, -1, -1, -1), key, value, enable_gqa=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("keys", "dtype", "more", "is_ours"),
    [
        (40, torch.bfloat16, {}, True),
        (attention.SHORT + 1, torch.bfloat16, {}, False),
        (40, torch.float32, {}, False),
        (40, torch.bfloat16, {"dropout": 0.1}, False),
    ],
)
def test_only_short_half_precision_is_computed_as_products(monkeypatch, keys, dtype, more, is_ours):
    called = []
    monkeypatch.setattr(attention, "multiply", lambda *a, **_: called.append(1) or a[0])
    module = torch.nn.Module()
    heads = draw_heads(2, keys, dtype)
    out, _ = attention.attend(module, heads, heads, heads, None, scaling=0.5, **more)
    assert out.shape == (2, keys, 2, 8) and bool(called) == is_ours


def test_a_model_in_half_precision_computes_products_and_nearly_the_same(world, monkeypatch):  # noqa: F811
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8, 9, 11]])}
    exact = load(ModelSpec(path=str(world / "model"), device="cpu", attention="sdpa")).model(**inputs).logits
    model = load(ModelSpec(path=str(world / "model"), device="cpu", dtype="bfloat16", attention="sdpa")).model
    calls, multiply = [], attention.multiply
    monkeypatch.setattr(attention, "multiply", lambda *a, **b: calls.append(1) or multiply(*a, **b))
    torch.testing.assert_close(model(**inputs).logits.float(), exact, rtol=0.1, atol=0.1)
    assert calls
