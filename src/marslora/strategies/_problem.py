"""What is searched: the candidates, the data, and what a full run costs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from marslora.core.allocation import Allocation, Space, list_allocations
from marslora.core.errors import ConfigError
from marslora.core.runs import Run
from marslora.core.schedule import evaluation_steps, num_steps
from marslora.core.seeds import derive
from marslora.core.setting import Setting
from marslora.core.spec import VALIDATION_WORK, MemberSpec, TrainingSpec

DEFAULT_EVALUATIONS: int = TrainingSpec.model_fields["evaluations"].default
"""Regular points of a full run, if a problem does not list them."""
MIN_STEPS = 4
"""No run is shorter than this many batches. A convention: a run needs a few steps before its loss says anything."""


Validations = Literal["regular", "end", "few"]
"""When a run is validated, see `MemberSpec.validations`."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched, and what measuring costs."""

    space: Space
    num_train: int
    """Number of training rows."""
    full_examples: int
    """Examples seen by one full run, which with its validations is the unit of cost."""
    batch_size: int
    """Examples of a step. Lengths of runs are multiples of it."""
    num_validation: int = 0
    """Rows of a validation; 0: validation costs nothing."""
    full_validations: int = 0
    """Validations of a full run."""
    count_parameters: Callable[[Allocation], int]
    """Trainable parameters of an allocation."""
    points: tuple[int, ...] = ()
    """Examples seen at the regular points of a full run, at which training losses are recorded; empty: the default."""
    seed: int = 0
    budget: float | None = None
    """Most full runs to spend before the final run; None leaves it to the strategy."""
    max_parameters: int | None = None
    """Allocations with more trainable parameters are not candidates."""
    learning_rates: tuple[float, ...] = ()
    """Learning rates that may be chosen, increasing; empty: the learning rate is given and not searched."""
    part_rate_factors: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Parts whose learning rate is searched apart: the factors on that of the others which may be chosen."""

    def __post_init__(self) -> None:
        for name in ("num_train", "full_examples", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, found {getattr(self, name)}. Give a positive count.")
        if self.budget is not None and not self.budget > 0:
            raise ConfigError(f"`budget` must be above 0 full runs, found {self.budget}. Give e.g. 0.25.")
        self.allocations()

    def allocations(self) -> tuple[Allocation, ...]:
        """The allocations that may be chosen, in the order of the space, without the one that trains nothing."""
        return list_allocations(self.space, self.count_parameters, self.max_parameters)

    def candidates(self) -> tuple[Setting, ...]:
        """The settings that may be chosen: every allocation at every learning rate, the rates varying fastest.

        A part with rank 0 has no learning rate of its own, so its factors make no further candidates.
        """
        return tuple(dict.fromkeys(itertools.chain.from_iterable(map(self._list_settings, self.allocations()))))

    def _list_settings(self, allocation: Allocation) -> Iterator[Setting]:
        if not self.learning_rates:
            yield Setting(allocation=allocation)
            return
        factors = [(part, own) for part, own in self.part_rate_factors if allocation.get(part)]
        for rate in self.learning_rates:
            for chosen in itertools.product(*(own for _, own in factors)):
                own_rates = zip((part for part, _ in factors), chosen, strict=True)
                yield self.make_setting(allocation, rate, dict(own_rates))

    @property
    def searches_rates(self) -> bool:
        """Whether there is a choice of learning rates."""
        return len(self.learning_rates) > 1 or bool(self.part_rate_factors)

    @property
    def middle_rate(self) -> float | None:
        """The learning rate that is taken if none was measured; None if the learning rate is not searched."""
        return self.learning_rates[len(self.learning_rates) // 2] if self.learning_rates else None

    @property
    def centre_rate(self) -> float | None:
        """The geometric middle of the learning rates, which may lie between two of them; None if there are none."""
        rates = self.learning_rates
        return float((rates[0] * rates[-1]) ** 0.5) if rates else None

    def make_setting(self, allocation: Allocation, rate: float, factors: Mapping[str, float] | None = None) -> Setting:
        """The setting of an allocation at a learning rate, with the factors of single parts that are trained."""
        own = ((part, factor * rate) for part, factor in (factors or {}).items() if factor != 1 and allocation[part])
        return Setting(allocation=allocation, learning_rate=rate, part_learning_rates=tuple(own))

    def at_middle_rate(self, allocation: Allocation) -> Setting:
        """The setting of an allocation whose learning rate is taken without being searched."""
        return Setting(allocation=allocation, learning_rate=self.middle_rate)

    def examples(self, share: float) -> int:
        """A share of a full run in whole batches: at least `MIN_STEPS` of them, at most the full run."""
        batches = max(round(share * self.full_examples / self.batch_size), MIN_STEPS)
        return min(batches * self.batch_size, self.full_examples)

    def list_lengths(self) -> tuple[int, ...]:
        """Lengths of runs in examples that end at a regular point: at least `MIN_STEPS` batches, at most a full run."""
        points = self.points or tuple(
            min(step * self.batch_size, self.full_examples)
            for step in evaluation_steps(num_steps(self.full_examples, self.batch_size), DEFAULT_EVALUATIONS)
        )
        least = min(MIN_STEPS * self.batch_size, self.full_examples)
        return tuple(sorted({point for point in points if point >= least} | {self.full_examples}))

    def rows(self, share: float) -> int:
        """A share of the training rows: at least one batch, at most all rows."""
        return min(max(round(share * self.num_train), self.batch_size), self.num_train)

    @property
    def full_work(self) -> float:
        """What a full run costs with its own validations, in training examples."""
        return self.full_examples + VALIDATION_WORK * self.num_validation * self.full_validations

    def work(self, runs: Iterable[Run]) -> float:
        """What training and validating the runs costs, in training examples."""
        return sum(run.last_examples + VALIDATION_WORK * self.num_validation * run.num_validations for run in runs)

    def spent(self, runs: Iterable[Run]) -> float:
        """What the runs cost, in full runs: their training and their validations."""
        return self.work(runs) / self.full_work

    def member(
        self, setting: Setting, rows: int, until: int, purpose: str, repeat: int = 0, validations: Validations = "end"
    ) -> MemberSpec:
        """The run that trains a setting on the first ``rows`` rows until it has seen ``until`` examples.

        The same setting, rows and ``repeat`` give the same member id: with a larger ``until`` the run is continued.
        ``repeat`` counts further seeds; ``purpose`` is for people; ``validations`` as in `MemberSpec`.
        """
        return MemberSpec(
            id=f"{_name_setting(setting)}.d{rows}.s{repeat}",
            allocation=setting.allocation,
            learning_rate=setting.learning_rate,
            part_learning_rates=setting.part_learning_rates,
            data_examples=rows,
            until_examples=until,
            seed=derive(self.seed, "member", repeat) % 2**31,
            order_seed=derive(self.seed, "order", rows) % 2**31,
            validations=validations,
            purpose=purpose,
        )


def _name_setting(setting: Setting) -> str:
    """A name for files: the ranks above 0, the learning rate if it is searched, and the parts' own."""
    ranks = "+".join(f"{part}={rank}" for part, rank in setting.allocation.ranks if rank > 0) or "nothing"
    rates = [] if setting.learning_rate is None else [f"lr{setting.learning_rate:.3g}"]
    return ".".join([ranks, *rates, *(f"{part}-lr{rate:.3g}" for part, rate in setting.part_learning_rates)])
