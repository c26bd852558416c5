"""Load a language model in 4 or 8 bits with bitsandbytes (QLoRA: Dettmers et al. 2023, arXiv 2305.14314).

Only the linears of the language model are quantised: they hold nearly all parameters, and towers and projectors lose
more than they save. The output head and everything else stays in the dtype that is asked for, in which products are
computed too.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from marslora.core.errors import ConfigError
from marslora.core.parts import LANGUAGE
from marslora.core.spec import ModelSpec
from marslora.models.discovery import discover

PACKAGE = "bitsandbytes"
"""The package that quantises."""
NOISY = ("backends.cpu.ops", "autograd._functions")
"""Its modules that warn without need: one recommends a kernel for weights that are laid out for inference, which
`keep_layout` rules out; the other says at every product that 8-bit layers compute in float16."""


def find_arguments(
    spec: ModelSpec, config: Any, make_skeleton: Callable[[], PreTrainedModel], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained` for a model that is quantised, now or when it was saved; else none.

    Raises `ConfigError` for one that is to be quantised twice, and without the package that it takes.
    """
    stored = find_stored_method(config)
    if stored is not None and spec.quantize is not None:
        raise ConfigError(f"`{spec.path}` was saved quantised ({stored}): leave `quantize` {spec.quantize} out.")
    if stored == PACKAGE:
        check_installed(f"`{spec.path}`")
    place = {"device_map": {"": str(device)}}
    if spec.quantize is None:
        return {} if stored is None else place
    return {"quantization_config": make_quantization(spec.quantize, make_skeleton(), dtype), **place}


def refuse_in_memory(spec: ModelSpec) -> None:
    """Raise `ConfigError` if a model in memory is to be quantised, which only happens while weights are read."""
    if spec.quantize is not None:
        raise ConfigError(
            f"`quantize` {spec.quantize} needs the model's folder, found a model in memory. Give the folder, or load "
            "the model with a BitsAndBytesConfig and leave `quantize` out."
        )


def make_quantization(name: str, skeleton: PreTrainedModel, dtype: torch.dtype) -> BitsAndBytesConfig:
    """How `transformers` loads a model of this ``skeleton`` with its language model in ``nf4`` or ``int8``.

    Raises `ConfigError` without bitsandbytes, and for a model without a language model that could be quantised.
    """
    check_installed("`quantize`")
    language = {linear.name for part in discover(skeleton).parts if part.name == LANGUAGE for linear in part.linears}
    linears = [path for path, module in skeleton.named_modules() if isinstance(module, nn.Linear)]
    if not language & set(linears):
        raise ConfigError(
            f"`quantize` {name} needs a language model with linears, found none in {type(skeleton).__name__} that "
            "bitsandbytes can quantise. Leave it out."
        )
    kept = [path for path in linears if path not in language]
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )


def check_installed(what: str) -> None:
    """Raise `ConfigError` if ``what`` needs bitsandbytes and it is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise ConfigError(f"{what} needs {PACKAGE}, which is not installed. Run: pip install 'marslora[quantize]'")
    for module in NOISY:
        logging.getLogger(f"{PACKAGE}.{module}").setLevel(logging.ERROR)


def is_quantized(model: Any) -> bool:
    """Whether a model holds weights that are not plain numbers."""
    return bool(getattr(model, "is_quantized", False))


def dequantize(model: Any) -> Any:
    """The model with its quantised weights as plain float32 numbers, the same that it computed with; it is changed.

    Raises `ConfigError` if the package that quantised it cannot do that.
    """
    try:
        return model.dequantize(torch.float32).float()
    except (NotImplementedError, ValueError, ImportError) as error:
        raise ConfigError(
            f"The weights of this model, quantised by {find_stored_method(model.config)}, cannot be written out as "
            f"plain numbers: {error}. Use the adapter as it is, with `marslora.attach(model, folder)`."
        ) from None


def find_stored_method(config: Any) -> str | None:
    """How weights were quantised before they were saved, as their configuration says; None: they were not."""
    stored = getattr(config, "quantization_config", None)
    method = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", None)
    return None if stored is None else str(getattr(method, "value", method))


def keep_layout(model: nn.Module) -> None:
    """Stop 4-bit layers from rearranging their weights for inference.

    On a CPU with AVX512-BF16, bitsandbytes does so at the first forward without a gradient, and can neither go backward
    through them afterwards nor rearrange layers whose number of inputs is not a multiple of 64.
    """
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
