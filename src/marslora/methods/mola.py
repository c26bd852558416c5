"""LoRA experts, of which each token uses two, with more experts in upper than in lower layers (MoLA)."""

from __future__ import annotations

from marslora.methods._mixture_method import MixtureMethod


class Mola(MixtureMethod):
    """MoLA (Gao et al. 2024, arXiv 2402.08562): 2, 4, 6 and 8 experts in the quarters of a part's layers.

    The two likeliest experts are used, with weights that add up to 1. ``balance="switch"`` adds a load balance.
    """

    defaults = {
        "routing": "learned",
        "heads": (2, 4, 6, 8),
        "shared_a": False,
        "top": 2,
        "renormalize": True,
        "balance_weight": 0.001,
    }
