"""LoRA experts, of which each token uses two, with more experts in upper than in lower layers (MoLA)."""

from __future__ import annotations

from dataclasses import dataclass

from marslora.methods._mixture_method import BalanceWeight, Heads, MixtureMethod, Top


class Mola(MixtureMethod):
    """MoLA (Gao et al. 2024, arXiv 2402.08562): 2, 4, 6 and 8 experts in the quarters of a part's layers.

    The two likeliest experts are used, with weights that add up to 1. ``balance="switch"`` adds a load balance.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(MixtureMethod.Config):
        """The options of the mixture family: experts whose number grows with depth."""

        heads: Heads = (2, 4, 6, 8)
        shared_a: bool = False
        top: Top = 2
        renormalize: bool = True
        balance_weight: BalanceWeight = 0.001
