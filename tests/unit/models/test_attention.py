"""The kernel of attention that is asked for is the one that runs."""

import pytest
import torch

from marslora.core.errors import ConfigError
from marslora.core.spec import ModelSpec
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
