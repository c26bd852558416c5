"""LoRA experts in feed-forward linears, each with its own A and B, all weighted by a router (LoRAMoE)."""

from __future__ import annotations

from marslora.methods._mixture_method import FEED_FORWARD, MixtureMethod


class LoraMoe(MixtureMethod):
    """LoRAMoE (Dou et al. 2024, arXiv 2312.09979) without its localized balance, which needs labelled kinds of rows."""

    defaults = {"routing": "learned", "heads": 6, "heads_in": FEED_FORWARD, "shared_a": False}
