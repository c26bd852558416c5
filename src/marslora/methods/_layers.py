"""Modules of our own in place of a model's linears: one change, many methods."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from marslora.adapters import factor_dtype
from marslora.methods import _plain_folder
from marslora.methods._base import AbstractChange, AdapterPlan, LowRank, Trainable
from marslora.methods._context import BatchContext


class AbstractAdapterLayer(nn.Module):
    """Stands in for one module of a model while a change lasts."""

    def __init__(self, base: nn.Module, path: str, context: BatchContext):
        super().__init__()
        self.base = base
        self.path = path
        self.context = context

    def roles(self) -> Iterator[tuple[str, str, Parameter]]:
        """(name, role, parameter) of everything that is trained here."""
        raise NotImplementedError

    def low_rank(self, task: str | None = None) -> LowRank | None:  # noqa: ARG002
        """What the graft adds to its linear's weight (for one task, where it has several); None for a module trained
        whole. `ConfigError` where it is no such sum."""
        return None

    def __getattr__(self, name: str) -> Any:
        """What a model reads of its linear (``weight``, ``in_features``) is still there."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


class WholeLayer(AbstractAdapterLayer):
    """A module trained whole: a copy of it in float32 (float64 in a float64 model) beside the frozen one."""

    def __init__(self, base: nn.Module, path: str, context: BatchContext):
        super().__init__(base, path, context)
        self.copy = copy.deepcopy(base).to(factor_dtype(base)).requires_grad_(True)

    def forward(self, *args: Any, **named: Any) -> Any:
        """The copy's output."""
        return (self.copy if self.context.enabled else self.base)(*args, **named)

    def roles(self) -> Iterator[tuple[str, str, Parameter]]:
        """Every parameter of the copy."""
        yield from ((name, "full", parameter) for name, parameter in self.copy.named_parameters())


class ModelForTrainer(nn.Module):
    """The changed model as Trainer sees it: what Trainer does to its model's ``forward`` goes with it."""

    accepts_loss_kwargs = False

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base

    def forward(self, **batch: Any) -> Any:
        """The changed model's output."""
        return self.base(**batch)

    @property
    def config(self) -> Any:
        """The model's."""
        return self.base.config


class AdaptedModel(AbstractChange):
    """A model with grafts in it. What is saved of them is said by each family of methods."""

    def __init__(self, base: nn.Module, plan: AdapterPlan, context: BatchContext):
        self.base, self.plan, self.context = base, plan, context
        self.layers: dict[str, AbstractAdapterLayer] = {}
        self.model = ModelForTrainer(base)
        self._handles = [base.register_forward_pre_hook(context.hook, with_kwargs=True)]

    def insert_layer(self, path: str, make: Callable[[nn.Module, str, BatchContext], AbstractAdapterLayer]) -> None:
        """Put a graft in place of the module at ``path``."""
        layer = make(self.base.get_submodule(path), path, self.context)
        self.layers[path] = layer
        self.base.set_submodule(path, layer)

    def inject_whole_modules(self) -> None:
        """Put those in place that the plan trains whole."""
        for path in self.plan.full_modules:
            self.insert_layer(path, WholeLayer)

    def keep(self, handle: RemovableHandle) -> None:
        """A hook that goes with the change."""
        self._handles.append(handle)

    def use_task(self, task: str | None) -> None:
        """Run every row by the head of this task; None: batches name their rows' tasks."""
        self.context.task = task

    def trainables(self) -> list[Trainable]:
        """Every parameter of every graft."""
        return [
            Trainable(f"{path}.{name}", path, role, parameter)
            for path, layer in self.layers.items()
            for name, role, parameter in layer.roles()
        ]

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Within it every graft is the module that it stands for."""
        self.context.enabled = False
        try:
            yield
        finally:
            self.context.enabled = True

    def low_ranks(self, task: str | None = None) -> dict[str, LowRank]:
        """By path: what each graft adds to its linear's weight."""
        found = {path: layer.low_rank(task) for path, layer in self.layers.items()}
        return {path: change for path, change in found.items() if change is not None}

    def whole_state(self) -> dict[str, Tensor]:
        """``{path.parameter: tensor}`` of the modules trained whole."""
        return {one.name: one.parameter.detach() for one in self.trainables() if one.role == "full"}

    def save_plain(self, folder: Path, task: str | None = None) -> None:
        """Write what is added to the weights (for one task) as a plain LoRA folder of PEFT's."""
        _plain_folder.write(folder, self.low_ranks(task), self.plan, self.whole_state(), self.base)

    def remove(self) -> None:
        """Put the modules back and take the hooks off."""
        for handle in self._handles:
            handle.remove()
        for path, layer in self.layers.items():
            self.base.set_submodule(path, layer.base)
        self.layers = {}


def sizes(base: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear; GPT-2's Conv1D keeps its weight transposed."""
    if isinstance(base, nn.Linear):
        return base.in_features, base.out_features
    inputs, outputs = base.get_parameter("weight").shape
    return inputs, outputs
