"""The specs of a comparison: its methods and how they are made equal; and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from marslora.core.allocation import Allocation
from marslora.core.decision import Interval
from marslora.core.errors import ConfigError
from marslora.core.options import SEARCHING, Option, OptionRecord
from marslora.core.record import Record
from marslora.core.runs import Cost, FinalResult
from marslora.core.seeds import LARGEST_SEED
from marslora.core.training import TrainingSpec
from marslora.core.words import read_numbers, read_options, read_pairs, read_plugin

Equal = Literal["parameters", "compute", "examples"]
PLUGIN_FIELDS = ("adapter", "optimizer", "gradients")
"""Fields of `TrainingSpec` that a method may name directly, e.g. ``moka:optimizer=muon``."""


def read_ranks(value: Any) -> Any:
    """Read ``"16"`` as one rank and ``["vision=8", "language=16"]`` as ranks of parts; anything else stays as it is."""
    words = [value] if isinstance(value, str) else value
    if not (isinstance(words, Sequence) and words and all(isinstance(word, str) for word in words)):
        return value
    try:
        if len(words) == 1 and "=" not in words[0]:
            return int(words[0])
        return {part: int(rank) for part, rank in read_pairs(words, "vision=8").items()}
    except ValueError:
        raise ValueError(f"must be one rank such as 16, or ranks by part such as vision=8, found {value!r}") from None


FixedRanks = Annotated[int | dict[str, int], BeforeValidator(read_ranks)]
"""One rank for every part, or ``{part: rank}``; parts that are not named are not adapted."""


class Recipe(Record):
    """A paper's method as a combination of plugins, with the paper's numbers."""

    source: str = ""
    """The paper, e.g. ``Wei et al. 2025, arXiv 2502.20035``."""
    ranks: FixedRanks = 16
    training: dict[str, Any] = {}
    """Fields of `TrainingSpec` that make the method: its adapter, optimizer, combiner of gradients."""
    defaults: dict[str, Any] = {}
    """Fields of `TrainingSpec` that its paper used and that a comparison's common settings override."""
    rate_factors: dict[str, float] = {}
    """Learning rate of a part relative to that of all others; parts that a model does not have are ignored."""


class MethodSpec(Record):
    """One entry of a comparison: a recipe and changes to it. Written ``RECIPE`` or ``RECIPE:key=value,...``.

    The keys are ``name``, ``rank``, ``rank.PART``, ``rate.PART`` (the part's learning rate relative to that of all
    others), ``adapter``, ``optimizer``, ``gradients`` and ``training.FIELD``; any other is an option of the recipe.
    """

    recipe: str = "uniform"
    """A file of `marslora.recipes`, or ``package.module:function``."""
    options: dict[str, Any] = {}
    """Arguments of the recipe's function."""
    name: str = ""
    """The method's name in tables; empty: the recipe's name."""
    ranks: FixedRanks | None = None
    """Ranks that replace those of the recipe."""
    rate_factors: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    """Factors that replace those of the recipe."""
    training: dict[str, Any] = {}
    """Fields of `TrainingSpec` for this method alone; they override everything else."""

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        return read_method(value) if isinstance(value, str) else value

    @property
    def title(self) -> str:
        """The method's name: ``name``, or the recipe's if it is empty."""
        return self.name or self.recipe


def read_method(text: str) -> dict[str, Any]:
    """Read ``RECIPE:key=value,...`` as the fields of a `MethodSpec`. Raises `ValueError` for anything else."""
    recipe, rest = _split_method(text)
    fields: dict[str, Any] = {"recipe": recipe, "options": {}, "training": {}, "name": text if rest else ""}
    try:
        options = read_options(rest)
    except ValueError as error:
        raise ValueError(f"must look like asymlora:rank=8,rate.projector=0.1, found {text!r}: {error}") from None
    for key, value in options.items():
        head, _, tail = key.partition(".")
        if key == "name":
            fields["name"] = str(value)
        elif key == "rank":
            fields["ranks"] = value
        elif head == "rank":
            fields["ranks"] = {**_read_rank_mapping(fields.get("ranks"), text), tail: value}
        elif head == "rate" and tail:
            fields["rate_factors"] = {**(fields.get("rate_factors") or {}), tail: value}
        elif key in PLUGIN_FIELDS:
            fields["training"][key] = read_plugin(str(value))
        elif head == "training" and tail:
            fields["training"][tail] = value
        else:
            fields["options"][key] = value
    return fields


def _read_rank_mapping(ranks: Any, text: str) -> dict[str, Any]:
    if not isinstance(ranks, dict | None):
        raise ValueError(f"must set either `rank` or `rank.PART`, found both in {text!r}")
    return ranks or {}


def _split_method(text: str) -> tuple[str, str]:
    """The recipe and its ``key=value,...``; text without ``=`` between two colons belongs to the recipe."""
    head, _, rest = text.partition(":")
    function, _, options = rest.partition(":")
    if function and "=" not in function:
        return f"{head}:{function}", options
    return head, rest


def _read_methods(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _read_seeds(value: Any) -> Any:
    if isinstance(value, str):
        return read_numbers(value, "seeds such as 0,1,2")
    return tuple(value) if isinstance(value, Sequence) else value


class ComparisonSpec(OptionRecord):
    """Which methods are compared, and what is equal for all of them. The first method is the reference."""

    methods: Annotated[
        tuple[MethodSpec, ...],
        BeforeValidator(_read_methods),
        Field(min_length=1),
        Option(
            SEARCHING,
            flag="--method",
            metavar="METHOD",
            hint="Name at least one recipe, e.g. uniform (see `marslora list`).",
        ),
    ]
    """A recipe (see `marslora list`) or package.module:function, or either with :key=value,... where a key is name,
    rank, rank.PART, rate.PART, adapter, optimizer, gradients, training.FIELD or an option of the recipe. The first
    method is the reference."""
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, le=LARGEST_SEED)], ...],
        BeforeValidator(_read_seeds),
        Field(min_length=1),
        Option(SEARCHING, metavar="0,1,2", is_repeatable=False, type=Sequence[int] | str),
    ] = (0, 1, 2)
    """Seeds of initialisation, dropout and the order of rows; every method is trained once with each."""
    equal: Annotated[Equal, Option(SEARCHING)] = "parameters"
    """What is equal for all methods besides data and seeds. ``parameters``: ranks are scaled until a method trains as
    many parameters as the reference. ``compute``: ranks stay, and examples are scaled until training takes as many
    floating-point operations. ``examples``: ranks and examples stay as they are."""
    ranks: Annotated[
        FixedRanks | None,
        Option(SEARCHING, flag="--rank", metavar="RANK", is_repeatable=True, type=int | Mapping[str, int]),
    ] = None
    """Rank for methods that do not set one: 16, or vision=8 and language=16. Default: the ranks of the recipes."""
    metric: Annotated[str, Option(SEARCHING, metavar="METRIC")] = "loss"
    """What chooses the point of every run that is kept, and is compared beside the loss: loss, or a metric of generated
    answers: exact_match, f1, rouge_l, or package.module:function of two lists of texts."""

    @model_validator(mode="after")
    def _check_distinct(self) -> ComparisonSpec:
        titles = [method.title for method in self.methods]
        if repeated := sorted({title for title in titles if titles.count(title) > 1}):
            raise ValueError(f"every method must have its own name, found {repeated} more than once: set `name`")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` must all be different, found {list(self.seeds)}")
        return self


def merge_training(recipe: Recipe, entry: MethodSpec, common: dict[str, Any]) -> TrainingSpec:
    """Merge a method's settings, without the learning rates by part that its recipe sets.

    From weakest to strongest: the recipe's ``defaults``, the common settings, the recipe's ``training``, the entry's.
    Raises `ConfigError` for a wrong field.
    """
    values = {**recipe.defaults, **common, **recipe.training, **entry.training}
    return TrainingSpec.parse(values, f"method `{entry.title}`")


def build_training(recipe: Recipe, entry: MethodSpec, common: dict[str, Any], parts: tuple[str, ...]) -> TrainingSpec:
    """The training settings of a method: those of `merge_training` with learning rates by part.

    Raises `ConfigError` if the entry names a part that the model does not have (``parts``), or if a field is wrong.
    """
    training = merge_training(recipe, entry, common)
    if unknown := sorted(set(entry.rate_factors or {}) - set(parts)):
        raise ConfigError(
            f"method `{entry.title}`: `rate_factors` must name parts of the model, which are {list(parts)}; "
            f"found {unknown}. Rename or remove these."
        )
    factors = recipe.rate_factors if entry.rate_factors is None else entry.rate_factors
    rates = {part: factor * training.learning_rate for part, factor in factors.items() if part in parts}
    return training.model_copy(update={"part_learning_rates": {**rates, **training.part_learning_rates}})


class MethodRun(Record):
    """One run of a comparison: one method with one seed."""

    seed: int
    result: FinalResult | None = None
    error: str = ""
    """Why the run has no result; empty if it has one."""


class MethodSummary(Record):
    """One method with all its results. Intervals are Student's over seeds; with one seed they are NaN."""

    name: str
    recipe: str
    summary: str = ""
    """The method in one line."""
    source: str = ""
    error: str = ""
    """Why the method could not be planned, so that it has no runs; empty if it could."""
    training: TrainingSpec | None = None
    allocation: Allocation | None = None
    examples: int = 0
    """Examples of one run."""
    num_planned: int = 0
    """Trainable parameters, counted before training."""
    flops_per_row: float | None = None
    """Floating-point operations of training on one row; None unless compute is made equal."""
    runs: tuple[MethodRun, ...] = ()
    validation_loss: Interval | None = None
    validation_accuracy: Interval | None = None
    test_loss: Interval | None = None
    test_accuracy: Interval | None = None
    difference: Interval | None = None
    """Its loss minus the reference's, paired by seed; None for the reference itself."""
    answer_metric: Interval | None = None
    """The metric of generated answers on the split of the comparison; None if the loss decided."""
    answer_metric_difference: Interval | None = None
    """Its metric minus the reference's, paired by seed; None for the reference itself, and if the loss decided."""
    cost: Cost | None = None
    """The mean cost of its runs; the peak of memory is the largest of all runs."""

    @property
    def results(self) -> dict[int, FinalResult]:
        """The results of its runs, by seed."""
        return {run.seed: run.result for run in self.runs if run.result is not None}

    @property
    def num_trainable(self) -> int:
        """Trainable parameters as counted by the runs; as planned if no run has ended."""
        return max((result.num_trainable for result in self.results.values()), default=self.num_planned)


class Comparison(Record):
    """The result of a comparison, as `compare.json` holds it."""

    schema_version: Literal[1] = 1
    model: str
    architecture: str
    device: str = ""
    versions: dict[str, str] = {}
    equal: Equal
    seeds: tuple[int, ...]
    metric: Literal["test_loss", "validation_loss"]
    """The loss by which methods are ordered and compared."""
    answer_metric: str | None = None
    """The metric of generated answers that chose the points that were kept; None if the loss did."""
    loss_correlation: float | None = None
    """Spearman's rank correlation between loss and metric over all finished runs; -1 if both order them alike. None
    without a metric, for fewer than three runs, or if one of both is the same for all."""
    full_examples: int
    """Examples of one run of the reference."""
    base_validation_loss: float | None = None
    base_test_loss: float | None = None
    methods: tuple[MethodSummary, ...]
    """The reference first."""

    def __repr__(self) -> str:
        losses = [f"{each.name} {loss.value:.4f}" for each in self.ordered() if (loss := self.loss(each))]
        return f"Comparison(of {self.architecture} by {self.metric}: {', '.join(losses) or 'no results'})"

    @property
    def reference(self) -> MethodSummary:
        """The method that the others are compared with."""
        return self.methods[0]

    def loss(self, method: MethodSummary) -> Interval | None:
        """A method's loss by the comparison's ``metric``; None if it has no results."""
        return method.test_loss if self.metric == "test_loss" else method.validation_loss

    def ordered(self) -> list[MethodSummary]:
        """The methods in order of their loss, lowest first; those without a loss come last, in the spec's order."""
        return sorted(self.methods, key=lambda each: one.value if (one := self.loss(each)) else float("inf"))
