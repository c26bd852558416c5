"""Fitted laws and the decision based on them, with all reasons: the contents of `laws.json` and `decision.json`."""

from __future__ import annotations

from typing import Literal

from marslora.core.allocation import Allocation
from marslora.core.record import Record
from marslora.core.runs import Cost
from marslora.core.setting import Setting

LEVEL = 0.9
"""The level of all intervals, and the probability held by the plausible set. A convention: texts and pages say 90 %."""


class Interval(Record):
    """An estimate with its bounds at the stated level."""

    value: float
    low: float
    high: float
    level: float = LEVEL


class LawPoint(Record):
    """One measurement that a law was fitted to."""

    run: str
    inputs: dict[str, float]
    """The values of the law's variables, by name: ``rank``, ``data``, or a rank per part."""
    measured: float
    predicted: float
    censored: bool = False
    """Whether the run ended too early: the true value is larger than ``measured``."""


class LawFit(Record):
    """One fitted law. A fit that failed has a status and a message, not an exception."""

    law: str
    """The name of the law, e.g. ``convergence``."""
    subject: str
    """What the law describes: a part's name, or ``allocation``."""
    variant: str = ""
    """The form's short name, e.g. ``rectified``."""
    form: str
    """The formula, e.g. ``T = E + A (rank/8)^-alpha``."""
    status: Literal["converged", "unidentified", "failed"]
    message: str = ""
    parameters: dict[str, Interval] = {}
    references: dict[str, float] = {}
    """What each input is divided by inside the form, by the input's name."""
    draws: tuple[tuple[float, ...], ...] = ()
    """Bootstrap replicates of the parameters, in the order of ``parameters``."""
    residual: float = float("nan")
    """Root mean square of the log residuals of uncensored points."""
    held_out_error: float = float("nan")
    """The same, each rank predicted from the others (leave-one-rank-out)."""
    ahead_error: float = float("nan")
    """Log error of predicting the later half of each curve from the earlier, for each unit of the data's logarithm."""
    condition: float = float("nan")
    """Condition number of the Jacobian at the solution, columns scaled."""
    gradient: float = float("nan")
    """Largest gradient component at the solution, in standard errors of its parameter; near 0 at an optimum."""
    points: tuple[LawPoint, ...] = ()
    num_starts: int = 0
    num_bootstraps: int = 0
    alternatives: dict[str, float] = {}
    """Held-out errors of the forms that were not chosen."""


class ClosedForm(Record):
    """The rank of one part that balances a given rank of another, from the equation of the two laws."""

    part: str
    given: str
    given_rank: int
    rank: float | None
    """None if the equation has no real solution."""
    status: Literal["solved", "no_real_solution", "outside_ladder", "law_failed"]
    message: str = ""


class Effect(Record):
    """How much one choice matters: what its worst value costs, with everything else at its best for that value."""

    knob: str
    """What is chosen: ``learning rate``, ``vision rank``, ``training vision``, ..."""
    nats: Interval
    """Loss at the worst value above that at the best one, nats per answer token."""
    share: Interval
    """The same as a share of what training gained."""
    best: str
    """The best value."""
    worst: str
    """The worst value."""
    verdict: Literal["matters", "does not matter", "unresolved"]


class Candidate(Record):
    """One setting: its measurements and predictions, and whether it was chosen, kept or dropped."""

    allocation: Allocation
    learning_rate: float | None = None
    """None if the learning rate is not searched."""
    part_learning_rates: dict[str, float] = {}
    """Learning rates of single parts, if they are searched."""
    status: Literal["chosen", "kept", "dropped"]
    reason: str
    num_trainable: int = 0
    convergence_examples: dict[str, Interval] = {}
    """Predicted examples until each part has converged."""
    imbalance: Interval | None = None
    """Largest log ratio between the parts' convergence times; 0 is balanced."""
    predicted_loss: Interval | None = None
    """Predicted validation loss at the best point of a full run."""
    observed_loss: float | None = None
    """Lowest validation loss observed, after ``observed_examples`` examples."""
    observed_examples: int | None = None
    p_best: float | None = None
    """Probability that it has the lowest loss of all candidates; None if the strategy does not estimate it."""
    expected_regret: float | None = None
    """Expected loss above the best setting, in nats per answer token."""

    @property
    def setting(self) -> Setting:
        """The ranks and the learning rates."""
        return Setting(
            allocation=self.allocation,
            learning_rate=self.learning_rate,
            part_learning_rates=tuple(self.part_learning_rates.items()),
        )


class DecisionRecord(Record):
    """Which setting was chosen, how sure that is, and why not the others."""

    strategy: str
    chosen: Allocation
    """The chosen ranks."""
    learning_rate: float | None = None
    """The chosen learning rate; None if it was not searched."""
    part_learning_rates: dict[str, float] = {}
    """The chosen learning rates of single parts, if they were searched."""
    verdict: Literal["clear", "indistinguishable", "alike", "unmeasured", "fallback"]
    """One setting is best; several cannot be told apart; nothing that was searched matters; too little was measured;
    or nothing could be compared."""
    summary: str
    """The verdict in one or two sentences."""
    candidates: tuple[Candidate, ...]
    problems: tuple[str, ...] = ()
    """Why the decision is not to be relied on, each with what to do; empty if it is. The summary begins with them."""
    plausible: tuple[Setting, ...] = ()
    """The plausible set: the fewest settings that hold 90 % of the probability of being best."""
    effects: tuple[Effect, ...] = ()
    """How much each choice matters, the largest effect first."""
    corners: tuple[str, ...] = ()
    """Sentences about choices that are the last of their ladder, beyond which the best may lie."""
    fallback: str | None = None
    """What was done instead, and why, if the laws could not decide."""
    laws: tuple[LawFit, ...] = ()
    closed_forms: tuple[ClosedForm, ...] = ()
    continue_run: str | None = None
    """Id of the member whose checkpoint the final run may start from."""
    calibration: Cost = Cost()
    """The total cost of all runs before the final one."""
    calibration_full_runs: float = 0.0
    """The same in full runs: the training and the validation of a full run are 1."""
    assumptions: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()

    @property
    def setting(self) -> Setting:
        """The chosen ranks and learning rates."""
        return Setting(
            allocation=self.chosen,
            learning_rate=self.learning_rate,
            part_learning_rates=tuple(self.part_learning_rates.items()),
        )

    def candidate(self, setting: Setting) -> Candidate:
        """The candidate with this setting."""
        return next(candidate for candidate in self.candidates if candidate.setting == setting)

    @property
    def chosen_candidate(self) -> Candidate:
        """The candidate with the chosen setting."""
        return self.candidate(self.setting)
