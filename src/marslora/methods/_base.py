"""What every method of the final run promises: how it changes one frozen model, and what becomes of the change."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from marslora.core.errors import StudyError
from marslora.core.record import Record

Batch = dict[str, Any]
"""What a model is called with, on its device; `labels` among it."""
Merges = Literal["yes", "by task", "no"]
TASK, UNIT_TASK, QUESTION = "task_of_row", "task_of_unit", "question_tokens"
"""Keys of a batch that are for the method, not for the model: the task of every row; the task of everything that the
first axis of the pictures counts; which tokens a user wrote."""


class AdapterPlan(Record):
    """What a run wants of a model: plain data, so that it can lie beside the weights."""

    ranks: dict[str, int]
    """Rank by module path; modules that are trained whole are not among them."""
    parts: dict[str, str]
    """Part by module path, of all that is adapted or trained whole."""
    full_modules: tuple[str, ...] = ()
    scale: float = 2.0
    """What a low-rank product is multiplied by, at every rank."""
    dropout: float = 0.0
    seed: int = 0
    num_steps: int = 1
    """Optimizer steps of the whole run."""
    tasks: tuple[str, ...] = ()
    """The names of the tasks in the training rows, sorted; empty unless the method wants them."""
    modalities: tuple[str, ...] = ()
    """The kinds of tokens that the model reads, as the method found them."""


class Trainable(NamedTuple):
    """One trained parameter."""

    name: str
    """``<module path>.<factor>``, e.g. ``model.layers.0.q_proj.lora_A``; of a module trained whole
    ``<module path>.weight`` or another of its parameters."""
    module: str
    """The path, in the model, of the linear that it belongs to."""
    role: str
    """A, B, magnitude, router, full or other, as parameter groups of `marslora.optim` say it."""
    parameter: Parameter
    ranks: tuple[int, ...] | None = None
    """The rank of each member, for a factor A or B that is stacked over members; None for any other tensor."""


class LowRank(NamedTuple):
    """A change of one linear's weight, ``scale B A``."""

    A_RI: Tensor
    B_OR: Tensor
    scale: float


class StepInfo(NamedTuple):
    """One optimizer step, as a change may take part in it."""

    step: int
    """Counted from 1."""
    rate: Callable[[Parameter], float]
    """The learning rate of a parameter."""
    forget: Callable[[Parameter], None]
    """Resets what the optimizer remembers of a parameter."""


class AbstractChange(ABC):
    """One model with one method's trained parameters in it."""

    model: nn.Module
    """What is trained and called."""
    num_members: int | None = None
    """The members that trained tensors are stacked over; None for ordinary tensors."""

    @abstractmethod
    def trainables(self) -> list[Trainable]:
        """Every trained parameter, in a fixed order. Those that the method moves by itself are not among them."""

    @abstractmethod
    def disabled(self) -> contextlib.AbstractContextManager[Any]:
        """Within it the model is the one that was given."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the adapter folder that a run leaves."""

    @abstractmethod
    def remove(self) -> None:
        """Leave the model as it was given."""

    def extra_loss(self) -> Tensor | None:
        """What the last forward adds to the loss, such as a load balance; None for nothing."""
        return None

    def before_step(self, moment: StepInfo) -> None:  # noqa: B027
        """Called when a step's gradients are complete and clipped."""

    def after_step(self, moment: StepInfo) -> None:  # noqa: B027
        """Called after the optimizer has moved the parameters, while the gradients are still there."""

    def extra_state(self) -> dict[str, Tensor]:
        """What a continued run needs besides the trained parameters."""
        return {}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Go on from `extra_state`."""

    def moment_from_checkpoint(self, trainable: Trainable, tensor: Tensor) -> Tensor:  # noqa: ARG002
        """Return a calibration run's optimizer state in the shape that the optimizer keeps for this parameter."""
        return tensor

    def num_trainable(self) -> int:
        """Trained numbers, routers and modules trained whole included."""
        return sum(trainable.parameter.numel() for trainable in self.trainables())

    def state(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold of the change, on the CPU."""
        trained = {f"trained.{one.name}": one.parameter.detach() for one in self.trainables()}
        extra = {f"extra.{name}": tensor for name, tensor in self.extra_state().items()}
        return {name: tensor.cpu().contiguous() for name, tensor in (trained | extra).items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`; `StudyError` where it is that of another run."""
        for one in self.trainables():
            found = state.get(f"trained.{one.name}")
            if found is None or found.shape != one.parameter.shape:
                what = "is missing" if found is None else f"has shape {tuple(found.shape)}"
                raise StudyError(f"A checkpoint is of another run: `{one.name}` {what}.")
            one.parameter.copy_(found)
        self.load_extra_state({k.removeprefix("extra."): v for k, v in state.items() if k.startswith("extra.")})


class AbstractMethod(ABC):
    """A way to fine-tune: what it puts into a model. One kind; its options are the keywords of its constructor."""

    merges: ClassVar[Merges]
    """Whether the trained change can be added to the model's weights: always, once for every task, or never."""
    serves: ClassVar[str]
    """What can run the trained model, in one sentence."""
    column: str | None = None
    """The column of the data files that names a row's task; None where the method does not ask for tasks."""
    wants_questions: bool = False
    """Whether batches must say which tokens a user wrote."""
    num_batches: int = 0
    """Batches of training rows that the method looks at before training."""

    @abstractmethod
    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> AbstractChange:
        """Change ``model``, whose parameters are frozen, in place; ``batches`` are the first training rows.

        `ConfigError` where the method cannot be used on this model.
        """

    @abstractmethod
    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """Trained parameters of the linears in ``plan.ranks``, from their (inputs, outputs) alone."""
