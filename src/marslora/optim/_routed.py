"""Optimizers with two rules, one of their own for weight matrices and AdamW for the rest; and the orthogonal step."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from marslora.core.errors import ConfigError
from marslora.core.linears import RANK_DIMS
from marslora.optim._adam import BUFFERS, adam_step
from marslora.optim._base import AbstractOptimizer
from marslora.optim._bucket import Bucket
from marslora.optim._matrices import newton_schulz, polar
from marslora.optim._options import Decay, Epsilon

ADAMW = "adamw"
"""The name of the second rule."""
OWN_ROLES = ("A", "B", "full", "other")
"""Roles whose matrices follow the optimizer's own rule; magnitude vectors, routers and rows of tokens follow AdamW."""


class AbstractRouted(AbstractOptimizer):
    """Moves each parameter by one of two rules. A tensor of ndim > 2 (a convolution) is a matrix (first, the rest)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractOptimizer.Config):
        """Options of every optimizer with two rules."""

        route: Literal["auto", "own", "adamw"] = "auto"
        """``auto``: the own rule for matrices of role A, B, full and other, AdamW for the rest."""
        precondition: Literal["newton_schulz", "polar"] = "newton_schulz"
        """How a matrix is made orthogonal: approximately, or exactly by eigenvectors (for small ranks)."""
        ns_steps: Annotated[int, Field(ge=1)] = 5
        """Newton-Schulz iterations."""
        ns_dtype: Literal["float32", "float64", "bfloat16"] | None = None
        """Of their arithmetic; None: full precision for thin matrices, bfloat16 for others on a GPU."""
        ns_eps: Epsilon = 1e-7
        """Added to the Frobenius norm, as the published form of each optimizer sees its momentum."""
        adam_betas: tuple[Decay, Decay] = (0.9, 0.95)
        """AdamW's, for what AdamW moves."""
        adam_eps: Epsilon = 1e-8
        """AdamW's, for what AdamW moves."""

    shape_scale: ClassVar[Literal["match_rms", "original"]] = "match_rms"
    """Factor on an orthogonal (m, n) step: ``0.2 sqrt(max(m, n))``, as large as AdamW's, or ``sqrt(max(1, m/n))``."""
    vectors = False
    """Whether the own rule can also move vectors, if a group asks for it with ``route="own"``."""
    early_eps = False
    """Whether AdamW, the second rule, adds eps before its bias correction, as published with the own rule."""

    @abstractmethod
    def own_buffers(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Names of the state of the own rule."""

    @abstractmethod
    def own_update(self, bucket: Bucket) -> None:
        """Update ``bucket`` by the own rule."""

    def rule(self, param: Tensor, group: dict[str, Any]) -> str:
        """``adamw`` or the optimizer's own name; `ConfigError` for matrices that only exist in flat pieces."""
        num_dims = param.ndim - (group["members"] is not None)
        own = type(self).__name__
        if type(param).__name__ == "DTensor" or (group["role"] in RANK_DIMS and num_dims < 2):
            raise ConfigError(
                f"{own} needs whole matrices, but a parameter of role {group['role']} is a shard or flat, with the "
                f"shape {tuple(param.shape)}. Train LoRA with DDP, or choose adamw."
            )
        if group["route"] == "own" and num_dims < 2 and not self.vectors:
            raise ConfigError(
                f"{own} moves only matrices, so a parameter of shape {tuple(param.shape)} cannot have `route` own. "
                "Leave its `route` at auto."
            )
        if group["route"] == "auto":
            return own if num_dims >= 2 and group["role"] in OWN_ROLES else ADAMW
        return own if group["route"] == "own" else ADAMW

    def rule_buffers(self, rule: str, group: dict[str, Any]) -> tuple[str, ...]:
        """Names of the state of either rule."""
        return BUFFERS if rule == ADAMW else self.own_buffers(group)

    def update(self, bucket: Bucket) -> None:
        """One step of every row by the bucket's rule."""
        if bucket.rule == ADAMW:
            adam_step(
                bucket, bucket.grads, bucket.group["adam_betas"], bucket.group["adam_eps"], early_eps=self.early_eps
            )
        else:
            self.own_update(bucket)

    def orthogonal_step(self, bucket: Bucket, momenta: list[Tensor], eps: float) -> None:
        """Move along the orthogonal factor of each member's momentum, scaled by ``shape_scale``."""
        group = bucket.group
        matrices = [as_matrices(momentum, group) for momentum in momenta]
        if group["precondition"] == "polar":
            factors = polar(matrices)
        else:
            factors = newton_schulz(matrices, eps, group["ns_steps"], group["ns_dtype"])
        directions = [matrix.reshape(param.shape) for matrix, param in zip(factors, bucket.params, strict=True)]
        bucket.move(directions, torch.stack([_scale_K(self.shape_scale, matrix, bucket) for matrix in matrices]))


def as_matrices(stack: Tensor, group: dict[str, Any]) -> Tensor:
    """(K, ..., m, n): a member may have several factors (heads); a vector is a row, a convolution (first, the rest)."""
    if stack.ndim < 3:
        return stack.reshape(len(stack), 1, -1)
    return stack if stack.ndim == 3 or group["role"] in RANK_DIMS else stack.flatten(2)


def _scale_K(name: str, matrix: Tensor, bucket: Bucket) -> Tensor:
    """(K,) factors of the members' steps (float64), from their true shapes in (outputs, inputs) order."""
    group, count = bucket.group, len(bucket.members)
    sides = [torch.full((count,), float(side), dtype=torch.float64) for side in matrix.shape[-2:]]
    if bucket.ranks is not None:
        sides[group["rank_dim"]] = torch.tensor(bucket.ranks, dtype=torch.float64).clamp(min=1)
    if group["role"] in RANK_DIMS and group["rank_dim"] != RANK_DIMS[group["role"]]:
        sides.reverse()
    if name == "match_rms":
        return 0.2 * torch.maximum(*sides).sqrt()
    return (sides[0] / sides[1]).clamp(min=1).sqrt()
