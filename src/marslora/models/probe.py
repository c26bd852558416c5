"""Probe a model: one forward and backward on real rows shows which layers training would reach.

The model stays frozen. A zero that takes a gradient is added to the output of every linear; from the gradient of that
zero and the input of the linear follows the gradient that its weight would have. Afterwards the model is as before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from marslora.core.errors import ModelError
from marslora.core.linears import read_linear_sizes
from marslora.core.parts import LinearInfo, ModelInfo, PartInfo
from marslora.models import _warnings
from marslora.models._classes import first_line

_EXPERT = re.compile(r"\.experts\.\d+\.")
"""Experts that are layers of their own: one without a token in the batch is not dead."""


@dataclass
class _Seen:
    """What happened at one linear layer in a forward and backward."""

    num_calls: int = 0
    """Calls in the forward."""
    under_no_grad: bool = False
    """Whether a call was made under `torch.no_grad()`."""
    reached: bool = False
    """Whether a gradient arrived at its output."""
    squared_norm: float = 0.0
    """Of the gradient of its weight."""
    gradient: Tensor | None = None
    """The gradient itself, kept only for a layer that is called several times."""


_Raw = dict[str, list[nn.Parameter]]
"""Parameters that no linear stands for: those of parts without a linear, by part, and stacked experts, by name."""


def probe(model: nn.Module, batch: Mapping[str, Tensor], info: ModelInfo) -> ModelInfo:
    """``info`` with dead linears marked, each part's gradient norm, and warnings that say how to fix what is wrong.

    A linear is dead if no gradient reaches its output or it is never called: LoRA there would learn nothing. A linear
    whose gradient is exactly zero, e.g. before a zero-initialised projector or a closed gate, is not dead but gets a
    warning. The model runs in evaluation mode; its parameters, gradients, modules and mode are left as they were.
    Raises `ModelError` if the model cannot run the batch or returns no loss for it.
    """
    seen = {linear.name: _Seen() for part in info.parts for linear in part.linears}
    stacked = [linear.name for part in info.parts for linear in part.linears if linear.experts > 1]
    raw = {part.name: _parameters(model, part) for part in info.parts if not part.linears}
    raw |= {name: [model.get_parameter(name)] for name in stacked}
    frozen = {part.name: not any(p.requires_grad for p in _parameters(model, part)) for part in info.parts}
    with _use_eval_mode(model):
        reentrant = list(_warnings.check_recomputation(model, batch))
        with _watch_linears(model, seen) as probes, _require_gradients(raw) as bare, torch.enable_grad():
            loss = _compute_loss(model, batch)
            gradients = torch.autograd.grad(loss, [*probes, *bare], allow_unused=True) if loss.requires_grad else ()
    measured = _measure_raw(raw, gradients[len(probes) :])
    for name in stacked:
        square = measured.pop(name)["gradient_norm"] ** 2
        seen[name] = _Seen(num_calls=1, reached=square > 0, squared_norm=square)
    parts = tuple(
        _mark_dead(part, seen).model_copy(update={"frozen": frozen[part.name]} | measured.get(part.name, {}))
        for part in info.parts
    )
    warnings = [*_warnings.check_batch(model, batch, loss), *reentrant, *_check_parts(parts, seen)]
    return info.model_copy(update={"parts": parts, "warnings": (*info.warnings, *warnings)})


def _parameters(model: nn.Module, part: PartInfo) -> list[nn.Parameter]:
    return [parameter for path in part.paths for parameter in model.get_submodule(path).parameters()]


@contextmanager
def _require_gradients(raw: _Raw) -> Iterator[list[nn.Parameter]]:
    """Within it these parameters take gradients, since there is no layer whose output could show them."""
    parameters = [parameter for group in raw.values() for parameter in group]
    before = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield parameters
    finally:
        for parameter, wanted in zip(parameters, before, strict=True):
            parameter.requires_grad_(wanted)


def _measure_raw(raw: _Raw, gradients: Sequence[Tensor | None]) -> dict[str, dict[str, float]]:
    """``gradient_norm`` and ``reached`` by part or name, from the gradients of all parameters of ``raw``."""
    remaining, measured = iter(gradients), {}
    for part, parameters in raw.items():
        own = [next(remaining, None) for _ in parameters]
        norm = sum(map(_squared_norm, own)) ** 0.5
        measured[part] = {"gradient_norm": norm, "reached": any(each is not None for each in own)}
    return measured


def _squared_norm(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.float().square().sum())


def _compute_loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    try:
        loss: Tensor | None = model(**batch).loss
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = _warnings.explain_failure(model, batch, error) or " Check the rows and their processor."
        raise ModelError(
            f"{type(model).__name__} cannot run a batch with the keys {sorted(batch)}: {first_line(error)}.{reason}"
        ) from None
    if loss is None:
        raise ModelError(
            f"{type(model).__name__} must return a loss, but returns none for a batch with the keys {sorted(batch)}. "
            "Add `labels` to the batch."
        )
    return loss


@contextmanager
def _watch_linears(model: nn.Module, seen: dict[str, _Seen]) -> Iterator[list[Tensor]]:
    """Within it a zero that takes a gradient is added to every linear's output; yields these zeros as they are made."""
    probes: list[Tensor] = []
    modules = dict(model.named_modules())
    handles = [
        modules[name].register_forward_hook(_make_watcher(record, probes), with_kwargs=True)
        for name, record in seen.items()
        if name in modules
    ]
    try:
        yield probes
    finally:
        for handle in handles:
            handle.remove()


def _make_watcher(seen: _Seen, probes: list[Tensor]) -> Any:
    def watch(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:
        seen.num_calls += 1
        if not torch.is_grad_enabled():
            seen.under_no_grad = True
            return output
        zero = torch.zeros(read_linear_sizes(module)[1], dtype=output.dtype, device=output.device, requires_grad=True)
        probes.append(zero)
        watched = output + zero
        x = next(iter((*inputs, *named.values())))
        watched.register_hook(_make_recorder(seen, x.detach()))  # type: ignore[no-untyped-call]
        return watched

    return watch


def _make_recorder(seen: _Seen, x: Tensor) -> Any:
    def record(gradient: Tensor) -> None:
        x_NI = x.reshape(-1, x.shape[-1]).float()
        dy_NO = gradient.reshape(-1, gradient.shape[-1]).float()
        seen.reached = True
        dw_OI = dy_NO.T @ x_NI
        if seen.num_calls > 1:
            seen.gradient = dw_OI = dw_OI if seen.gradient is None else seen.gradient + dw_OI
        seen.squared_norm = float(dw_OI.square().sum())

    return record


@contextmanager
def _use_eval_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _mark_dead(part: PartInfo, seen: dict[str, _Seen]) -> PartInfo:
    linears = tuple(
        linear.model_copy(update={"dead": not seen[linear.name].reached and not _EXPERT.search(linear.name)})
        for linear in part.linears
    )
    norm = sum(seen[linear.name].squared_norm for linear in linears) ** 0.5
    reached = any(not linear.dead for linear in linears)
    return part.model_copy(update={"linears": linears, "gradient_norm": norm, "reached": reached})


def _check_parts(parts: tuple[PartInfo, ...], seen: dict[str, _Seen]) -> Iterator[str]:
    for part in parts:
        if not part.linears:
            continue
        calls = [seen[linear.name] for linear in part.linears]
        if any(one.under_no_grad for one in calls):
            yield (
                f"{part.name} runs under `torch.no_grad()`, so no adapter in it can learn. "
                "Give it rank 0, or remove the `no_grad` around it (a frozen part needs only requires_grad=False)."
            )
        elif not any(one.num_calls for one in calls):
            yield f"{part.name} was not used by this batch. Give it rank 0, or rows that need it."
        elif not any(one.reached for one in calls):
            yield f"No gradient reaches {part.name}: its output is not used by the loss. Give it rank 0."
        elif not any(one.squared_norm for one in calls):
            yield (
                f"Gradients reach {part.name} but are exactly zero, as before a zero-initialised projector or a closed "
                "gate. Its rank cannot be measured before that opens: load trained weights, or train the projector."
            )
        else:
            yield from _check_linears(part, seen)


def _check_linears(part: PartInfo, seen: dict[str, _Seen]) -> Iterator[str]:
    if dead := [linear for linear in part.linears if linear.dead]:
        yield f"{_count(dead)} of {part.name} get no gradient and are not adapted: {_list_some(dead)}."
    if idle := [linear for linear in part.linears if not linear.dead and not seen[linear.name].reached]:
        yield f"{_count(idle)} of experts in {part.name} had no token in this batch: {_list_some(idle)}."
    if zero := [linear for linear in part.linears if seen[linear.name].reached and not seen[linear.name].squared_norm]:
        yield (
            f"{_count(zero)} of {part.name} get a gradient of exactly zero (a closed gate or a zero-initialised layer "
            f"after them): {_list_some(zero)}."
        )


def _count(linears: list[LinearInfo]) -> str:
    return f"{len(linears)} linear layer{'s' if len(linears) > 1 else ''}"


def _list_some(linears: list[LinearInfo]) -> str:
    return ", ".join(linear.name for linear in linears[:3]) + (", ..." if len(linears) > 3 else "")
