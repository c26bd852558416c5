"""What every strategy is: measured runs in, the next members to train or a decision out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from marslora.core.decision import DecisionRecord
from marslora.core.plugin_options import AbstractPlugin
from marslora.core.runs import Run
from marslora.core.spec import MemberSpec
from marslora.strategies._problem import Problem

MAX_ROUNDS = 1000
"""A strategy that is not content after this many rounds is taken for defective. The slowest one needs a round for each
run it begins (`asha`, `optuna_sampler`), and nobody begins a thousand."""

Share = Annotated[float, Field(gt=0, le=1)]
"""The type of an option that is a share of a whole."""
Positive = Annotated[float, Field(gt=0)]
"""The type of an option that is any number above 0."""
Count = Annotated[int, Field(ge=1)]
"""The type of an option that counts something of which there must be one."""


class AbstractStrategy(AbstractPlugin, ABC):
    """Proposes what to measure, and decides. Both are pure functions of the problem and the runs.

    ``propose`` is called again after each round; running again after a crash therefore is resuming. A member that could
    not run must come back as a run with status ``failed``, or it is proposed again.
    """

    measures: ClassVar[bool] = True
    """Whether the strategy ever proposes runs; one that does not works with adapters that cannot train packed."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractPlugin.Config):
        """The options of the strategy."""

    @abstractmethod
    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The members to train next, or to train further; empty when enough is known."""

    @abstractmethod
    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The choice on what has been measured so far, with a reason for every candidate. Never raises on bad runs."""
