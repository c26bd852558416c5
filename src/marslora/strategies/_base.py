"""What every strategy is: measured runs in, the next members to measure or a decision out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from marslora.core.allocation import Allocation, Space
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.plugin_options import PluginConfig
from marslora.core.runs import Cost, Run
from marslora.core.seeds import derive
from marslora.core.spec import MemberSpec

LEAST_STEPS = 4
"""No run is shorter than so many batches."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched, and what measuring costs."""

    space: Space
    num_train: int
    """Training rows there are."""
    full_examples: int
    """Examples seen by one full run: the unit of cost."""
    batch_size: int
    """Examples of a step: lengths of runs are multiples of it."""
    count_parameters: Callable[[Allocation], int]
    """Trainable parameters of an allocation."""
    seed: int = 0
    budget: float | None = None
    """Most run equivalents to spend before the final run; None: what the strategy needs."""
    max_parameters: int | None = None
    """Allocations with more trainable parameters are not candidates."""

    def __post_init__(self) -> None:
        for name in ("num_train", "full_examples", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, found {getattr(self, name)}.")
        if self.budget is not None and not self.budget > 0:
            raise ConfigError(f"`budget` must be above 0 full runs, found {self.budget}.")
        if not self.candidates():
            raise ConfigError(self._why_no_candidates())

    def _why_no_candidates(self) -> str:
        counts = [self.count_parameters(allocation) for allocation in self.space.allocations() if allocation.active]
        if not counts:
            return "`ranks` has no allocation that trains anything: every rank is 0. Add a rank above 0."
        return (
            f"no allocation has at most {self.max_parameters} trainable parameters (`max_parameters`, or `max_memory` "
            f"at 16 bytes each): the smallest has {min(counts)}. Raise the limit or add smaller ranks."
        )

    def candidates(self) -> tuple[Allocation, ...]:
        """The allocations that may be chosen, in the order of the space, without the one that trains nothing."""
        return tuple(
            allocation
            for allocation in self.space.allocations()
            if allocation.active
            and (self.max_parameters is None or self.count_parameters(allocation) <= self.max_parameters)
        )

    def examples(self, share: float) -> int:
        """A share of a full run in whole batches, at least `LEAST_STEPS`, at most the full run."""
        batches = max(round(share * self.full_examples / self.batch_size), LEAST_STEPS)
        return min(batches * self.batch_size, self.full_examples)

    def rows(self, share: float) -> int:
        """A share of the training rows, at least one batch where there are so many."""
        return min(max(round(share * self.num_train), self.batch_size), self.num_train)

    def spent(self, runs: Iterable[Run]) -> float:
        """What the runs cost in run equivalents."""
        return Cost(examples=sum(run.last_examples for run in runs)).full_runs(self.full_examples)

    def member(self, allocation: Allocation, rows: int, until: int, purpose: str, repeat: int = 0) -> MemberSpec:
        """The member that trains an allocation on the first ``rows`` rows; asked again for more examples it goes on."""
        name = "+".join(f"{part}={rank}" for part, rank in allocation.ranks if rank > 0) or "nothing"
        return MemberSpec(
            id=f"{name}.d{rows}.s{repeat}",
            allocation=allocation,
            data_examples=rows,
            until_examples=until,
            seed=derive(self.seed, "member", repeat) % 2**31,
            order_seed=derive(self.seed, "order", rows) % 2**31,
            purpose=purpose,
        )


class AbstractStrategy(ABC):
    """Proposes what to measure and decides. Both are pure functions of the problem and the runs.

    ``propose`` is called again after each round; running again after a crash therefore is resuming. A member that could
    not run must come back as a run with status ``failed``, or it is asked for again.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(PluginConfig):
        """The strategy's options."""

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()

    @classmethod
    def of(cls, options: Mapping[str, Any] | None = None) -> Self:
        """The strategy with options by name, as a configuration file gives them; `ConfigError` for wrong ones."""
        return cls(cls.Config.of(options, cls.__name__))

    @abstractmethod
    def propose(self, problem: Problem, runs: Sequence[Run]) -> Sequence[MemberSpec]:
        """The members to train next, or to train further; empty when enough is known."""

    @abstractmethod
    def decide(self, problem: Problem, runs: Sequence[Run]) -> DecisionRecord:
        """The choice on what has been measured so far, with a reason for every candidate. Never raises on bad runs."""


def check_rungs(eta: int, first_rung: float) -> None:
    """`ConfigError` where rungs would not end: each is ``eta`` times as long as the one before."""
    if eta < 2:
        raise ConfigError(f"`eta` must be at least 2, found {eta}.")
    if not 0 < first_rung <= 1:
        raise ConfigError(f"`first_rung` must be a share of a full run, above 0 and at most 1, found {first_rung}.")


def unfinished(wanted: Iterable[MemberSpec], runs: Sequence[Run]) -> list[MemberSpec]:
    """Those of the wanted members that have not got as far as they should and still can."""
    by_id = {run.member.id: run for run in runs}
    return [member for member in wanted if not _finished(member, by_id.get(member.id))]


def _finished(member: MemberSpec, run: Run | None) -> bool:
    if run is None or run.status == "running":
        return False
    if run.status in ("diverged", "failed", "stopped") or run.last_examples >= member.until_examples:
        return True
    return run.status == "complete" and run.member.until_examples >= member.until_examples


def as_of(members: Iterable[MemberSpec], runs: Sequence[Run]) -> list[Run]:
    """The runs of these members as they stood when each had got as far as its member says."""
    by_id = {run.member.id: run for run in runs}
    return [_cut(by_id[member.id], member) for member in members if member.id in by_id]


def _cut(run: Run, member: MemberSpec) -> Run:
    if run.last_examples <= member.until_examples:
        return run
    num = sum(examples <= member.until_examples for examples in run.examples)
    return run.model_copy(
        update={
            "member": member,
            "status": "complete",
            "examples": run.examples[:num],
            "validation_loss": run.validation_loss[:num],
        }
    )


def usable(run: Run) -> bool:
    """The run has a finite loss beyond its start, and did not diverge."""
    return run.last_examples > 0 and run.status != "failed" and run.last_loss < float("inf")


def total_cost(runs: Iterable[Run]) -> Cost:
    """What the runs cost together."""
    total = Cost()
    for run in runs:
        total += run.cost if run.cost.examples else run.cost.model_copy(update={"examples": run.last_examples})
    return total
