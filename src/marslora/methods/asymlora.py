"""One A that all tasks share and a B for each task, which separates what conflicts (AsymLoRA); merges by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from marslora.methods._base import Merges
from marslora.methods._mixture_method import FEED_FORWARD, MixtureMethod, Routing

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

    @dataclass(frozen=True, kw_only=True)
    class Config(MixtureMethod.Config):
        """The options of the mixture family, and the form, which sets the defaults of the others."""

        form: Literal["task", "mixture"] = "task"
        """``task``: a head for each task. ``mixture``: the released settings, in which routers weight three heads in
        feed-forward blocks."""
        routing: Routing = "task"

        @classmethod
        def of(cls, options: Mapping[str, Any] | None, owner: str) -> Self:
            """As for every plugin; options that are not given are those of the form."""
            given = dict(options or {})
            return super().of({**RELEASED, **given} if given.get("form") == "mixture" else given, owner)

    config: Config

    def __init__(self, /, **options: Any):
        super().__init__(**options)
        if self.config.form == "mixture":
            self.merges = "no"  # type: ignore[misc]

    merges: ClassVar[Merges] = "by task"
    serves = "any server of LoRA, with a plain PEFT folder for each task (the mixture form: Python with marslora)"
