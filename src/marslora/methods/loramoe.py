"""LoRA experts in feed-forward linears, each with its own A and B, all weighted by a router (LoRAMoE)."""

from __future__ import annotations

from dataclasses import dataclass

from marslora.methods._mixture_method import FEED_FORWARD, Heads, MixtureMethod


class LoraMoe(MixtureMethod):
    """LoRAMoE (Dou et al. 2024, arXiv 2312.09979) without its localized balance, which needs labelled kinds of rows."""

    @dataclass(frozen=True, kw_only=True)
    class Config(MixtureMethod.Config):
        """The options of the mixture family: experts in feed-forward linears."""

        heads: Heads = 6
        heads_in: str = FEED_FORWARD
        shared_a: bool = False
