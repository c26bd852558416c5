"""Methods that are compared, how they are made equal, and what came out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from marslora.core.allocation import Allocation
from marslora.core.decision import Interval
from marslora.core.errors import ConfigError
from marslora.core.record import Record
from marslora.core.runs import Cost, FinalResult
from marslora.core.spec import TrainingSpec

Equal = Literal["parameters", "compute", "examples"]
FixedRanks = int | dict[str, int]
"""One rank for every part, or ``{part: rank}``; parts that are not named are left alone."""


class Recipe(Record):
    """A paper's method as a combination of kinds, with the paper's numbers."""

    source: str = ""
    """The paper, e.g. ``Wei et al. 2025, arXiv 2502.20035``."""
    ranks: FixedRanks = 16
    training: dict[str, Any] = {}
    """Fields of `TrainingSpec` that make the method: its adapter, optimizer, combiner of gradients."""
    defaults: dict[str, Any] = {}
    """Fields of `TrainingSpec` that its paper used and that a comparison's common settings override."""
    rate_factors: dict[str, float] = {}
    """Learning rate of a part over that of all others; parts that a model does not have are passed over."""


class MethodSpec(Record):
    """One entry of a comparison: a recipe, and what is changed in it."""

    recipe: str = "uniform"
    """A file of `marslora.recipes`."""
    options: dict[str, Any] = {}
    """Arguments of the recipe's function."""
    name: str = ""
    """As tables call it; empty: the recipe's name."""
    ranks: FixedRanks | None = None
    """Instead of the recipe's."""
    rate_factors: dict[str, float] | None = None
    """Instead of the recipe's."""
    training: dict[str, Any] = {}
    """Fields of `TrainingSpec` for this method alone; they override everything else."""

    @property
    def title(self) -> str:
        """What the method is called."""
        return self.name or self.recipe


class ComparisonSpec(Record):
    """Which methods are compared, and how fairly. The first one is the reference."""

    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    """Each a run of every method: initialisation, dropout and order of the rows."""
    equal: Equal = "parameters"
    """What is the same for all beside data and seeds. ``parameters``: ranks are scaled until a method trains as many
    numbers as the reference, on the same examples. ``compute``: ranks stay, and a method sees so many examples that
    training, and what it does before, cost as many floating-point operations. ``examples``: ranks and examples stay."""
    ranks: FixedRanks | None = None
    """Of every method that is given none of its own; None: the recipes'."""

    @model_validator(mode="after")
    def _distinct(self) -> ComparisonSpec:
        titles = [method.title for method in self.methods]
        if repeated := sorted({title for title in titles if titles.count(title) > 1}):
            raise ValueError(f"every method needs a name of its own, found {repeated} more than once: set `name`")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` must differ, found {list(self.seeds)}")
        return self


def training_of(recipe: Recipe, entry: MethodSpec, common: dict[str, Any], parts: tuple[str, ...]) -> TrainingSpec:
    """What a method trains with. Later wins: the recipe's defaults, the common settings, what makes the recipe, the
    entry's own. ``parts`` are the model's; `ConfigError` where the entry names another or a field is wrong."""
    values = {**recipe.defaults, **common, **recipe.training, **entry.training}
    training = TrainingSpec.parse(values, f"method `{entry.title}`")
    if unknown := sorted(set(entry.rate_factors or {}) - set(parts)):
        raise ConfigError(
            f"method `{entry.title}`: `rate_factors` names {unknown}; the model's parts are {list(parts)}."
        )
    factors = recipe.rate_factors if entry.rate_factors is None else entry.rate_factors
    rates = {part: factor * training.learning_rate for part, factor in factors.items() if part in parts}
    return training.model_copy(update={"part_learning_rates": {**rates, **training.part_learning_rates}})


class MethodRun(Record):
    """One method, one seed."""

    seed: int
    result: FinalResult | None = None
    error: str = ""
    """Why there is no result."""


class Compared(Record):
    """One method with everything seen of it. Intervals are Student's over seeds; with one seed they are NaN."""

    name: str
    recipe: str
    summary: str = ""
    """The method in one line."""
    source: str = ""
    error: str = ""
    """Why it could not be planned; then there are no runs."""
    training: TrainingSpec | None = None
    allocation: Allocation | None = None
    examples: int = 0
    """Examples of one run."""
    num_planned: int = 0
    """Trainable parameters, counted before training."""
    flops_per_row: float | None = None
    """Of training, known where compute is made equal."""
    runs: tuple[MethodRun, ...] = ()
    validation_loss: Interval | None = None
    validation_accuracy: Interval | None = None
    test_loss: Interval | None = None
    test_accuracy: Interval | None = None
    difference: Interval | None = None
    """Its loss minus the reference's, paired by seed; None for the reference itself."""
    cost: Cost | None = None
    """Mean of its runs; the peak is the largest."""

    @property
    def results(self) -> dict[int, FinalResult]:
        """What came out, by seed."""
        return {run.seed: run.result for run in self.runs if run.result is not None}

    @property
    def num_trainable(self) -> int:
        """Trainable parameters as the runs counted them; as planned where none has ended."""
        return max((result.num_trainable for result in self.results.values()), default=self.num_planned)


class Comparison(Record):
    """What `compare.json` holds."""

    schema_version: Literal[1] = 1
    model: str
    architecture: str
    device: str = ""
    versions: dict[str, str] = {}
    equal: Equal
    seeds: tuple[int, ...]
    metric: Literal["test_loss", "validation_loss"]
    """What methods are ordered by and what differences are of."""
    full_examples: int
    """Examples of one run of the reference."""
    base_validation_loss: float | None = None
    base_test_loss: float | None = None
    methods: tuple[Compared, ...]
    """The reference first."""

    @property
    def reference(self) -> Compared:
        """What the others are compared with."""
        return self.methods[0]

    def loss(self, method: Compared) -> Interval | None:
        """A method's loss on the rows that count."""
        return method.test_loss if self.metric == "test_loss" else method.validation_loss

    def ordered(self) -> list[Compared]:
        """Lowest loss first; methods without one last, as they were named."""
        return sorted(self.methods, key=lambda each: one.value if (one := self.loss(each)) else float("inf"))
