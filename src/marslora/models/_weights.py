"""Check that every weight of a loaded model is the checkpoint's: none is missing, left over or not finite."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers.utils.logging as transformers_logging
from torch import Tensor, nn

from marslora.core.errors import ModelError
from marslora.core.linears import QUANTIZED
from marslora.models import _checkpoint

NAMED = 4
"""Tensors that a message names; of more it says how many they are."""
QUANTIZED_LINEARS = ("Linear4bit", "Linear8bitLt")
"""The classes of bitsandbytes' linears."""
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
"""The number of a layer in the name of a tensor."""
_CONVERSION = re.compile(r"^(\S+)\s*\|.*CONVERSION", re.MULTILINE)
"""A line of the table in which `transformers` logs a tensor that it could not convert."""


class _Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextlib.contextmanager
def keep_log() -> Iterator[list[str]]:
    """Within it, what `transformers` logs is kept and not shown: `check_report` says what matters."""
    logger, records = transformers_logging.get_logger("transformers"), _Records()
    handlers, propagates = logger.handlers[:], logger.propagate
    logger.handlers, logger.propagate = [records], False
    try:
        yield records.texts
    finally:
        logger.handlers, logger.propagate = handlers, propagates


def name_unconverted(log: Iterable[str]) -> str:
    """Which weights `transformers` could not put together from the stored tensors; empty if none. Its error does not
    name them."""
    names = [name for text in log for name in _CONVERSION.findall(text)]
    return f"what is stored of {list_names(names)} is not complete or does not fit together" if names else ""


def check_report(model: Any, report: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """Raise `ModelError` unless every weight of ``model`` was loaded; return warnings of what else there is.

    ``report`` is what `from_pretrained` returns with ``output_loading_info``. Weights that are tied to others, and
    those that the model's class does not expect, are not missing.
    """
    if misshapen := report["mismatched_keys"]:
        raise ModelError(
            f"{_count(misshapen, path)} not of the shape that its config.json says: "
            f"{_list_shapes(misshapen)}. Save the model again with its own configuration."
        )
    unexpected = sorted(report["unexpected_keys"])
    if missing := sorted(report["missing_keys"]):
        instead = f" The checkpoint has {list_names(unexpected)} instead, which the model does not take." * bool(
            unexpected
        )
        raise ModelError(
            f"{len(missing)} of {len(model.state_dict())} weights of {type(model).__name__} are missing in `{path}`, "
            f"and would be random numbers: {list_names(missing)}.{instead} Download or save the model again, with all "
            "its parts."
        )
    if ignored := _find_ignored(model, unexpected):
        raise ModelError(
            f"{_count(ignored, path)} without a place in the model that its config.json describes, which would "
            f"compute something else: {list_names(ignored)}.{_explain_scales(ignored)} Save the "
            "model again with its own configuration."
        )
    if not unexpected:
        return ()
    return (
        f"{_count(unexpected, path)} left out, because {type(model).__name__} has no such module: "
        f"{list_names(unexpected)}. If the model needs them, its config.json is not the one they were saved with.",
    )


def check_types(folder: Path, config: Any) -> None:
    """Raise `ModelError` for quantised weights whose configuration does not say how to read them."""
    quantised = _checkpoint.find_quantised(folder)
    if not quantised or getattr(config, "quantization_config", None):
        return
    names = [f"{each.name} ({each.dtype})" for each in quantised]
    raise ModelError(
        f"{_count(names, folder)} quantised, but its config.json has no `quantization_config` that says "
        f"how to read them: {list_names(names)}. Restore that entry, or use the model before it was quantised."
    )


def check_numbers(model: nn.Module, path: str, folder: Path | None) -> None:
    """Raise `ModelError` for weights that are not finite, or not there.

    ``folder`` holds the checkpoint, if there is one, and tells why. Of quantised weights the scales are looked at, if
    they have any.
    """
    unloaded = [name for name, each in model.named_parameters() if each.is_meta]
    if unloaded:
        raise ModelError(
            f"{_count(unloaded, path)} not loaded: {list_names(unloaded)}. Load the model without a "
            "`device_map` that leaves a part of it on the disk or on `meta`."
        )
    half = [name for name, module in model.named_modules() if _is_half_quantised(module)]
    if half:
        raise ModelError(
            f"{_count(half, path)} not quantised as its configuration says: {list_names(half)}. Save the model again, "
            "or name these layers in `llm_int8_skip_modules` of its `quantization_config`."
        )
    damaged = [name for name, each in model.named_parameters() if not all(map(_checkpoint.is_finite, _numbers(each)))]
    saved = set(model.state_dict())
    damaged += [name for name, each in model.named_buffers() if name in saved and bool(torch.isnan(each).any())]
    if damaged:
        raise ModelError(
            f"{_count(damaged, path)} not finite: {list_names(damaged)}.{_explain_numbers(model, damaged[0], folder)}"
        )


def list_names(names: Iterable[str]) -> str:
    """The first `NAMED` names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(f"`{name}`" for name in listed[:NAMED]) + more


def _count(weights: Collection[Any], where: object) -> str:
    return f"1 weight of `{where}` is" if len(weights) == 1 else f"{len(weights)} weights of `{where}` are"


def _list_shapes(misshapen: Iterable[tuple[str, Any, Any]]) -> str:
    ordered = sorted(misshapen)
    shapes = [f"`{name}` {tuple(found)} instead of {tuple(wanted)}" for name, found, wanted in ordered[:NAMED]]
    return ", ".join(shapes) + (f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else "")


def _find_ignored(model: nn.Module, unexpected: Iterable[str]) -> list[str]:
    """The unexpected tensors that would change what the model computes: those of its modules, and more such layers."""
    modules = {name for name, module in model.named_modules() if not any(True for _ in module.children())}
    kinds = {_NUMBER.sub("*", name) for name in model.state_dict()}
    return [name for name in unexpected if name.rpartition(".")[0] in modules or _NUMBER.sub("*", name) in kinds]


def _explain_scales(names: Iterable[str]) -> str:
    scales = (".SCB", ".absmax", ".quant_map", ".weight_scale", ".weight_scale_inv", ".scales", ".qzeros", ".qweight")
    if not any(name.endswith(scales) or ".quant_state." in name for name in names):
        return ""
    return " They are scales of quantised weights: config.json needs its `quantization_config`."


def _is_half_quantised(module: nn.Module) -> bool:
    """Whether a linear of bitsandbytes holds plain numbers, which it cannot compute with."""
    if type(module).__name__ not in QUANTIZED_LINEARS:
        return False
    weight = getattr(module, "weight", None)
    is_lost = type(weight).__name__ == "Params4bit" and getattr(weight, "quant_state", None) is None
    return type(weight).__name__ not in QUANTIZED or is_lost


def _numbers(parameter: Tensor) -> Iterator[Tensor]:
    """The numbers of a parameter, or those of its scales if bitsandbytes keeps it quantised."""
    state = getattr(parameter, "quant_state", None)
    scales = (getattr(state, "absmax", None), getattr(parameter, "SCB", None), parameter)
    yield from (each.detach() for each in scales if isinstance(each, Tensor))


def _explain_numbers(model: nn.Module, name: str, folder: Path | None) -> str:
    """What the file says about the first of the weights that are not finite."""
    stored = _checkpoint.read_stored(folder, name) if folder else None
    if stored is None:
        return " Load a checkpoint that was saved before its training diverged, or download the model again."
    if not _checkpoint.is_finite(stored):
        return (
            " The file itself holds them. Use a checkpoint that was saved before its training diverged, or download "
            "the model again."
        )
    dtype = str(model.get_parameter(name).dtype).removeprefix("torch.")
    largest = float(stored.abs().max())
    return (
        f" In the file they are finite, up to {largest:.3g}, which {dtype} cannot hold. Use `dtype` bfloat16 or "
        "float32."
    )
