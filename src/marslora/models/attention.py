"""Which kernel computes attention."""

from __future__ import annotations

import copy
from typing import Any

import torch

from marslora.core.errors import ConfigError
from marslora.core.spec import ModelSpec
from marslora.models._classes import first_line
from marslora.models.precision import HALF

FLASH = "flash_attention_2"
"""The kernel of the package flash-attn."""


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
