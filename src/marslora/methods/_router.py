"""The weight of every head for every token, from a label or from a learned linear layer."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from marslora.adapters import member_generator
from marslora.core.errors import ConfigError
from marslora.methods._context import BatchContext, RoutingRecord

Gate = Literal["probability", "straight_through", "none"]
"""The factors of chosen heads, which `weigh_heads` explains."""


class Router(nn.Module):
    """``softmax(W x + b)`` in float32, over all heads or over the likeliest ones (HydraLoRA, arXiv 2404.19245)."""

    def __init__(self, inputs: int, heads: int, *, bias: bool, seed: int, path: str, device: torch.device):
        super().__init__()
        generator, bound = member_generator(seed, path, "router"), 1 / math.sqrt(inputs)  # Kaiming's with a = sqrt 5
        weight_NI = torch.empty(heads, inputs).uniform_(-bound, bound, generator=generator)
        bias_N = torch.empty(heads).uniform_(-bound, bound, generator=generator) if bias else None
        self.weight = nn.Parameter(weight_NI.to(device))
        self.bias = None if bias_N is None else nn.Parameter(bias_N.to(device))

    def forward(self, x: Tensor) -> Tensor:
        """Return the probabilities (..., N) of the heads."""
        with torch.autocast(x.device.type, enabled=False):
            bias_N = None if self.bias is None else self.bias.float()
            return nn.functional.linear(x.float(), self.weight.float(), bias_N).softmax(-1)


def weigh_heads(p_TN: Tensor, top: int | None, *, renormalize: bool, gate: Gate) -> Tensor:
    """Return the weights of the heads: their probabilities, or those of the ``top`` likeliest and 0 for the others.

    If not all heads are used, ``gate`` is the factor of a chosen head: ``probability``; ``straight_through`` for 1 with
    the gradient of the probability; ``none`` for 1 without a gradient, so that the router does not learn from the task.
    """
    if top is None or top >= p_TN.shape[-1]:
        return p_TN
    best = p_TN.topk(top, dim=-1).indices
    mask_TN = torch.zeros_like(p_TN).scatter(-1, best, 1.0)
    kept_TN = p_TN * mask_TN
    if renormalize:
        kept_TN = kept_TN / kept_TN.sum(-1, keepdim=True)
    if gate == "probability":
        return kept_TN
    return mask_TN if gate == "none" else mask_TN + kept_TN - kept_TN.detach()


class LabelSource:
    """Weights that are 1 for the head of a token's label, by task or by modality."""

    def __init__(self, context: BatchContext, part: str, by: Literal["task", "modality"], heads: int):
        self.context, self.part, self.by, self.heads = context, part, by, heads

    def weights(self, x: Tensor) -> Tensor:
        """Return the weights (..., N), whose leading dimensions broadcast to those of x."""
        by_task = self.by == "task"
        place = self.context.task_places(x, self.part) if by_task else self.context.modality_places(x)
        return one_hot(place, self.heads).float()


class LearnedSource:
    """Weights from a router that reads the linear's own input. ``config`` is that of a `MixtureMethod`."""

    def __init__(self, router: Router, context: BatchContext, part: str, config: Any):
        self.router, self.context, self.part, self.config = router, context, part, config

    def weights(self, x: Tensor) -> Tensor:
        """Return the weights (..., N) that the router gives for x."""
        return self._route(x)

    def _route(self, x: Tensor) -> Tensor:
        p_TN = self.router(x)
        if self.config.balance != "none" and torch.is_grad_enabled():
            self.context.routed.append(RoutingRecord(self.part, p_TN, p_TN.detach().argmax(-1)))
        return weigh_heads(p_TN, self.config.top, renormalize=self.config.renormalize, gate=self.config.gate)


class BlockSource(LearnedSource):
    """One router for all linears of a block: it reads the block's input, and they share its weights."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.block_weights: Tensor | None = None

    def hook(self, block: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Run the router in a forward pre-hook of the block."""
        if not self.context.enabled:
            return
        width = self.router.weight.shape[-1]
        tensors = (each for each in (*args, *named.values()) if isinstance(each, Tensor) and each.is_floating_point())
        x = next((each for each in tensors if each.shape[-1] == width), None)
        if x is None:
            raise ConfigError(
                f"The block {type(block).__name__} has no input of width {width} for its router to read. "
                "Set the adapter's `router` to `linear`."
            )
        self.block_weights = self._route(x)

    def weights(self, x: Tensor) -> Tensor:
        """Return the weights (..., N) that the router gave for the block's input."""
        read = None if self.block_weights is None else tuple(self.block_weights.shape[:-1])
        if self.block_weights is None or self.block_weights.shape[:-1].numel() != x.shape[:-1].numel():
            raise ConfigError(
                f"A linear reads tokens of shape {tuple(x.shape[:-1])}, but the router of its block read {read}. "
                "Set the adapter's `router` to `linear`."
            )
        return self.block_weights.view(*x.shape[:-1], -1)
