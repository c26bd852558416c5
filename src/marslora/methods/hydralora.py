"""One shared A, several B that a router in every linear weighs for every token (HydraLoRA); cannot be merged."""

from __future__ import annotations

from marslora.methods._mixture_method import MixtureMethod


class HydraLora(MixtureMethod):
    """HydraLoRA (Tian et al. 2024, arXiv 2404.19245): ``W x + s sum_i softmax(W_r x)_i B_i A x``; no load balance.

    Its authors adapt feed-forward blocks only: ``heads_in`` and the model's ``targets`` say where. Dropout has one mask
    for all heads here, theirs one for each.
    """

    defaults = {"routing": "learned", "heads": 3}
