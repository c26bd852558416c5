"""How runs are trained: the plugins, the objectives and the numbers that a user may set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from marslora.core.options import TRAINING, Option, OptionRecord
from marslora.core.rates import AUTO, PartRate, RateChoice, read_part_rates, read_rates
from marslora.core.record import Record
from marslora.core.words import BLANK, is_blank, read_numbers, read_options, read_pairs, read_plugin, write_value

LORA_VARIANTS = ("use_rslora", "use_dora")
"""Options that mean what they mean in `peft.LoraConfig`, in every adapter that has an option of such a name."""


MOST_EXAMPLES = 10**12
"""The longest run that is accepted. A guard against typing errors: more than any model was ever trained on."""
ROW_GROUPS = ("all", "text", "pictures", "sounds", "videos")
"""The groups of rows that an objective may name: all, those without pictures and sounds, those with either."""


def read_lora_variant(options: Mapping[str, Any]) -> dict[str, bool]:
    """The options of an adapter that `marslora.core.patterns.lora_config_dict` takes; False where one is absent."""
    return {name: bool(options.get(name)) for name in LORA_VARIANTS}


def _to_plain(value: Any) -> Any:
    """An option as JSON has it, in one form, so that equal options have equal digests: 1 for 1.0, lists for tuples."""
    if isinstance(value, list | tuple):
        return [_to_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_names(value: Any) -> Any:
    """One text or several as a tuple; anything else as it is."""
    return (value,) if isinstance(value, str) else value


def read_indices(value: Any) -> Any:
    """One number or several, or texts such as ``"3,4"``, as a tuple without repeats, in increasing order."""
    values = (value,) if isinstance(value, int | str) else value
    if not isinstance(values, Sequence):
        return value
    numbers: list[Any] = []
    for each in values:
        numbers += read_numbers(each, "ids such as 32000,32001") if isinstance(each, str) else (each,)
    return tuple(sorted(set(numbers)) if all(isinstance(each, int) for each in numbers) else numbers)


def read_files(value: Any) -> Any:
    """One file or several as a tuple. Raises `ValueError` for an empty name, which would be the current folder."""
    if is_blank(value):
        raise ValueError(BLANK)
    return read_names(value)


Files = Annotated[tuple[str, ...], BeforeValidator(read_files)]
"""One file or several."""


def _read_rates(value: Any) -> Any:
    is_words = isinstance(value, Sequence) and not isinstance(value, str)
    return read_pairs(value, "vision=1e-4") if is_words else value


class PluginSpec(Record):
    """A plugin with its options: ``{"name": "mars", "options": {"sweep": 0.25}}``, in words ``mars:sweep=0.25``."""

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        fields = read_plugin(value) if isinstance(value, str) else value
        if isinstance(fields, Mapping) and isinstance(fields.get("options"), Mapping):
            return {**fields, "options": {name: _to_plain(each) for name, each in fields["options"].items()}}
        return fields

    def __str__(self) -> str:
        options = ",".join(f"{name}={write_value(value)}" for name, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name


class ObjectiveSpec(Record):
    """One of several things the final run is trained for; the gradient of each is computed apart.

    Exactly one of ``rows``, ``output`` and ``function`` says where its loss comes from. In words: ``NAME:rows=text``.
    """

    name: str
    """As it appears in logs and figures."""
    rows: str | None = None
    """The answer loss of some rows: ``all``, ``text`` (without media), ``pictures``, ``sounds``, ``videos``, or
    ``COLUMN=VALUE``.
    Every training row belongs to one such objective; together their losses are the ordinary one."""
    output: str | None = None
    """A scalar that the model returns by this name, such as ``image_loss``; None: it is absent from the batch."""
    function: str | None = None
    """``package.module:name``, called with (model outputs, batch): a scalar, or None if absent from the batch."""
    weight: float = Field(1.0, gt=0)
    """Factor on the loss."""

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, _, options = value.partition(":")
        return {"name": name, **read_options(options)}

    @model_validator(mode="after")
    def _check_source(self) -> ObjectiveSpec:
        sources = {name: getattr(self, name) for name in ("rows", "output", "function")}
        if sum(source is not None for source in sources.values()) != 1:
            raise ValueError(f"exactly one of `rows`, `output` and `function` must be given, found {sources}")
        if self.rows is not None and self.rows not in ROW_GROUPS and "=" not in self.rows:
            raise ValueError(f"`rows` must be one of {list(ROW_GROUPS)} or COLUMN=VALUE, found {self.rows!r}")
        if self.function is not None and not re.fullmatch(r"[\w.]+:\w+", self.function):
            raise ValueError(f"`function` must look like package.module:name, found {self.function!r}")
        return self


class TrainingSettings(OptionRecord):
    """How every run of a search is trained, as a user says it. A *full run* sees ``examples`` examples."""

    examples: Annotated[
        int | None, Field(gt=0, le=MOST_EXAMPLES), Option(TRAINING, other_names=("max_steps", "steps", "samples"))
    ] = None
    """Length of a full run in examples seen. Default: as many as ``epochs`` says."""
    epochs: Annotated[
        float,
        Field(gt=0, allow_inf_nan=False),
        Option(TRAINING, other_names=("epoch", "num_epochs", "num_train_epochs")),
    ] = 3.0
    """Length of a full run in passes over the training rows."""
    batch_size: Annotated[
        int, Field(gt=0), Option(TRAINING, other_names=("batch", "train_batch_size", "per_device_train_batch_size"))
    ] = 16
    """Examples in a step."""
    group_by_length: Annotated[bool, Option(TRAINING)] = False
    """Make batches of rows of like length, among those of 32 steps: less padding, another order of rows."""
    accumulation: Annotated[
        int,
        Field(gt=0),
        Option(TRAINING, other_names=("gradient_accumulation", "gradient_accumulation_steps", "grad_accum")),
    ] = 1
    """Micro-batches in a step; together they hold ``batch_size`` examples."""
    micro_batch: Annotated[
        Annotated[int, Field(gt=0)] | Literal["auto"] | None,
        Option(TRAINING, metavar="ROWS", type=int | str, other_names=("micro_batch_size",)),
    ] = None
    """Rows of a micro-batch at most, which sets ``accumulation``; ``auto`` finds how many fit into memory. Calibration
    always splits its steps where they would not fit. Default: as ``accumulation`` says."""
    learning_rate: Annotated[
        RateChoice,
        PlainValidator(read_rates),
        Option(
            TRAINING,
            short="--lr",
            metavar="RATE",
            type=float | Sequence[float] | str,
            other_names=("rate", "rates", "learning_rates"),
        ),
    ] = AUTO
    """Learning rate of everything that is trained: a number, or a ladder to search (5e-4,1e-3,2e-3). ``auto`` searches
    the rate that suits the model's width and the optimizer, and a half, a quarter, twice and four times of it."""
    part_learning_rates: Annotated[
        Mapping[str, PartRate],
        PlainValidator(read_part_rates),
        Option(
            TRAINING,
            flag="--part-learning-rate",
            metavar="PART=RATE",
            type=Mapping[str, float | str],
            is_repeatable=True,
            other_names=("vision_lr", "vit_lr", "aligner_lr", "mm_projector_lr"),
        ),
    ] = {}
    """Learning rates of single parts, e.g. vision=1e-4; vision=auto searches a third, one and three times the rate of
    the others. Default: that of all parts."""
    warmup: Annotated[float, Field(ge=0, lt=1), Option(TRAINING, other_names=("warmup_ratio", "warmup_steps"))] = 0.03
    """Share of a full run over which the learning rate rises; then it is constant."""
    decay: Annotated[float, Field(ge=0, lt=1), Option(TRAINING)] = 0.2
    """Share of a full run, at its end, over which the learning rate of the final run falls linearly to 0."""
    clip_norm: Annotated[float, Field(ge=0), Option(TRAINING, other_names=("max_grad_norm", "max_norm"))] = 1.0
    """Largest gradient norm of a run, over all its parameters; 0 switches clipping off."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False), Option(TRAINING)] = 0.0
    """Weight decay of the optimizer."""
    dropout: Annotated[float, Field(ge=0, lt=1), Option(TRAINING, other_names=("lora_dropout",))] = 0.0
    """Dropout on the inputs of the adapters."""
    alpha_over_rank: Annotated[
        float, Field(gt=0, allow_inf_nan=False), Option(TRAINING, other_names=("alpha", "lora_alpha"))
    ] = 2.0
    """Scale of an adapter, the same at every rank; with rsLoRA that of rank 16."""
    full: Annotated[
        tuple[str, ...],
        BeforeValidator(read_names),
        Option(TRAINING, metavar="PART", other_names=("modules_to_save", "lora_modules_to_save")),
    ] = ()
    """Part that is trained whole instead of by LoRA, typically the projector. Default: none."""
    trainable_token_indices: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        BeforeValidator(read_indices),
        Option(TRAINING, metavar="ID", is_repeatable=True, type=int | Sequence[int] | str),
    ] = ()
    """Ids of tokens whose embeddings are trained too, e.g. 32000,32001: new tokens, which LoRA would leave as they are.
    A head with weights of its own trains its rows of these tokens as well. Default: none."""
    optimizer: Annotated[PluginSpec, Option(TRAINING, metavar="OPTIMIZER", other_names=("optim",))] = PluginSpec(
        name="adamw"
    )
    """Optimizer (see `marslora list`), with options as in adamw:betas=[0.9,0.99]."""
    adapter: Annotated[PluginSpec, Option(TRAINING, metavar="ADAPTER")] = PluginSpec(name="lora")
    """Adapter or method that the final run trains (see `marslora list`), with options as in lora:use_rslora=true."""
    gradient_checkpointing: Annotated[bool, Option(TRAINING)] = False
    """Recompute activations: less memory for about a third more time."""
    evaluations: Annotated[int, Field(gt=1), Option(TRAINING)] = 12
    """Validation points of a full run, evenly spaced in the logarithm of the examples seen. The final run has as many
    evenly spaced in the examples themselves, and a few before them."""
    keep: Annotated[Literal["best", "last"], Option(TRAINING)] = "best"
    """Point of the final run whose adapter is kept: that of lowest validation loss, or the end."""
    patience: Annotated[int | None, Field(gt=0), Option(TRAINING, other_names=("early_stopping_patience",))] = None
    """End the final run after so many validations in a row without a new lowest loss. Default: train to the end."""
    objectives: Annotated[
        tuple[ObjectiveSpec, ...], Option(TRAINING, flag="--objective", metavar="NAME:rows=ROWS")
    ] = ()
    """At least two objectives of the final run, e.g. text:rows=text and images:rows=pictures,weight=2. Each has
    ``rows``, ``output`` or ``function``, and a ``weight``. Default: one, the loss of all answers."""
    gradients: Annotated[PluginSpec, Option(TRAINING, metavar="COMBINER")] = PluginSpec(name="sum")
    """How the gradients of the objectives become one (see `marslora list`)."""

    @model_validator(mode="after")
    def _check_objectives(self) -> TrainingSettings:
        names = [objective.name for objective in self.objectives]
        if len(names) == 1 or len(set(names)) < len(names):
            raise ValueError(f"`objectives` must be none, or at least two with different names, found {names}")
        if not names and self.gradients != PluginSpec(name="sum"):
            raise ValueError(f"`gradients` {self.gradients.name} needs at least two `objectives`, found none")
        return self

    @model_validator(mode="after")
    def _check_patience(self) -> TrainingSettings:
        if self.patience is not None and self.keep != "best":
            raise ValueError(f"`patience` {self.patience} needs `keep` best, found {self.keep}: leave one of them out")
        return self

    @model_validator(mode="after")
    def _check_adapter(self) -> TrainingSettings:
        options = self.adapter.options
        if wrong := {key: options[key] for key in LORA_VARIANTS if options.get(key, False) not in (True, False)}:
            raise ValueError(f"options {list(LORA_VARIANTS)} of an adapter must be true or false, found {wrong}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _count_micro_batches(cls, values: Any) -> Any:
        """A number of rows is a number of micro-batches, which is what everything else reads."""
        rows = str(values.get("micro_batch", "")) if isinstance(values, Mapping) else ""
        size = str(values.get("batch_size", cls.model_fields["batch_size"].default)) if rows.isdecimal() else ""
        if not size.isdecimal() or not int(rows):
            return values
        pieces = -(-int(size) // int(rows))
        if str(values.get("accumulation", pieces)) not in ("1", str(pieces)):
            raise ValueError(
                f"`micro_batch` {rows} makes {pieces} micro-batches of `batch_size` {size}, but `accumulation` is "
                f"{values['accumulation']}: leave one of them out"
            )
        return {**values, "accumulation": pieces}

    @model_validator(mode="after")
    def _check_lengths(self) -> TrainingSettings:
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"`accumulation` must be at most `batch_size` ({self.batch_size}), found {self.accumulation}: a "
                "micro-batch needs a row"
            )
        return self

    @property
    def use_dora(self) -> bool:
        """Whether the rows of adapted weights have trained lengths (DoRA)."""
        return self.lora_variant.get("use_dora", False)

    @property
    def lora_variant(self) -> dict[str, bool]:
        """The options of the adapter that `marslora.core.patterns.lora_config_dict` takes."""
        return read_lora_variant(self.adapter.options)


class TrainingSpec(TrainingSettings):
    """How a run is trained, its learning rates known."""

    learning_rate: Annotated[
        float, Field(gt=0, allow_inf_nan=False), Option(TRAINING, short="--lr", other_names=("rate",))
    ] = 2e-4
    """Learning rate of everything that is trained."""
    part_learning_rates: Annotated[
        dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]],
        BeforeValidator(_read_rates),
        Option(TRAINING, flag="--part-learning-rate", metavar="PART=RATE"),
    ] = {}
    """Learning rates of single parts, e.g. vision=1e-4. Default: that of all parts."""

    def rate_of(self, part: str, run_rate: float | None = None) -> float:
        """The learning rate of a part, in a run whose other parts have ``run_rate``; None: ``learning_rate``."""
        return self.part_learning_rates.get(part, self.learning_rate if run_rate is None else run_rate)
