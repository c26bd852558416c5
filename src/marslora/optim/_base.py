"""What every optimizer promises: an ordinary `torch.optim.Optimizer` that also updates packs, each member for itself.

A *member-stacked* parameter holds K independent copies along its first dimension. Kinds only ever see stacked tensors:
an ordinary parameter is a pack of one. What a kind must not do is let one member's numbers reach another's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from marslora.core.errors import ConfigError
from marslora.optim._describe import describe
from marslora.optim._groups import FIELDS, active_members, check_group, num_members, rank_of
from marslora.optim._stacks import (
    as_stack,
    foreach_values,
    member_values,
    read_rows,
    strip_padding,
    working_dtype,
    write_rows,
    zero_padding,
)


@dataclass
class Bucket:
    """N stacked tensors of one group that a kind updates in place; the first dimension of each is K active members."""

    group: dict[str, Any]
    rule: str
    """Which of the kind's rules moves them."""
    params: list[Tensor]
    grads: list[Tensor]
    """To be read only: they may be the parameters' own ``.grad``."""
    states: dict[str, list[Tensor]]
    steps_NK: Tensor
    """Updates of each parameter and member, this one included (float64, CPU)."""
    members: list[int]
    """Which members of the group the K rows are."""

    def number(self, name: str) -> Tensor:
        """The group's number ``name`` of each row: (K,) float64 on the CPU."""
        return member_values(self.group[name], num_members(self.group))[self.members]

    @property
    def lr(self) -> Tensor:
        """The learning rate of each row (K,): role B has ``b_ratio`` times the group's."""
        return self.number("lr") * (self.group["b_ratio"] if self.group["role"] == "B" else 1.0)

    @property
    def ranks(self) -> list[int] | None:
        """True ranks of the rows; what lies beyond, in dimension ``rank_dim``, is zero everywhere."""
        return None if self.group["ranks"] is None else [self.group["ranks"][k] for k in self.members]

    def foreach_values(self, values: Tensor) -> Any:
        """(K,) or (N, K) values as ``torch._foreach_*`` takes them: a float if all are equal, else N tensors."""
        return foreach_values(values, self.params)

    def move(self, directions: list[Tensor], scale: Tensor | float = 1.0) -> None:
        """``x = x (1 - lr wd) - lr scale direction``; ``scale`` is (K,) or (N, K), ``directions`` are used up."""
        lr = self.lr
        if bool((decay := self.number("weight_decay")).any()):
            torch._foreach_mul_(self.params, self.foreach_values(1 - lr * decay))
        size = self.foreach_values(lr * scale)
        if isinstance(size, float):
            torch._foreach_sub_(self.params, directions, alpha=size)
        else:
            torch._foreach_mul_(directions, size)
            torch._foreach_sub_(self.params, directions)


class AbstractOptimizer(torch.optim.Optimizer, ABC):
    """An optimizer for ordinary parameters and for packs.

    Fields of a parameter group, beside a kind's own numbers (all are read at every step, so any may be scheduled):

    - ``members``: None for ordinary parameters; K where the first dimension of every parameter is K members.
    - ``ranks``: the members' true ranks; the rest of dimension ``rank_dim`` is padding, zero and kept exactly zero.
    - ``rank_dim``: negative; None means as PEFT stores factors, -2 for role A (R, I) and -1 for role B (O, R).
    - ``role``: A, B, full, magnitude, router or other. ``part``: vision, language, ... (a label for people).
    - ``active``: (K,) booleans or None. A member that is not active keeps parameters and state bit for bit.
    - ``lr``, ``weight_decay`` and other numbers: one, or one per member as a (K,) tensor or a sequence.
    - ``b_ratio``: role B learns so many times faster (LoRA+, arXiv 2402.12354).

    State is float32 for half-precision parameters, otherwise in their dtype. ``.grad`` is never written.
    """

    needs_two_points = False
    """Whether a step also needs gradients at the previous point: `step` with a closure, or ``previous_point``."""

    def __init__(self, params: Any, defaults: dict[str, Any]):
        super().__init__(params, {**FIELDS, **defaults})

    @abstractmethod
    def update(self, bucket: Bucket) -> None:
        """Update ``bucket.params`` and ``bucket.states`` in place."""

    @abstractmethod
    def rule_buffers(self, rule: str, group: dict[str, Any]) -> tuple[str, ...]:
        """The state that a rule keeps beside ``step``: each buffer has the parameter's shape."""

    def rule(self, param: Tensor, group: dict[str, Any]) -> str:  # noqa: ARG002
        """The name of the rule that moves a parameter; a kind with one rule is called by its own name."""
        return type(self).__name__

    def buffers(self, param: Tensor) -> tuple[str, ...]:
        """Names of the state of ``param``, beside ``step``."""
        group = self._group_of(param)
        return self.rule_buffers(self.rule(param, group), group)

    @property
    def num_members(self) -> int:
        """K; 1 for ordinary parameters."""
        return num_members(self.param_groups[0])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; `ConfigError` where its fields contradict each other or its parameters."""
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1], self.param_groups[0])
        except ConfigError:
            self.param_groups.pop()
            raise

    def set_active(self, active: Tensor | Sequence[bool] | None) -> None:
        """Let only these members move, (K,) booleans; None: all of them."""
        mask = None if active is None else torch.as_tensor(active, dtype=torch.bool).cpu()
        if mask is not None and mask.shape != (self.num_members,):
            raise ConfigError(f"`active` must have shape ({self.num_members},), it has {tuple(mask.shape)}.")
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

        Empty where the parameter was never updated. Ordinary parameters have the one member 0.
        """
        group, state = self._group_of(param), self.state.get(param)
        if not state:
            return {}
        own = {name: self._member_view(group, state[name], member).clone() for name in self.buffers(param)}
        return {"step": state["step"].view(-1)[member].clone(), **own}

    def load_member_state(self, param: Tensor, member: int, state: dict[str, Tensor]) -> None:
        """Write what `member_state` gave into this member of ``param`` alone; an empty ``state`` resets the member."""
        group = self._group_of(param)
        own = self._state_of(param, group)
        own["step"].view(-1)[member] = state["step"] if state else 0
        for name in self.buffers(param):
            as_stack(own[name], group["members"])[member].zero_()
            view = self._member_view(group, own[name], member)
            if state and (name not in state or view.shape != state[name].shape):
                found = tuple(state[name].shape) if name in state else f"missing among {sorted(state)}"
                raise ConfigError(
                    f"State `{name}` of member {member} must have shape {tuple(view.shape)}; it is {found}. "
                    "It was made by another optimizer or for another rank."
                )
            if state:
                view.copy_(state[name])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch, but float32 state of half-precision parameters stays float32, and step counts on the CPU."""
        super().load_state_dict(state_dict)
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for key, param in zip(saved, chain.from_iterable(g["params"] for g in self.param_groups), strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                device = "cpu" if name == "step" else param.device
                dtype = torch.float32 if name == "step" else working_dtype(param)
                self.state[param][name] = value.to(device, dtype, copy=True)

    def describe(self) -> str:
        """A table: which rule moves which parameters, at which learning rate, with how much state."""
        return describe(self)

    def _group_of(self, param: Tensor) -> dict[str, Any]:
        for group in self.param_groups:
            if any(param is other for other in group["params"]):
                return group
        raise ConfigError(f"A parameter of shape {tuple(param.shape)} does not belong to this optimizer.")

    def _member_view(self, group: dict[str, Any], tensor: Tensor, member: int) -> Tensor:
        row = as_stack(tensor, group["members"])[member]
        return strip_padding(row, rank_of(group, member), group["rank_dim"])

    def _state_of(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """The parameter's state, of zeros at its first use."""
        state: dict[str, Tensor] = self.state[param]
        if not state:
            state["step"] = torch.zeros(() if group["members"] is None else (group["members"],), dtype=torch.float32)
        for name in self.rule_buffers(self.rule(param, group), group):
            if name not in state:
                state[name] = torch.zeros_like(param, dtype=working_dtype(param))
        return state

    def _group_alike(self, params: Iterable[Tensor], group: dict[str, Any]) -> list[tuple[str, list[Tensor]]]:
        """Parameters of one rule, device and dtype, with their rule; `ConfigError` for what nothing can update."""
        found: dict[tuple[str, torch.device, torch.dtype], list[Tensor]] = {}
        for param in params:
            if param.grad is None or param.grad.layout != torch.strided or param.is_complex():
                raise ConfigError("Sparse gradients and complex parameters cannot be used; build the layer without.")
            found.setdefault((self.rule(param, group), param.device, param.dtype), []).append(param)
        return [(rule, alike) for (rule, _, _), alike in found.items()]

    def _step_group(self, group: dict[str, Any], rule: str, owners: list[Tensor], members: list[int]) -> None:
        """Bring the active rows of parameters of one device and dtype together, update them, write them back."""
        everyone = len(members) == num_members(group)
        rows = None if everyone else torch.tensor(members, device=owners[0].device)
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
