"""How much every head counts for every token: by a label, or by what a small linear layer learns."""

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
        """Probabilities (..., N) of the heads."""
        with torch.autocast(x.device.type, enabled=False):
            bias_N = None if self.bias is None else self.bias.float()
            return nn.functional.linear(x.float(), self.weight.float(), bias_N).softmax(-1)


def choose(p_TN: Tensor, top: int | None, *, renormalize: bool, gate: Gate) -> Tensor:
    """The weights of the heads: their probabilities, or those of the ``top`` likeliest, the others being 0.

    ``gate`` says what a chosen head is multiplied by where not all are used: its probability; 1, with the gradient of
    the probability (straight through); or 1, by which the router learns nothing from the task.
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
        """(..., N), the leading dimensions broadcastable to those of x."""
        by_task = self.by == "task"
        place = self.context.task_places(x, self.part) if by_task else self.context.modality_places(x)
        return one_hot(place, self.heads).float()


class LearnedSource:
    """Weights from a router that reads the linear's own input."""

    def __init__(self, router: Router, context: BatchContext, part: str, settings: Any):
        self.router, self.context, self.part, self.settings = router, context, part, settings

    def weights(self, x: Tensor) -> Tensor:
        """(..., N)"""
        return self._route(x)

    def _route(self, x: Tensor) -> Tensor:
        p_TN = self.router(x)
        if self.settings.balance != "none" and torch.is_grad_enabled():
            self.context.routed.append(RoutingRecord(self.part, p_TN, p_TN.detach().argmax(-1)))
        return choose(p_TN, self.settings.top, renormalize=self.settings.renormalize, gate=self.settings.gate)


class BlockSource(LearnedSource):
    """One router for all linears of a block: it reads the block's input, and they share its weights."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.found: Tensor | None = None

    def hook(self, block: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A forward pre-hook of the block."""
        if not self.context.enabled:
            return
        width = self.router.weight.shape[-1]
        tensors = (one for one in (*args, *named.values()) if isinstance(one, Tensor) and one.is_floating_point())
        x = next((one for one in tensors if one.shape[-1] == width), None)
        if x is None:
            raise ConfigError(
                f"{type(block).__name__} gets no input of width {width}, by which its router could choose. "
                "Set the adapter's `router` to `linear`."
            )
        self.found = self._route(x)

    def weights(self, x: Tensor) -> Tensor:
        """(..., N)"""
        if self.found is None or self.found.shape[:-1].numel() != x.shape[:-1].numel():
            raise ConfigError(
                "A block's linears read other tokens than the block. Set the adapter's `router` to `linear`."
            )
        return self.found.view(*x.shape[:-1], -1)
