"""Find the parts of any multimodal model of `transformers`, and the linear layers in them that LoRA can adapt.

No table of models: towers come from `get_encoder(modality=)` and from the `input_modalities` of every sub-module,
the language model from `get_decoder()`, projectors from their names. The few families that hide a part from all of
these have a file in `marslora.models.overrides`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from marslora.core.errors import ConfigError, ModelError
from marslora.core.linears import read_linear_sizes
from marslora.core.parts import LinearInfo, ModelInfo, PartInfo
from marslora.models import _linears
from marslora.models._classes import list_modalities
from marslora.models._linears import EXPERTS
from marslora.models._towers import MODALITIES, Layout, find_layout
from marslora.models.tokens import find_token_table

PART_ORDER = ("vision", "audio", "projector", "language")
"""The order in which parts are listed everywhere: the way of an input through a model."""


def discover(model: nn.Module, targets: str | None = None, *, experts: bool = False) -> ModelInfo:
    """The parts of ``model`` (on any device, ``meta`` included) with their adaptable linears, in `PART_ORDER`.

    ``targets`` is a regular expression that the whole path of a linear must match for it to be listed. Parts are
    disjoint; the head of the language model, generators of sound or images, and linears of no known part are
    `unlabelled`. With ``experts``, parameters that stack the weights of several experts are listed among the linears.
    Raises `ModelError` if there is nothing to adapt, `ConfigError` if ``targets`` is not a regular expression.
    """
    layout = find_layout(model)
    wanted = _compile(targets)
    linears: dict[str, list[LinearInfo]] = {part: [] for part in PART_ORDER}
    unlabelled = []
    for name, module in _linears.linears(model):
        part = layout.part_of(name)
        if part is None or not _linears.is_adaptable(module):
            unlabelled.append(name)
        elif wanted is None or wanted.fullmatch(name):
            inputs, outputs = read_linear_sizes(module)
            linears.setdefault(part, []).append(LinearInfo(name=name, inputs=inputs, outputs=outputs))
    for name, num_experts, inputs, outputs in _linears.stacked(model) if experts else ():
        part = layout.part_of(name)
        if part is not None and (wanted is None or wanted.fullmatch(name)):
            linear = LinearInfo(name=name, inputs=inputs, outputs=outputs, experts=num_experts)
            linears.setdefault(part, []).append(linear)
    if not any(linears.values()):
        raise ModelError(_explain_nothing_found(model, targets))
    parts = _build_parts(model, layout, linears)
    return ModelInfo(
        architecture=type(model).__name__,
        modalities=tuple(sorted(list_modalities(model))),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        parts=parts,
        width=_find_width(model),
        tokens=find_token_table(model),
        unlabelled=tuple(unlabelled),
        warnings=tuple(_list_warnings(model, layout, parts, targets, experts)),
    )


def _find_width(model: Any) -> int | None:
    """The hidden size of the language model, as the configuration says it; None if it does not."""
    config: Any = getattr(model, "config", None)
    text_config = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    width = getattr(text_config, "hidden_size", None)
    return width if isinstance(width, int) else None


def _compile(targets: str | None) -> re.Pattern[str] | None:
    try:
        return None if targets is None else re.compile(targets)
    except re.error as error:
        raise ConfigError(f"`targets` must be a regular expression, found {targets!r}: {error}.") from None


def _build_parts(model: nn.Module, layout: Layout, linears: dict[str, list[LinearInfo]]) -> tuple[PartInfo, ...]:
    num_parameters = dict.fromkeys(linears, 0)
    for name, parameter in model.named_parameters():
        part = layout.part_of(name)
        if part is not None:
            num_parameters[part] = num_parameters.get(part, 0) + parameter.numel()
    return tuple(
        PartInfo(name=part, paths=layout.paths(part), num_parameters=num_parameters[part], linears=tuple(listed))
        for part, listed in linears.items()
        if listed or layout.paths(part)
    )


def _explain_nothing_found(model: Any, targets: str | None) -> str:
    if targets is None:
        return f"{type(model).__name__} has no linear layer that LoRA could adapt. Choose another model."
    example = next((name for name, _ in _linears.linears(model)), "none")
    return (
        f"`targets` {targets!r} matches no linear layer of {type(model).__name__}. It must match a layer's whole path, "
        f"e.g. {example!r}."
    )


def _list_warnings(
    model: Any, layout: Layout, parts: tuple[PartInfo, ...], targets: str | None, experts: bool
) -> Iterator[str]:
    declared = list_modalities(model)
    for tower, modalities in MODALITIES.items():
        read = [modality for modality in modalities if modality in declared]
        if read and not layout.paths(tower):
            yield f"The model reads {' and '.join(read)} but no {tower} tower was found: none is adapted."
    for part in parts:
        if not part.linears and targets is not None:
            yield f"`targets` {targets!r} matches no linear of {part.name}: it is left alone."
        elif not part.linears:
            yield (
                f"{part.name} ({', '.join(part.paths)}) has parameters but no linear layer that LoRA can adapt; "
                f"it can still be trained whole: full = [{part.name!r}]."
            )
    listed = {linear.name for part in parts for linear in part.linears}
    remaining = [(name, p.numel()) for name, p in model.named_parameters() if EXPERTS.search(name) and p.dim() > 2]
    if count := sum(number for name, number in remaining if name not in listed):
        remedy = "no adapter is known for their shape" if experts else "`experts` adapts them too, each on its own"
        yield (
            f"{count:,} parameters of experts are stacked, not linear layers: they are left alone. "
            f"The layers around them are adapted; {remedy}."
        )
