"""The input of an optimizer's rule: parameters of one kind, stacked by member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marslora.optim._groups import num_members
from marslora.optim._stacks import foreach_values, member_values


@dataclass
class Bucket:
    """N stacked tensors of one group that a rule updates in place; the first dimension of each is K active members."""

    group: dict[str, Any]
    """The parameter group, with all its numbers."""
    rule: str
    """The name of the rule that moves them, of those that the optimizer has."""
    params: list[Tensor]
    grads: list[Tensor]
    """To be read only: they may be the parameters' own ``.grad``."""
    states: dict[str, list[Tensor]]
    """By name of the buffer, in the order of ``params``."""
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
        """``x = x (1 - lr wd) - lr scale direction``; ``scale`` is (K,) or (N, K), ``directions`` are overwritten."""
        lr = self.lr
        if bool((decay := self.number("weight_decay")).any()):
            torch._foreach_mul_(self.params, self.foreach_values(1 - lr * decay))
        size = self.foreach_values(lr * scale)
        if isinstance(size, float):
            torch._foreach_sub_(self.params, directions, alpha=size)
        else:
            torch._foreach_mul_(directions, size)
            torch._foreach_sub_(self.params, directions)
