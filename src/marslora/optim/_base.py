"""The base class of optimizers: an ordinary `torch.optim.Optimizer` that also updates packs, each member independently.

A *member-stacked* parameter holds K independent copies along its first dimension. Rules only ever see stacked tensors:
an ordinary parameter is a pack of one. A rule must never let the numbers of one member reach another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from marslora.core.errors import ConfigError
from marslora.core.plugin_options import AbstractPlugin
from marslora.optim._bucket import Bucket
from marslora.optim._groups import FIELDS, active_members, check_group, num_members, rank_of
from marslora.optim._options import OptimizerConfig
from marslora.optim._stacks import (
    as_stack,
    member_values,
    read_rows,
    strip_padding,
    working_dtype,
    write_rows,
    zero_padding,
)

TABLE_HEADER = ("part", "role", "rule", "tensors", "numbers", "state per number", "lr", "weight decay", "shapes")
"""Columns of `AbstractOptimizer.describe`."""


class AbstractOptimizer(torch.optim.Optimizer, AbstractPlugin, ABC):
    """An optimizer for ordinary parameters and for packs.

    Constructed as in torch, ``MarsM(params, lr=1e-3, momentum=0.9)``; the options are the fields of `Config`.
    Fields of a parameter group besides these options (all are read at every step, so any may be scheduled):

    - ``members``: None for ordinary parameters; K where the first dimension of every parameter is K members.
    - ``ranks``: the members' true ranks; the rest of dimension ``rank_dim`` is padding and stays exactly zero.
    - ``rank_dim``: negative; None means as PEFT stores factors, -2 for role A (R, I) and -1 for role B (O, R).
    - ``role``: A, B, full, magnitude, router, tokens or other. ``part``: vision, language, ... (a label for people).
    - ``active``: (K,) booleans or None. A member that is not active keeps parameters and state bit for bit.
    - ``lr``, ``weight_decay`` and other numbers: one, or one per member as a (K,) tensor or a sequence.

    State is float32 for half-precision parameters, otherwise in their dtype. ``.grad`` is never written.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(OptimizerConfig):
        """The options of the optimizer, which are keyword arguments of its constructor."""

    needs_two_points = False
    """Whether a step also needs gradients at the previous point: `step` with a closure, or ``previous_point``."""

    def __init__(self, params: Any, lr: Any = None, **options: Any):
        given = options if lr is None else {"lr": lr, **options}
        config = self.Config.of(given, type(self).__name__)
        super().__init__(params, {**FIELDS, **config.group_numbers()})

    @abstractmethod
    def update(self, bucket: Bucket) -> None:
        """Update ``bucket.params`` and ``bucket.states`` in place, each row by itself."""

    @abstractmethod
    def rule_buffers(self, rule: str, group: dict[str, Any]) -> tuple[str, ...]:
        """Names of the state that a rule keeps besides ``step``: each buffer has the parameter's shape."""

    def rule(self, param: Tensor, group: dict[str, Any]) -> str:  # noqa: ARG002
        """The name of the rule that moves a parameter: the optimizer's own name unless it has several rules."""
        return type(self).__name__

    def buffers(self, param: Tensor) -> tuple[str, ...]:
        """Names of the state of ``param``, besides ``step``."""
        group = self._group_of(param)
        return self.rule_buffers(self.rule(param, group), group)

    @property
    def num_members(self) -> int:
        """The number of members K; 1 for ordinary parameters."""
        return num_members(self.param_groups[0])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; `ConfigError` if its fields contradict each other or its parameters."""
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1], self.param_groups[0])
        except ConfigError:
            self.param_groups.pop()
            raise

    def set_active(self, active: Tensor | Sequence[bool] | None) -> None:
        """Let only some members move: (K,) booleans, or None for all."""
        mask = None if active is None else torch.as_tensor(active, dtype=torch.bool).cpu()
        if mask is not None and mask.shape != (self.num_members,):
            raise ConfigError(
                f"`active` must have one entry for each of {self.num_members} members, found the shape "
                f"{tuple(mask.shape)}. Pass as many booleans, or None for all."
            )
        for group in self.param_groups:
            group["active"] = mask

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every active member of every parameter that has a gradient; returns what ``closure`` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            members = active_members(group)
            params = [param for param in group["params"] if param.grad is not None and param.numel()]
            for rule, alike in self._group_alike(params, group) if members else ():
                self._step_group(group, rule, alike, members)
        return loss

    def member_state(self, param: Tensor, member: int = 0) -> dict[str, Tensor]:
        """A copy of one member's state of ``param``, without padding: ``step`` (a scalar) and its `buffers`.

        Empty if the parameter was never updated. Ordinary parameters have one member, 0.
        """
        group, state = self._group_of(param), self.state.get(param)
        if not state:
            return {}
        own = {name: self._member_view(group, state[name], member).clone() for name in self.buffers(param)}
        return {"step": state["step"].view(-1)[member].clone(), **own}

    def load_member_state(self, param: Tensor, member: int, state: dict[str, Tensor]) -> None:
        """Write what `member_state` returned into one member of ``param``; an empty ``state`` resets the member."""
        group = self._group_of(param)
        own = self._state_of(param, group)
        own["step"].view(-1)[member] = state["step"] if state else 0
        for name in self.buffers(param):
            as_stack(own[name], group["members"])[member].zero_()
            view = self._member_view(group, own[name], member)
            if state and (name not in state or view.shape != state[name].shape):
                actual = tuple(state[name].shape) if name in state else f"missing among {sorted(state)}"
                raise ConfigError(
                    f"State `{name}` of member {member} must have shape {tuple(view.shape)}, found {actual}. "
                    "It belongs to another optimizer or another rank: load it into what it was made for."
                )
            if state:
                view.copy_(state[name])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but state of half-precision parameters stays float32, and step counts stay on the CPU."""
        super().load_state_dict(state_dict)
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for key, param in zip(saved, chain.from_iterable(g["params"] for g in self.param_groups), strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                device = "cpu" if name == "step" else param.device
                dtype = torch.float32 if name == "step" else working_dtype(param)
                self.state[param][name] = value.to(device, dtype, copy=True)

    def describe(self) -> str:
        """A table with a line per group and rule: how many tensors, which rule moves them, at which learning rate."""
        rows: list[tuple[str, ...]] = [TABLE_HEADER]
        for group in self.param_groups:
            rules = dict.fromkeys(self.rule(param, group) for param in group["params"])
            rows += [self._describe_rule(group, rule) for rule in rules]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def _describe_rule(self, group: dict[str, Any], rule: str) -> tuple[str, ...]:
        """The cells of the group's parameters that a rule moves."""
        params = [param for param in group["params"] if self.rule(param, group) == rule]
        shapes = Counter("x".join(map(str, param.shape)) for param in params)
        return (
            group["part"] or "-",
            group["role"],
            rule,
            str(len(params)),
            f"{sum(param.numel() for param in params):,}",
            str(len(self.rule_buffers(rule, group))),
            _format_range(group["lr"], group, group["b_ratio"] if group["role"] == "B" else 1.0),
            _format_range(group["weight_decay"], group, 1.0),
            ", ".join(f"{times} of {shape}" for shape, times in shapes.most_common(3)),
        )

    def _group_of(self, param: Tensor) -> dict[str, Any]:
        for group in self.param_groups:
            if any(param is other for other in group["params"]):
                return group
        raise ConfigError(
            f"A parameter of shape {tuple(param.shape)} is not in this optimizer. Add it with `add_param_group`."
        )

    def _member_view(self, group: dict[str, Any], tensor: Tensor, member: int) -> Tensor:
        row = as_stack(tensor, group["members"])[member]
        return strip_padding(row, rank_of(group, member), group["rank_dim"])

    def _state_of(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """The parameter's state; zeros at its first use."""
        state: dict[str, Tensor] = self.state[param]
        if not state:
            state["step"] = torch.zeros(() if group["members"] is None else (group["members"],), dtype=torch.float32)
        for name in self.rule_buffers(self.rule(param, group), group):
            if name not in state:
                state[name] = torch.zeros_like(param, dtype=working_dtype(param))
        return state

    def _group_alike(self, params: Iterable[Tensor], group: dict[str, Any]) -> list[tuple[str, list[Tensor]]]:
        """(rule, parameters) for each rule, device and dtype; `ConfigError` for gradients that no rule can use."""
        buckets: dict[tuple[str, torch.device, torch.dtype], list[Tensor]] = {}
        for param in params:
            if param.grad is None or param.grad.layout != torch.strided or param.is_complex():
                raise ConfigError(
                    f"A parameter of shape {tuple(param.shape)} is complex or has a sparse gradient; no optimizer "
                    "here can use either. Build its layer without (`sparse=False`), or leave it out."
                )
            buckets.setdefault((self.rule(param, group), param.device, param.dtype), []).append(param)
        return [(rule, alike) for (rule, _, _), alike in buckets.items()]

    def _step_group(self, group: dict[str, Any], rule: str, owners: list[Tensor], members: list[int]) -> None:
        """Bring the active rows of parameters of one rule, device and dtype together, update them, write them back."""
        everyone = len(members) == num_members(group)
        rows = None if everyone else torch.tensor(members).to(owners[0].device, non_blocking=True)
        states = [self._state_of(param, group) for param in owners]
        steps = [state["step"].view(-1) for state in states]
        if everyone:
            torch._foreach_add_(steps, 1)
        else:
            for step in steps:
                step[members] += 1
        views = [as_stack(param.detach(), group["members"]) for param in owners]
        buffers = {
            name: [as_stack(s[name], group["members"]) for s in states] for name in self.rule_buffers(rule, group)
        }
        grads = zero_padding([param.grad for param in owners], group)
        dtype = working_dtype(owners[0])
        bucket = Bucket(
            group=group,
            rule=rule,
            params=[read_rows(view, rows).to(dtype) for view in views],
            grads=[read_rows(grad, rows).to(dtype) for grad in grads],
            states={name: [read_rows(view, rows) for view in own] for name, own in buffers.items()},
            steps_NK=torch.stack(steps)[:, members].double(),
            members=members,
        )
        self.update(bucket)
        write_rows(views, rows, bucket.params)
        for name, own in buffers.items():
            write_rows(own, rows, bucket.states[name])


def _format_range(value: Any, group: dict[str, Any], factor: float) -> str:
    """A number of the group, or the lowest and highest of its members'."""
    values = (member_values(value, num_members(group)) * factor).tolist()
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
