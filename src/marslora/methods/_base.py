"""The interface of methods: how a method changes a frozen model, trains the change and saves it."""

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
from marslora.core.plugin_options import AbstractPlugin
from marslora.core.record import Record

Batch = dict[str, Any]
"""The keyword arguments of a model, on its device, including `labels`."""
Merges = Literal["yes", "by task", "no"]
"""Whether a change can be added to a model's weights: always, once for every task, or never."""
TASK, UNIT_TASK, QUESTION = "task_of_row", "task_of_unit", "question_tokens"
"""Keys of a batch that are meant for the method and not for the model: the index of every row's task; the index of the
task of every picture or patch, as counted by the first axis of the pictures; which tokens a user wrote."""


class AdapterPlan(Record):
    """What a run trains in a model. It is plain data, so that it can be saved with the weights."""

    ranks: dict[str, int]
    """Rank by module path, without the modules that are trained whole."""
    parts: dict[str, str]
    """Part by module path, for all modules that are adapted or trained whole."""
    full_modules: tuple[str, ...] = ()
    """Paths of the modules that are trained whole."""
    scale: float = 2.0
    """The factor of every low-rank product, whatever its rank."""
    dropout: float = 0.0
    """Probability that an input of A is set to zero during training."""
    seed: int = 0
    """The seed of every random number that the method draws."""
    num_steps: int = 1
    """Optimizer steps of the whole run."""
    tasks: tuple[str, ...] = ()
    """The sorted names of the tasks in the training rows. Empty unless the method asks for tasks."""
    modalities: tuple[str, ...] = ()
    """The modalities of the tokens that the model reads, as the method determined them."""


class Trainable(NamedTuple):
    """One trained parameter with its name and role."""

    name: str
    """``<module path>.<factor>``, e.g. ``model.layers.0.q_proj.lora_A``, or ``<module path>.<parameter>`` of a module
    trained whole."""
    module: str
    """The path of the linear it belongs to."""
    role: str
    """``A``, ``B``, ``magnitude``, ``router``, ``full`` or ``other``: a role of `marslora.optim`."""
    parameter: Parameter
    ranks: tuple[int, ...] | None = None
    """The rank of each member if this is a factor A or B stacked over members; otherwise None."""


class LowRank(NamedTuple):
    """The change ``scale B A`` of one linear's weight."""

    A_RI: Tensor
    B_OR: Tensor
    scale: float


class StepInfo(NamedTuple):
    """What a change may use before and after an optimizer step."""

    step: int
    """The number of the step, counted from 1."""
    rate: Callable[[Parameter], float]
    """Returns the learning rate of a parameter."""
    forget: Callable[[Parameter], None]
    """Deletes the optimizer's state of a parameter."""


class AbstractChange(ABC):
    """A model that contains the trained parameters of a method."""

    model: nn.Module
    """The module that is trained and called."""
    num_members: int | None = None
    """The number of members that trained tensors are stacked over, or None for ordinary tensors."""

    @abstractmethod
    def trainables(self) -> list[Trainable]:
        """Return every parameter that the optimizer trains, in a fixed order."""

    @abstractmethod
    def disabled(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context manager in which the model computes what it did before the change."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the adapter folder, which `marslora.attach` reads."""

    @abstractmethod
    def remove(self) -> None:
        """Restore the model to its state before the change."""

    def extra_loss(self) -> Tensor | None:
        """Return what the last forward adds to the loss, such as a load balance, or None."""
        return None

    def begin_step(self, step: int, num_passes: int) -> None:  # noqa: B027
        """Run before the first micro-batch of an optimizer step.

        ``step`` is counted from 0 and includes the steps of a calibration run that is continued. Every micro-batch runs
        through the model ``num_passes`` times, each time with the same dropout masks.
        """

    def before_step(self, info: StepInfo) -> None:  # noqa: B027
        """Run after a step's gradients are complete and clipped."""

    def after_step(self, info: StepInfo) -> None:  # noqa: B027
        """Run after the optimizer has moved the parameters, before the gradients are deleted."""

    def extra_state(self) -> dict[str, Tensor]:
        """Return what a continued run needs in addition to the trained parameters."""
        return {}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Restore what `extra_state` returned."""

    def moment_from_checkpoint(self, trainable: Trainable, tensor: Tensor) -> Tensor:  # noqa: ARG002
        """Return a calibration run's optimizer state in the shape that the optimizer keeps for this parameter."""
        return tensor

    def num_trainable(self) -> int:
        """Count the trained numbers, including routers and modules trained whole."""
        return sum(trainable.parameter.numel() for trainable in self.trainables())

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint must contain, on the CPU."""
        trained = {f"trained.{each.name}": each.parameter.detach() for each in self.trainables()}
        extra = {f"extra.{name}": tensor for name, tensor in self.extra_state().items()}
        return {name: tensor.cpu().contiguous() for name, tensor in (trained | extra).items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned. Raises `StudyError` if it belongs to another run."""
        for trainable in self.trainables():
            stored, shape = state.get(f"trained.{trainable.name}"), trainable.parameter.shape
            if stored is None or stored.shape != shape:
                what = "is missing" if stored is None else f"has shape {tuple(stored.shape)} instead of {tuple(shape)}"
                raise StudyError(
                    f"The checkpoint belongs to another run: its tensor `{trainable.name}` {what}. Remove the "
                    "checkpoint to start again, or continue with the ranks and adapter it was written with."
                )
            trainable.parameter.copy_(stored)
        self.load_extra_state({k.removeprefix("extra."): v for k, v in state.items() if k.startswith("extra.")})


class AbstractMethod(AbstractPlugin, ABC):
    """A way to fine-tune a model."""

    merges: ClassVar[Merges]
    """Whether the trained change can be added to the model's weights."""
    serves: ClassVar[str]
    """Which software can run the trained model, in one sentence."""
    column: str | None = None
    """The column of the data files that names a row's task, or None if the method does not use tasks."""
    wants_questions: bool = False
    """Whether batches must say which tokens a user wrote (key `QUESTION`)."""
    num_batches: int = 0
    """The number of batches of training rows that the method reads before training."""
    takes_quantized: ClassVar[bool] = False
    """Whether it trains on linears whose weights are codes of 4 or 8 bits, which it must not read as numbers."""

    @abstractmethod
    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> AbstractChange:
        """Change ``model``, whose parameters are frozen, in place. ``batches`` are the first training rows.

        Raises `ConfigError` if the method cannot be used on this model.
        """

    @abstractmethod
    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """Count the trained numbers of the linears in ``plan.ranks``. ``sizes`` are their (inputs, outputs) by path."""
