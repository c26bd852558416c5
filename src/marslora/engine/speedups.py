"""What makes a pack faster or smaller without changing its numbers.

Frozen towers run once for all members and epochs (`marslora.engine.towers`), layers are recomputed in the backward if
asked, and floating-point operations are counted at the first call of each kind only.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from marslora.core.parts import LANGUAGE
from marslora.engine.cost import CostMeter
from marslora.engine.flops import count_flops
from marslora.engine.pack import Base
from marslora.engine.towers import FrozenTower
from marslora.models.answers import Batch, answer_logits, token_sums

T = TypeVar("T")

LAST_PART, AFTER_ENCODERS = LANGUAGE, "projector"
"""Parts by their place: the last one, and the one that reads the encoders' outputs. All others are encoders."""
_towers: WeakKeyDictionary[nn.Module, FrozenTower] = WeakKeyDictionary()
"""The towers of every model in this process, so that its packs share remembered features (the weights are frozen).
An entry goes when its module is freed: `marslora.models.loading` keeps the last two models."""


@dataclass
class Speedups:
    """The speedups in use, for all packs of a run."""

    towers: dict[str, FrozenTower] = field(default_factory=dict)
    """Modules that may be frozen, by path; no adapter is among them."""
    encoders: set[str] = field(default_factory=set)
    """Paths of the towers that read the inputs themselves."""
    recompute: bool = False
    """Gradient checkpointing: layers keep only their inputs and run again in the backward."""
    _flops_of: dict[tuple[object, ...], float] = field(default_factory=dict)
    """Floating-point operations per token, by kind of work."""

    @classmethod
    def of(cls, base: Base, max_tower_bytes: int) -> Speedups:
        """All speedups for a model; its towers remember at most ``max_tower_bytes`` of features each."""
        paths = {path: part.name for part in base.info.parts if part.name != LAST_PART for path in part.paths}
        towers = {}
        for path in paths:
            module = base.model.get_submodule(path)
            if path and not any(is_within(path, other) for other in paths if other != path):
                towers[path] = _towers.setdefault(module, FrozenTower(max_tower_bytes))
        encoders = {path for path in towers if paths[path] != AFTER_ENCODERS}
        return cls(towers, encoders, base.training.gradient_checkpointing)

    @contextlib.contextmanager
    def apply(self, base: Base, members: int, adapted: Iterable[str]) -> Iterator[None]:
        """Within it, towers run once for all members unless a path in ``adapted`` lies in or before them.

        A projector reads the encoders' outputs, so it counts as behind all of them. Layers are recomputed if asked.
        """
        paths = tuple(adapted)
        changed = {path for path in self.towers if any(is_within(name, path) for name in paths)}
        with contextlib.ExitStack() as stack:
            for path, tower in self.towers.items():
                if path not in changed and (path in self.encoders or not changed):
                    stack.enter_context(tower.replace_forward(base.model.get_submodule(path), members))
            if self.recompute:
                stack.enter_context(recomputed_layers(base.model))
            yield

    def find_used_outputs(self, base: Base, batch: Batch) -> None:
        """Find out on one batch which of the towers' outputs the model reads, so that only these are remembered."""

        def loss() -> Tensor:
            with base.mixed_precision():
                logits_KNV = answer_logits(base.model, base.head, batch, 1)
            return token_sums(logits_KNV, batch.answers()[2]).nats_K.sum()

        for path, tower in self.towers.items():
            behind = [other for other in self.towers if path in self.encoders and other not in self.encoders]
            with self.apply(base, 1, behind):  # a frozen projector would stop the encoder's gradient
                tower.find_used_outputs(loss)

    def run_metered(self, work: Callable[[], T], meter: CostMeter, *, kind: tuple[object, ...], tokens: int) -> T:
        """Run ``work``, return its result, and add its floating-point operations to ``meter``.

        Counting is slow, so operations are counted at the first call of a ``kind`` and scaled by the number of tokens
        after that. Operations that towers spend on images they do not remember are added as they happen.
        """
        before = self._tower_flops()
        if kind in self._flops_of:
            result = work()
        else:
            result, flops = count_flops(work)
            self._flops_of[kind] = max(0.0, flops - (self._tower_flops() - before)) / max(tokens, 1)
        meter.add_flops(self._flops_of[kind] * tokens + self._tower_flops() - before)
        return result

    def _tower_flops(self) -> float:
        return sum(tower.flops for tower in self.towers.values())


def is_within(name: str, path: str) -> bool:
    """Whether a module path lies in another, or is it."""
    return name == path or name.startswith(f"{path}.")


@contextlib.contextmanager
def recomputed_layers(model: nn.Module) -> Iterator[None]:
    """Within it, every layer that `transformers` can checkpoint is recomputed in the backward (not reentrant).

    The model stays in evaluation mode: the switch of `transformers` works in training mode only, which would also turn
    on the base's dropout. Adapters' masks do not depend on when they are drawn, so no random state is kept.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
