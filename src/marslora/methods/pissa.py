"""LoRA that starts at the largest singular values of each weight (PiSSA); the saved adapter has twice the rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from marslora.core.errors import ConfigError
from marslora.methods import _offset
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch


class Pissa(AbstractMethod):
    """PiSSA (Meng et al. 2024, arXiv 2404.02948), initialised by PEFT.

    With ``niter`` above 0, a randomised decomposition with that many iterations, which is fast and nearly exact. With
    0, an exact one.
    """

    merges = "yes"
    serves = "any server of LoRA, at twice the trained rank; merged, any server"

    def __init__(self, *, niter: int = 16):
        if not isinstance(niter, int) or niter < 0:
            raise ConfigError(f"The adapter's `niter` must be a whole number from 0, found {niter!r}.")
        self.options = {"niter": niter}
        self.init = f"pissa_niter_{niter}" if niter else "pissa"

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> _offset.OffsetModel:  # noqa: ARG002
        """Start the factors at the decomposition. The model's weights do not change."""
        return _offset.build_offset_model(model, plan, {"init_lora_weights": self.init})

    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """Count ``r (I + O)`` for each linear."""
        return sum(rank * sum(sizes[path]) for path, rank in plan.ranks.items())
