"""What is searched: the candidates, the data, and what a full run costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from marslora.core.allocation import Allocation, Space
from marslora.core.errors import ConfigError
from marslora.core.runs import Cost, Run
from marslora.core.seeds import derive
from marslora.core.spec import MemberSpec

MIN_STEPS = 4
"""No run is shorter than this many batches. A convention: a run needs a few steps before its loss says anything."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched, and what measuring costs."""

    space: Space
    num_train: int
    """Number of training rows."""
    full_examples: int
    """Examples seen by one full run: the unit of cost."""
    batch_size: int
    """Examples of a step. Lengths of runs are multiples of it."""
    count_parameters: Callable[[Allocation], int]
    """Trainable parameters of an allocation."""
    seed: int = 0
    budget: float | None = None
    """Most full runs to spend before the final run; None leaves it to the strategy."""
    max_parameters: int | None = None
    """Allocations with more trainable parameters are not candidates."""

    def __post_init__(self) -> None:
        for name in ("num_train", "full_examples", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, found {getattr(self, name)}. Give a positive count.")
        if self.budget is not None and not self.budget > 0:
            raise ConfigError(f"`budget` must be above 0 full runs, found {self.budget}. Give e.g. 0.25.")
        if not self.candidates():
            raise ConfigError(self._explain_no_candidates())

    def _explain_no_candidates(self) -> str:
        counts = [self.count_parameters(allocation) for allocation in self.space.allocations() if allocation.active]
        if not counts:
            ladders = {part: list(ladder) for part, ladder in self.space.ladders}
            return f"`ranks` must let at least one part train, found only rank 0: {ladders}. Add a rank above 0."
        return (
            f"No allocation has at most {self.max_parameters} trainable parameters (`max_parameters`, or `max_memory` "
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
        """A share of a full run in whole batches: at least `MIN_STEPS` of them, at most the full run."""
        batches = max(round(share * self.full_examples / self.batch_size), MIN_STEPS)
        return min(batches * self.batch_size, self.full_examples)

    def rows(self, share: float) -> int:
        """A share of the training rows: at least one batch, at most all rows."""
        return min(max(round(share * self.num_train), self.batch_size), self.num_train)

    def spent(self, runs: Iterable[Run]) -> float:
        """What the runs cost, in full runs."""
        return Cost(examples=sum(run.last_examples for run in runs)).full_runs(self.full_examples)

    def member(self, allocation: Allocation, rows: int, until: int, purpose: str, repeat: int = 0) -> MemberSpec:
        """The run that trains an allocation on the first ``rows`` rows until it has seen ``until`` examples.

        The same allocation, rows and ``repeat`` give the same member id: with a larger ``until`` the run is continued.
        ``repeat`` counts further seeds; ``purpose`` is for people.
        """
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
