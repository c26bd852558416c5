"""Layers that replace a model's linears, and the adapted model that contains them. Most methods build on these."""

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
    """Replaces one module of a model until the change is removed."""

    def __init__(self, base: nn.Module, path: str, context: BatchContext):
        super().__init__()
        self.base = base
        self.path = path
        self.context = context

    def roles(self) -> Iterator[tuple[str, str, Parameter]]:
        """Iterate over (name, role, parameter) of everything that is trained in this layer."""
        raise NotImplementedError

    def low_rank(self, task: str | None = None) -> LowRank | None:  # noqa: ARG002
        """Return what the layer adds to the linear's weight (for one task), or None for a module trained whole.

        Raises `ConfigError` if the change is not an addition to the weight.
        """
        return None

    def __getattr__(self, name: str) -> Any:
        """Attributes of the replaced module that a model reads, such as ``weight`` and ``in_features``."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)


class WholeLayer(AbstractAdapterLayer):
    """A module trained whole: a trained copy in float32 (float64 in a float64 model) of the frozen module."""

    def __init__(self, base: nn.Module, path: str, context: BatchContext):
        super().__init__(base, path, context)
        self.copy = copy.deepcopy(base).to(factor_dtype(base)).requires_grad_(True)

    def forward(self, *args: Any, **named: Any) -> Any:
        """Return the output of the copy, or of the frozen module while the change is disabled."""
        return (self.copy if self.context.enabled else self.base)(*args, **named)

    def roles(self) -> Iterator[tuple[str, str, Parameter]]:
        """Iterate over every parameter of the copy."""
        yield from ((name, "full", parameter) for name, parameter in self.copy.named_parameters())


class ModelForTrainer(nn.Module):
    """Wraps the adapted model, so that `transformers.Trainer` replaces ``forward`` of the wrapper, not of the model."""

    accepts_loss_kwargs = False

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base

    def forward(self, **batch: Any) -> Any:
        """Return the output of the adapted model."""
        return self.base(**batch)

    @property
    def config(self) -> Any:
        """The configuration of the adapted model."""
        return self.base.config


class AdaptedModel(AbstractChange):
    """A model in which adapter layers replace some modules. Subclasses define what is saved."""

    def __init__(self, base: nn.Module, plan: AdapterPlan, context: BatchContext):
        self.base, self.plan, self.context = base, plan, context
        self.layers: dict[str, AbstractAdapterLayer] = {}
        self.model = ModelForTrainer(base)
        self._handles = [base.register_forward_pre_hook(context.hook, with_kwargs=True)]

    def insert_layer(self, path: str, make: Callable[[nn.Module, str, BatchContext], AbstractAdapterLayer]) -> None:
        """Replace the module at ``path`` by the layer that ``make`` returns."""
        layer = make(self.base.get_submodule(path), path, self.context)
        self.layers[path] = layer
        self.base.set_submodule(path, layer)

    def inject_whole_modules(self) -> None:
        """Replace the modules that the plan trains whole."""
        for path in self.plan.full_modules:
            self.insert_layer(path, WholeLayer)

    def keep(self, handle: RemovableHandle) -> None:
        """Keep the handle of a hook, so that `remove` removes the hook."""
        self._handles.append(handle)

    def use_task(self, task: str | None) -> None:
        """Use the head of this task for every row. If None, batches name the tasks of their rows."""
        self.context.task = task

    def trainables(self) -> list[Trainable]:
        """Return every parameter of every layer."""
        return [
            Trainable(f"{path}.{name}", path, role, parameter)
            for path, layer in self.layers.items()
            for name, role, parameter in layer.roles()
        ]

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Run the replaced modules instead of the layers within this context."""
        self.context.enabled = False
        try:
            yield
        finally:
            self.context.enabled = True

    def low_ranks(self, task: str | None = None) -> dict[str, LowRank]:
        """Return what each layer adds to its linear's weight, by path."""
        changes = {path: layer.low_rank(task) for path, layer in self.layers.items()}
        return {path: change for path, change in changes.items() if change is not None}

    def whole_state(self) -> dict[str, Tensor]:
        """Return ``{path.parameter: tensor}`` of the modules trained whole."""
        return {each.name: each.parameter.detach() for each in self.trainables() if each.role == "full"}

    def save_plain(self, folder: Path, task: str | None = None) -> None:
        """Write what is added to the weights, for one task if given, as a plain LoRA folder for PEFT."""
        _plain_folder.write(folder, self.low_ranks(task), self.plan, self.whole_state(), self.base)

    def remove(self) -> None:
        """Put the replaced modules back and remove the hooks."""
        for handle in self._handles:
            handle.remove()
        for path, layer in self.layers.items():
            self.base.set_submodule(path, layer.base)
        self.layers = {}
