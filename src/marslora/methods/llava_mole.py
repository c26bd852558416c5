"""LoRA experts in feed-forward blocks, of which each token uses the likeliest, with a load balance (LLaVA-MoLE)."""

from __future__ import annotations

from marslora.methods._mixture_method import FEED_FORWARD, MixtureMethod


class LlavaMole(MixtureMethod):
    """LLaVA-MoLE (Chen et al. 2024, arXiv 2401.16160), also called LoRA-MoE or MoE-LoRA. Attention has plain LoRA.

    Each block has one router, with a bias. A chosen expert is multiplied by 1, as in the released code, but the
    gradient is that of its probability, so that the router learns from the task. ``gate="none"`` is the released code,
    whose routers learn from the load balance only; ``gate="probability"`` multiplies by the probability.
    """

    defaults = {
        "routing": "learned",
        "heads": 3,
        "heads_in": FEED_FORWARD,
        "shared_a": False,
        "router": "block",
        "router_bias": True,
        "top": 1,
        "gate": "straight_through",
        "balance": "mole",
        "balance_weight": 0.01,
    }
