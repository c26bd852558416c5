"""The interface of packed adapters: one frozen linear, changed for K members that never see each other.

The leading dimension of an adapter's input is *member-major*: K equal contiguous chunks, one per member. This is the
case whenever a model's batch is the same minibatch repeated K times, whether its rows are examples, tiles or patches.
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
from marslora.core.linears import RANK_DIMS
from marslora.core.plugin_options import AbstractPlugin
from marslora.core.seeds import derive


@dataclass(frozen=True)
class MemberSettings:
    """The settings of one member for one linear."""

    rank: int
    scale: float = 1.0
    """The factor of the low-rank product: alpha / rank, or alpha / sqrt(rank) with rsLoRA."""
    dropout: float = 0.0
    """Probability that an input of A is set to zero during training."""
    seed: int = 0
    """The seed of the member. Together with a module's path it selects that module's streams of random numbers."""


@dataclass
class TrainingPosition:
    """How far training has come. Dropout masks are a function of it, so recomputing a forward gives the same masks."""

    step: int = 0
    micro_step: int = 0
    training: bool = False
    """False during validation, which has no dropout."""


class Factor(NamedTuple):
    """One trained tensor of an adapter, stacked over its members."""

    name: str
    """The name under which its optimizer state is stored: ``lora_A``, or ``weight`` of a module trained whole."""
    key: str
    """The name, after the module's path, under which PEFT stores it: ``lora_A.weight``."""
    role: str
    """``A``, ``B``, ``magnitude`` or ``full``: a role of a parameter group in `marslora.optim`."""
    parameter: Parameter


class AbstractAdapter(nn.Module, AbstractPlugin, ABC):
    """Replaces a linear of a frozen model. Its factors are float32 (float64 in a float64 model)."""

    merges: ClassVar[str]
    """``yes``: what is trained can be added to the model's weights. See `marslora.methods.AbstractMethod`."""
    trained_by_peft: ClassVar[bool] = False
    """Whether the final run trains this adapter with PEFT's own LoRA. Any other is trained as a pack of one member."""
    peft_format: ClassVar[bool] = False
    """Whether PEFT's LoRA computes the same from the factors, stored under their keys: it is then saved for PEFT."""
    takes_dropout: ClassVar[bool] = False
    """Whether the adapter drops inputs while it trains; one that does not is refused where `dropout` is above 0."""
    serves: ClassVar[str]
    """Which software can run the trained model, in one sentence."""

    def __init_subclass__(cls, **more: Any) -> None:
        """A subclass may compute something else, so it states these three itself: they are not inherited."""
        super().__init_subclass__(**more)
        for name in ("trained_by_peft", "peft_format", "takes_dropout"):
            if name not in vars(cls):
                setattr(cls, name, False)

    def __init__(
        self,
        base: nn.Module,
        path: str,
        members: Sequence[MemberSettings],
        position: TrainingPosition,
        **options: Any,
    ):
        """Replace the linear ``base`` at ``path``; ``options`` are the fields of `Config`, as for every plugin."""
        super().__init__()
        self.config = self.Config.of(options, type(self).__name__)
        self.base = base
        self.path = path
        self.members = tuple(members)
        self.position = position

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the linear's output for ``x``, each chunk changed by its member's adapter."""

    @abstractmethod
    def factors(self) -> tuple[Factor, ...]:
        """Return the trained tensors, each with K members in its first dimension and ranks padded with zeros."""

    @property
    def num_members(self) -> int:
        """The number of members K."""
        return len(self.members)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of each member."""
        return tuple(member.rank for member in self.members)

    def owns(self, member: int) -> bool:
        """Whether a member trains and stores anything here, which a member of rank 0 does not."""
        return self.members[member].rank > 0

    def member_view(self, factor: Factor, member: int) -> Tensor:
        """Return one member's slice of a factor, without padding. Writing to it writes to the factor."""
        row = factor.parameter.detach()[member]
        dim = RANK_DIMS.get(factor.role)
        return row if dim is None else row.narrow(dim, 0, self.members[member].rank)

    def to_peft(self, factor: Factor, tensor: Tensor) -> Tensor:  # noqa: ARG002
        """Return a tensor shaped as in `member_view` in the shape that PEFT stores."""
        return tensor

    def from_peft(self, factor: Factor, tensor: Tensor) -> Tensor:  # noqa: ARG002
        """Return a tensor as PEFT stores it in the shape of `member_view`: the inverse of `to_peft`."""
        return tensor

    @torch.no_grad()
    def load_member(self, member: int, tensors: dict[str, Tensor]) -> None:
        """Copy tensors, given by PEFT key, into a member. Raises `StudyError` if one is missing or misshapen."""
        if not self.owns(member):
            return
        for factor in self.factors():
            view = self.member_view(factor, member)
            stored = tensors.get(f"{self.path}.{factor.key}")
            shape = self.to_peft(factor, view).shape
            if stored is None or stored.shape != shape:
                what = "is missing" if stored is None else f"has shape {tuple(stored.shape)} instead of {tuple(shape)}"
                raise StudyError(
                    f"The checkpoint belongs to another run: its tensor `{self.path}.{factor.key}` {what}. Remove the "
                    "checkpoint to start again, or continue with the ranks and adapter it was written with."
                )
            view.copy_(self.from_peft(factor, stored))

    def __getattr__(self, name: str) -> Any:
        """Attributes of the replaced linear that a model reads, such as ``weight`` and ``in_features``."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


def factor_dtype(base: nn.Module) -> torch.dtype:
    """Return the dtype of trained factors: float32 for half precision, which loses small updates, else the linear's."""
    return torch.promote_types(torch.float32, next(base.parameters()).dtype)


def member_generator(seed: int, path: str, name: str) -> torch.Generator:
    """Return the CPU generator of one member's random numbers for one module. It is the same in every pack."""
    return torch.Generator().manual_seed(derive(seed, path, name))
