"""LoRA as U S V^T, whose directions and rank change during training by the gradient flow (GeoLoRA)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import distributed, nn

from marslora.core.errors import ConfigError
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch
from marslora.methods._geo_linear import GeoConfig, GeoModel


class GeoLora(AbstractMethod):
    """GeoLoRA (Schotthoefer et al. 2025, arXiv 2410.18720), derived anew (see `marslora.methods._geometry`).

    Training is divided into ``cycles`` cycles. At the first step of each, the directions turn and the rank grows to at
    most ``room`` times the allocation's, by a plain gradient step with the current learning rate. Then the optimizer
    moves S alone, which needs less memory than LoRA. After three quarters of the cycle, singular values below ``tau``
    of their matrix are cut, to rank ``smallest`` or more. The last cycle does not grow. ``keep_budget`` also cuts the
    smallest values of all matrices, so that the ranks add up to at most the allocation's.
    """

    merges = "yes"
    serves = "any server of LoRA (vLLM up to rank 512); merged, any server"

    @dataclass(frozen=True, kw_only=True)
    class Config(GeoConfig):
        """How ranks grow and are cut."""

    config: Config

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> GeoModel:  # noqa: ARG002
        """Adapt every linear with random orthonormal directions and S = 0."""
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            raise ConfigError(
                f"The adapter `geolora` trains in one process only, found {distributed.get_world_size()}, because the "
                "parameters that need gradients change between steps. Start one process, or choose another adapter."
            )
        return GeoModel(model, plan, self.config)

    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """Count ``r (I + O + r)`` for each linear."""
        return sum(rank * (sum(sizes[path]) + rank) for path, rank in plan.ranks.items())
