"""The gradients of several objectives, kept apart over micro-batches and combined once per optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import Parameter

from marslora import gradients
from marslora.core import plugins
from marslora.core.errors import ConfigError
from marslora.core.runs import BlockGradient
from marslora.core.spec import PluginSpec
from marslora.gradients._average import average_over_processes
from marslora.gradients._base import AbstractCombiner
from marslora.gradients._blocks import block_names
from marslora.gradients._combine import combine

Backward = Callable[..., None]


class SeparateGradients:
    """For a training loop: `backward` replaces ``loss.backward()``, and `combine` runs before clipping and the step.

    ::

        separate = SeparateGradients(model.named_parameters(), {"name": "pareto_lora"})
        for batch in micro_batches:
            outputs = model(**batch)
            separate.backward({"text": outputs.text_loss / n, "image": outputs.image_loss / n})
        notes = separate.combine()  # every .grad now holds the combined gradient
        optimizer.step()

    Combining is not linear. It therefore happens once per step, after all micro-batches and after the mean over
    processes. Under DistributedDataParallel run forward and backward inside ``model.no_sync()``: `combine` takes the
    mean of every objective's gradient over the processes itself. Reentrant checkpointing is refused by
    `refuse_reentrant`, which the owner of the model should call.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Parameter]],
        kind: PluginSpec | Mapping[str, Any] | AbstractCombiner,
        objectives: Iterable[str] = (),
    ):
        """Prepare to keep the gradients of the trained parameters.

        Args:
            named_parameters: Parameters with their names. Those that need no gradient are ignored.
            kind: Name and options of a combiner, or a combiner.
            objectives: Their names in order, needed if the first batch may lack one (a batch without text).
        """
        named = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
        if not named:
            raise ConfigError(
                f"`named_parameters` must hold one that needs a gradient, found {named}: adapt the model first."
            )
        self.parameters = [parameter for _, parameter in named]
        self.combiner = kind if isinstance(kind, AbstractCombiner) else build(PluginSpec.parse(kind))
        self.blocks = block_names([name for name, _ in named], self.combiner.config.blocks)
        self.kept: dict[str, list[Tensor | None]] = {name: self._nothing() for name in objectives}
        self.ordered = bool(self.kept)
        self.losses: dict[str, float | Tensor] = dict.fromkeys(self.kept, 0.0)

    def backward(self, losses: Mapping[str, Tensor], run: Backward = torch.autograd.backward) -> None:
        """Add the gradient of every loss to the sum that is kept for its objective; ``.grad`` does not change.

        Losses that depend on no trained parameter are ignored. ``run`` is called as
        ``run(loss, retain_graph=...)``; Trainer's ``accelerator.backward`` scales float16 losses.
        """
        live = {name: loss for name, loss in losses.items() if loss.requires_grad}
        before = [parameter.grad for parameter in self.parameters]
        for index, (name, loss) in enumerate(live.items()):
            self._show(self.kept.setdefault(name, self._nothing()))
            run(loss, retain_graph=index < len(live) - 1)
            self.kept[name] = [parameter.grad for parameter in self.parameters]
            self.losses[name] = self.losses.get(name, 0.0) + loss.detach()
        self._show(before)

    def combine(self, scale: float = 1.0) -> list[BlockGradient]:
        """Set every ``.grad`` to the combination of the kept gradients, delete these, and return notes on every block.

        ``scale`` is the factor that the kept gradients carry (a float16 loss scale); norms in the notes are without it.
        """
        losses = {name: float(loss) for name, loss in self.losses.items()}
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            losses = self._mean(losses)
        combined, notes = combine(self.combiner, self.kept, self.blocks, losses)
        self._show(combined)
        self.kept = {name: self._nothing() for name in self.kept}
        self.losses = dict.fromkeys(self.kept, 0.0)
        return notes if scale == 1.0 else [note.scaled(1.0 / scale) for note in notes]

    def _mean(self, losses: dict[str, float]) -> dict[str, float]:
        """Replace the kept gradients by their means over the processes; return the mean losses."""
        if not self.ordered:
            raise ConfigError(
                f"All processes must know the objectives in the same order: pass `objectives`, e.g. {list(self.kept)}."
            )
        self.kept = {name: average_over_processes(each, self.parameters) for name, each in self.kept.items()}
        values = torch.tensor(list(losses.values()), device=self.parameters[0].device)
        distributed.all_reduce(values)
        return dict(zip(losses, (values / distributed.get_world_size()).tolist(), strict=True))

    def _show(self, gradients_P: Iterable[Tensor | None]) -> None:
        for parameter, gradient in zip(self.parameters, gradients_P, strict=True):
            parameter.grad = gradient

    def _nothing(self) -> list[Tensor | None]:
        return [None] * len(self.parameters)


def build(spec: PluginSpec) -> AbstractCombiner:
    """Return the combiner that a spec names. Raises `ConfigError` for options that it does not have."""
    return plugins.load(gradients, spec.name, AbstractCombiner)(**spec.options)


def refuse_reentrant(model: nn.Module) -> None:
    """`ConfigError` where a layer recomputes its activations by reentrant checkpointing.

    It runs a backward pass of its own, which keeps no graph for the next objective.
    """
    for name, module in model.named_modules():
        checkpoint = getattr(module, "_gradient_checkpointing_func", None)
        wanted = getattr(module, "gradient_checkpointing", False)
        if wanted and getattr(checkpoint, "keywords", {}).get("use_reentrant", False):
            raise ConfigError(
                f"`{name or type(model).__name__}` uses reentrant gradient checkpointing, which cannot keep the "
                "gradients of several objectives apart. Call "
                "model.gradient_checkpointing_enable({'use_reentrant': False})."
            )
