"""Which kernel computes attention."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from marslora.core.errors import ConfigError
from marslora.core.spec import ModelSpec
from marslora.models._classes import first_line
from marslora.models.precision import HALF

FLASH = "flash_attention_2"
"""The kernel of the package flash-attn."""
SHORT = 384
"""Keys up to which attention in half precision is faster on a CPU as two matrix products than in torch's own kernel:
forward and backward took 0.14 of its time at 40 keys, 0.4 at 257, and 1.1 at 512 (measured, bfloat16)."""


def find_arguments(
    spec: ModelSpec, config: Any, model_class: Any, device: torch.device, dtype: torch.dtype
) -> dict[str, str]:
    """Keyword arguments of `from_pretrained` for the attention that ``spec`` asks for; none for ``auto``.

    Raises `ConfigError` if the model does not have it, its package is missing, or it needs another device or dtype.
    """
    if spec.attention == "auto":
        return {}
    _check_place(spec, device, dtype)
    wanted = copy.deepcopy(config)
    wanted._attn_implementation = spec.attention
    try:
        with torch.device("meta"):
            model_class(wanted)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"`attention` {spec.attention} cannot be used by {model_class.__name__}: {first_line(error)}. Use another "
            "one, or leave it out."
        ) from None
    return {"attn_implementation": spec.attention}


def set_attention(model: Any, spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> None:
    """Let a model in memory use the attention that ``spec`` asks for. Raises `ConfigError` as `find_arguments` does."""
    if spec.attention == "auto":
        return
    find_arguments(spec, model.config, type(model), device, dtype)
    model.set_attn_implementation(spec.attention)


def _check_place(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> None:
    if spec.attention == FLASH and (device.type != "cuda" or dtype not in HALF):
        raise ConfigError(
            f"`attention` {FLASH} needs a CUDA device and `dtype` bfloat16 or float16, found {device.type} and "
            f"{str(dtype).removeprefix('torch.')}. Use sdpa, or leave it out."
        )


def prefer_products(device: torch.device, dtype: torch.dtype) -> None:
    """Let models in half precision on a CPU compute the attention called sdpa as products where keys are few.

    It is the same attention, for all models of this process; a call with anything else in it goes to torch's kernel.
    """
    if device.type == "cpu" and dtype in HALF:
        AttentionInterface.register("sdpa", attend)


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention as `transformers` calls it: (rows, heads, tokens, size) in, (rows, tokens, heads, size) out."""
    if not _suits_products(query, key, options):
        kernel: Any = sdpa_attention_forward
        found: tuple[Tensor, None] = kernel(module, query, key, value, attention_mask, **options)
        return found
    is_causal = options.get("is_causal")
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    mixed = multiply(query, key, value, attention_mask, options.get("scaling"), is_causal=bool(is_causal))
    return mixed.transpose(1, 2).contiguous(), None


def _suits_products(query: Tensor, key: Tensor, options: dict[str, Any]) -> bool:
    has_more = options.get("dropout") or options.get("position_bias") is not None or options.get("softcap") is not None
    is_half = query.device.type == "cpu" and query.dtype in HALF
    return is_half and not has_more and query.ndim == 4 and key.shape[2] <= SHORT


def multiply(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None, *, is_causal: bool
) -> Tensor:
    """What `torch.nn.functional.scaled_dot_product_attention` computes, as two products around a softmax in float32.

    Heads that share keys and values do not copy them. ``is_causal`` counts only where there is no ``mask``. A token
    that may read nothing reads everything, which is no number to use, but none that spreads either.
    """
    rows, heads, queries, size = query.shape
    num_keys = key.shape[2]
    grouped = query.reshape(rows, key.shape[1], -1, size)  # heads that share keys, one after the other
    scores = (grouped @ key.mT).view(-1, heads, queries, num_keys) * (size**-0.5 if scale is None else scale)
    if mask is None and is_causal and query.shape[2] > 1:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask[..., :num_keys], torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask[..., :num_keys]
    weights = torch.softmax(scores, -1, dtype=torch.promote_types(torch.float32, scores.dtype)).to(value.dtype)
    return (weights.reshape(-1, key.shape[1], heads // key.shape[1] * queries, num_keys) @ value).view(
        -1, heads, queries, value.shape[-1]
    )
