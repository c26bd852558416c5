"""LoRA experts in feed-forward blocks, of which each token uses the likeliest, with a load balance (LLaVA-MoLE)."""

from __future__ import annotations

from dataclasses import dataclass

from marslora.methods._mixture_method import FEED_FORWARD, Balance, BalanceWeight, MixtureMethod, RouterReach, Top
from marslora.methods._router import Gate


class LlavaMole(MixtureMethod):
    """LLaVA-MoLE (Chen et al. 2024, arXiv 2401.16160), also called LoRA-MoE or MoE-LoRA. Attention has plain LoRA.

    Each block has one router, with a bias. A chosen expert is multiplied by 1, as in the released code, but the
    gradient is that of its probability, so that the router learns from the task. ``gate="none"`` is the released code,
    whose routers learn from the load balance only; ``gate="probability"`` multiplies by the probability.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(MixtureMethod.Config):
        """The options of the mixture family: one expert for each token, in feed-forward blocks."""

        heads_in: str = FEED_FORWARD
        shared_a: bool = False
        router: RouterReach = "block"
        router_bias: bool = True
        top: Top = 1
        gate: Gate = "straight_through"
        balance: Balance = "mole"
        balance_weight: BalanceWeight = 0.01
