"""One shared A and several B, which a router in every linear weights for every token (HydraLoRA); cannot be merged."""

from __future__ import annotations

from dataclasses import dataclass

from marslora.methods._mixture_method import Heads, MixtureMethod


class HydraLora(MixtureMethod):
    """HydraLoRA (Tian et al. 2024, arXiv 2404.19245): ``W x + s sum_i softmax(W_r x)_i B_i A x``; no load balance.

    Its authors adapt feed-forward blocks only, which ``heads_in`` and the model's ``targets`` can select. Here all
    heads share one dropout mask; in the authors' code each head has its own. Four heads are those of their script.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(MixtureMethod.Config):
        """The options of the mixture family, with the heads of the authors' script."""

        heads: Heads = 4
