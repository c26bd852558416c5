"""LoRA that starts at the largest singular values of each weight (PiSSA); the saved adapter has twice the rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from marslora.methods import _offset
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch


class Pissa(AbstractMethod):
    """PiSSA (Meng et al. 2024, arXiv 2404.02948), initialised by PEFT."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractMethod.Config):
        """How the singular value decomposition is computed."""

        niter: Annotated[int, Field(ge=0)] = 16
        """Iterations of a randomised decomposition, which is fast and nearly exact; 0: an exact decomposition."""

    config: Config

    merges = "yes"
    serves = "any server of LoRA, at twice the trained rank; merged, any server"

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> _offset.OffsetModel:  # noqa: ARG002
        """Start the factors at the decomposition. The model's weights do not change."""
        niter = self.config.niter
        start = f"pissa_niter_{niter}" if niter else "pissa"
        return _offset.build_offset_model(model, plan, {"init_lora_weights": start})

    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """Count ``r (I + O)`` for each linear."""
        return sum(rank * sum(sizes[path]) for path, rank in plan.ranks.items())
