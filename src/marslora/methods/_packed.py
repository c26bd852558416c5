"""A packed adapter in the final run: the same class that calibration trains, as a pack of one member.

An adapter is therefore one file. `marslora.engine` trains it for K members at once and the final run for one, which
continues the calibration run of the chosen allocation. Only plain LoRA is trained by PEFT itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from marslora.adapters import AbstractAdapter, MemberSettings, TrainingPosition, build_whole_module
from marslora.core.errors import StudyError
from marslora.core.patterns import scale
from marslora.core.training import read_lora_variant
from marslora.methods import _own_folder, _plain_folder
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch, Trainable
from marslora.methods._context import BatchContext
from marslora.methods._layers import AbstractAdapterLayer, AdaptedModel

BuildAdapter = Callable[[nn.Module, str, list[MemberSettings], TrainingPosition], AbstractAdapter]


class PackedLayer(AbstractAdapterLayer):
    """A packed adapter with one member in place of one module."""

    def __init__(self, base: nn.Module, path: str, context: BatchContext, adapter: AbstractAdapter):
        super().__init__(base, path, context)
        self.adapter = adapter

    def forward(self, *args: Any, **named: Any) -> Any:
        """Return the output of the adapter, or of the replaced module while the change is disabled."""
        return (self.adapter if self.context.enabled else self.base)(*args, **named)

    def roles(self) -> Iterator[tuple[str, str, Parameter]]:
        """Iterate over (name, role, parameter) of every factor, each stacked over one member."""
        yield from ((factor.name, factor.role, factor.parameter) for factor in self.adapter.factors())


class PackedModel(AdaptedModel):
    """A model with packed adapters of one member."""

    num_members = 1

    def __init__(self, base: nn.Module, plan: AdapterPlan, method: PackedMethod):
        super().__init__(base, plan, BatchContext(base))
        self.method = method
        self.position = TrainingPosition()
        self._num_passes, self._num_forwards = 1, 0
        self.keep(base.register_forward_pre_hook(self._begin_batch))
        for path, rank in plan.ranks.items():
            self._insert(path, rank, method.build)
        for path in plan.full_modules:
            self._insert(path, 1, build_whole_module)

    def _insert(self, path: str, rank: int, build: BuildAdapter) -> None:
        plan, use_rslora = self.plan, read_lora_variant(self.method.config.as_dict())["use_rslora"]
        settings = [MemberSettings(rank, scale(rank, plan.scale, use_rslora=use_rslora), plan.dropout, plan.seed)]
        self.insert_layer(
            path, lambda base, at, context: PackedLayer(base, at, context, build(base, at, settings, self.position))
        )

    def begin_step(self, step: int, num_passes: int) -> None:
        """Choose the dropout masks of a step: those that the engine draws at this step of the same run."""
        self.position.step, self._num_passes, self._num_forwards = step, num_passes, 0

    def _begin_batch(self, *_: object) -> None:
        """Choose the dropout masks of a micro-batch. Layers that are recomputed do not come through here.

        The frozen base stays in evaluation mode while it trains, so the layers say whether this is training.
        """
        self.position.training = any(layer.training for layer in self._packed_layers())
        if self.position.training:
            self.position.micro_step = self._num_forwards // self._num_passes
            self._num_forwards += 1

    def trainables(self) -> list[Trainable]:
        """Return every factor with the rank of its only member."""
        return [
            trainable._replace(ranks=layer.adapter.ranks) if trainable.role in ("A", "B") else trainable
            for trainable in super().trainables()
            if isinstance(layer := self.layers[trainable.module], PackedLayer)
        ]

    def load_member(self, weights: Mapping[str, Tensor]) -> None:
        """Load a calibration run's weights, by module path and PEFT key.

        Raises `StudyError` if one is missing, or if there are others, which would be forgotten.
        """
        known = {f"{path}.{factor.key}" for path, layer in self._by_path() for factor in layer.adapter.factors()}
        if others := sorted(set(weights) - known):
            raise StudyError(
                f"A checkpoint must hold only what this adapter trains, found `{others[0]}` and {len(others) - 1} "
                "more. Use the adapter and options of that run, or remove its folder to train it again."
            )
        for layer in self._packed_layers():
            layer.adapter.load_member(0, dict(weights))

    def moment_from_checkpoint(self, trainable: Trainable, tensor: Tensor) -> Tensor:
        """Return a member's optimizer state in the shape that the optimizer keeps."""
        layer = self.layers[trainable.module]
        assert isinstance(layer, PackedLayer)
        factor = next(each for each in layer.adapter.factors() if each.parameter is trainable.parameter)
        return layer.adapter.from_peft(factor, tensor)

    def save(self, folder: Path) -> None:
        """Write PEFT's own folder if PEFT has a form for the adapter, else one that `marslora.attach` reads."""
        if not self.method.adapter_class.peft_format:
            _own_folder.write(folder, self, self.method)
            return
        tensors = {
            f"{path}.{factor.key}": layer.adapter.to_peft(factor, layer.adapter.member_view(factor, 0))
            for path, layer in self._by_path()
            for factor in layer.adapter.factors()
        }
        variant = read_lora_variant(self.method.config.as_dict())
        _plain_folder.write_tensors(folder, tensors, self.plan.ranks, self.plan, self.base, **variant)

    def _by_path(self) -> Iterator[tuple[str, PackedLayer]]:
        return ((path, layer) for path, layer in self.layers.items() if isinstance(layer, PackedLayer))

    def _packed_layers(self) -> Iterator[PackedLayer]:
        return (layer for _, layer in self._by_path())


class PackedMethod(AbstractMethod):
    """Trains a packed adapter in the final run."""

    takes_quantized = True

    def __init__(self, name: str, adapter_class: type[AbstractAdapter], options: Mapping[str, Any]):
        """Check the options of an adapter that users call ``name``."""
        self.plugin_name = name
        self.adapter_class = adapter_class
        self.config = adapter_class.Config.of(options, adapter_class.__name__)
        self.merges = "yes" if adapter_class.peft_format else "no"  # type: ignore[misc]
        self.serves = adapter_class.serves  # type: ignore[misc]

    def build(
        self, base: nn.Module, path: str, members: list[MemberSettings], position: TrainingPosition
    ) -> AbstractAdapter:
        """Return the adapter for the linear at ``path``, made without autocast, as the engine makes it."""
        with torch.autocast(next(base.parameters()).device.type, enabled=False):
            return self.adapter_class(base, path, members, position, **self.config.as_dict())

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> PackedModel:  # noqa: ARG002
        """Put the adapter in place of every linear of the plan."""
        return PackedModel(model, plan, self)

    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """Count the trained numbers, by building the adapter once for each size and rank of a linear."""
        counts: dict[tuple[tuple[int, int], int], int] = {}
        for path, rank in plan.ranks.items():
            key = (sizes[path], rank)
            if key not in counts:
                linear = nn.Linear(*sizes[path])  # with weights: some adapters start from them
                adapter = self.build(linear, path, [MemberSettings(rank)], TrainingPosition())
                counts[key] = sum(factor.parameter.numel() for factor in adapter.factors())
        return sum(counts[sizes[path], rank] for path, rank in plan.ranks.items())
