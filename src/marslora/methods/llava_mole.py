"""Experts of LoRA in feed-forward blocks, the likeliest one for each token, with a load balance (LLaVA-MoLE)."""

from __future__ import annotations

from marslora.methods._mixture_method import FEED_FORWARD, MixtureMethod


class LlavaMole(MixtureMethod):
    """LLaVA-MoLE (Chen et al. 2024, arXiv 2401.16160), which others call LoRA-MoE or MoE-LoRA; plain LoRA in attention.

    One router for each block, with a bias. A chosen expert is multiplied by 1, as released, but the gradient is that of
    its probability, so that the router learns from the task. ``gate="none"`` is the release itself, whose routers learn
    from the load balance alone; ``gate="probability"`` multiplies.
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
