"""What every adapter promises: one frozen linear, changed for K members that never see each other.

The leading dimension of an adapter's input is *member-major*: K equal contiguous chunks, one per member. That holds
wherever a model's batch is the same minibatch repeated K times, whether its rows are examples, tiles or patches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from marslora.core.errors import StudyError
from marslora.core.seeds import derive

RANK_DIMS = {"A": -2, "B": -1}
"""Where the rank stands in a factor as PEFT stores it: A is (rank, inputs), B is (outputs, rank)."""


@dataclass(frozen=True)
class MemberSettings:
    """What one member wants of one linear."""

    rank: int
    scale: float = 1.0
    """What the low-rank product is multiplied by: alpha / rank, or with rsLoRA alpha / sqrt(rank)."""
    dropout: float = 0.0
    """Probability that an input of A is set to zero while training."""
    seed: int = 0
    """The member's: with a module's path it names that module's streams of random numbers."""


@dataclass
class TrainingPosition:
    """Where training stands: dropout masks are a function of it, so recomputing a forward gives the same ones."""

    step: int = 0
    micro_step: int = 0
    training: bool = False
    """False while validating: no dropout."""


class Factor(NamedTuple):
    """One trained tensor of an adapter, stacked over its members."""

    name: str
    """Under this name its optimizer state is stored: ``lora_A``, or ``weight`` of a module trained whole."""
    key: str
    """Under this name, after the module's path, PEFT stores it: ``lora_A.weight``."""
    role: str
    """A, B, magnitude or full, as parameter groups of `marslora.optim` say it."""
    parameter: Parameter


class AbstractAdapter(nn.Module, ABC):
    """Stands in for a linear of a frozen model; its factors are float32 (float64 in a float64 model)."""

    merges: ClassVar[str]
    """As of `marslora.methods._base.AbstractMethod`: yes."""
    trained_by_peft: ClassVar[bool] = False
    """Whether the final run leaves this adapter to PEFT's own LoRA; any other is trained as a pack of one member."""
    serves: ClassVar[str]
    """What can run the trained model, in one sentence."""

    def __init__(self, base: nn.Module, path: str, members: Sequence[MemberSettings], position: TrainingPosition):
        super().__init__()
        self.base = base
        self.path = path
        self.members = tuple(members)
        self.position = position

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The linear's output for each member's chunk of ``x``, changed by the member's adapter."""

    @abstractmethod
    def factors(self) -> tuple[Factor, ...]:
        """The trained tensors, each with K members in its first dimension, ranks padded with zeros."""

    @property
    def num_members(self) -> int:
        """K."""
        return len(self.members)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The members' ranks."""
        return tuple(member.rank for member in self.members)

    def owns(self, member: int) -> bool:
        """Whether a member has anything of its own here: one of rank 0 trains nothing and stores nothing."""
        return self.members[member].rank > 0

    def member_view(self, factor: Factor, member: int) -> Tensor:
        """One member's own part of a factor, without padding; writing to it writes to the factor."""
        row = factor.parameter.detach()[member]
        dim = RANK_DIMS.get(factor.role)
        return row if dim is None else row.narrow(dim, 0, self.members[member].rank)

    def to_peft(self, factor: Factor, tensor: Tensor) -> Tensor:  # noqa: ARG002
        """A tensor of a member's own size (`member_view`'s) in the shape that PEFT stores."""
        return tensor

    def from_peft(self, factor: Factor, tensor: Tensor) -> Tensor:  # noqa: ARG002
        """The way back."""
        return tensor

    @torch.no_grad()
    def load_member(self, member: int, tensors: dict[str, Tensor]) -> None:
        """Write the tensors, by PEFT key, into a member; `StudyError` where one is missing or has another shape."""
        if not self.owns(member):
            return
        for factor in self.factors():
            view = self.member_view(factor, member)
            found = tensors.get(f"{self.path}.{factor.key}")
            shape = self.to_peft(factor, view).shape
            if found is None or found.shape != shape:
                what = "is missing" if found is None else f"has shape {tuple(found.shape)}, not {tuple(shape)}"
                raise StudyError(f"A checkpoint is of another run: `{self.path}.{factor.key}` {what}.")
            view.copy_(self.from_peft(factor, found))

    def __getattr__(self, name: str) -> Any:
        """What a model reads of its linear (``weight``, ``in_features``) is still there."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


def factor_dtype(base: nn.Module) -> torch.dtype:
    """float32 for half precision, where small updates would vanish; otherwise the linear's own."""
    return torch.promote_types(torch.float32, next(base.parameters()).dtype)


def member_generator(seed: int, path: str, name: str) -> torch.Generator:
    """The CPU generator of one member's numbers for one module, the same in every pack."""
    return torch.Generator().manual_seed(derive(seed, path, name))
