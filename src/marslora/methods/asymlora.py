"""One A that all tasks share and a B for each task, which separates what conflicts (AsymLoRA); merges by task."""

from __future__ import annotations

from typing import Any

from marslora.core.errors import ConfigError
from marslora.methods._mixture_method import FEED_FORWARD, MixtureMethod

RELEASED = {
    "routing": "learned",
    "router": "block",
    "router_bias": True,
    "heads_in": FEED_FORWARD,
    "balance": "mole",
    "balance_weight": 0.05,
}
"""Options of the mixture form as its authors released it: three heads in feed-forward blocks, plain LoRA elsewhere."""


class AsymLora(MixtureMethod):
    """AsymLoRA (Wei et al. 2025, arXiv 2502.20035): ``W x + s B_t A x`` for a row of task t, in every linear.

    ``form="mixture"`` is the paper's other form, in which routers weight the heads (see `RELEASED`).
    """

    merges = "by task"
    serves = "any server of LoRA, with a plain PEFT folder for each task (the mixture form: Python with marslora)"
    defaults = {"routing": "task"}

    def __init__(self, *, form: str = "task", **options: Any):
        if form not in ("task", "mixture"):
            raise ConfigError(f"The adapter's `form` must be `task` or `mixture`, found {form!r}.")
        super().__init__(**{**(RELEASED if form == "mixture" else {}), **options})
        self.options = {"form": form, **options}
