"""What a user asks for (`StudySpec`) and what travels to the training wing (`PackSpec`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from marslora.core.allocation import Allocation, Space
from marslora.core.parts import ModelInfo
from marslora.core.record import Record

PACKED_ADAPTERS = ("lora",)
"""The adapters of this package whose runs can share one model while ranks are compared."""
LORA_VARIANTS = ("use_rslora", "use_dora")
"""Options of the adapter `lora`, named as in `peft.LoraConfig`."""


BYTES_PER_PARAMETER = 16
"""Of training: a weight, its gradient and AdamW's two moments in float32."""


class PluginSpec(Record):
    """A kind by name with its options, e.g. ``{"name": "adamw", "options": {"betas": [0.9, 0.99]}}``, or its name."""

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class ModelSpec(Record):
    """Where the model is and how it is loaded."""

    path: str
    """A folder that `from_pretrained` reads, a hub name, or ``memory:NAME`` for a model held by this process."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """``auto``: bfloat16 where the device has it in hardware, float32 otherwise."""
    device: str = "auto"
    trust_remote_code: bool = False
    targets: str | None = None
    """A regular expression: only linears whose whole path matches it are adapted. None: every linear of a part."""
    experts: bool = False
    """Whether experts whose weights are stacked in one parameter are adapted too, each with its part's rank."""


class DataSpec(Record):
    """Where the examples are and how they are split."""

    train: tuple[str, ...]
    """Files (.jsonl, .json, .csv, .parquet), folders (of `datasets`, of pictures with a metadata file, of such files),
    ``FOLDER#NAME`` of a LLaMA-Factory dataset_info.json, or ``memory:NAME``."""
    validation: tuple[str, ...] = ()
    """Held-out rows for every decision; empty: ``validation_share`` of the training rows is split off."""
    test: tuple[str, ...] = ()
    """Rows that nothing looks at before the final report."""
    validation_share: float = Field(0.1, gt=0, lt=1)
    image_folder: str | None = None
    """The folder that relative image paths start from; None: the folder of the data file."""
    max_examples: int | None = Field(None, gt=0)
    max_validation: int = Field(256, gt=0)
    """At most so many validation rows are used for a measurement."""
    max_length: int | None = Field(None, gt=0)
    """Longer rows are refused (never cut: a cut could remove image tokens)."""
    max_bad_share: float = Field(0.01, ge=0, le=1)
    """A larger share of unusable rows stops the study; a smaller one is skipped and counted."""
    seed: int = 0

    @field_validator("train", "validation", "test", mode="before")
    @classmethod
    def _one_file(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class ObjectiveSpec(Record):
    """One of several things the final run is trained for; the gradient of each is computed apart.

    Exactly one of ``rows``, ``output`` and ``function`` says where its loss comes from.
    """

    name: str
    """As it appears in logs and pictures."""
    rows: str | None = None
    """The answer loss of some rows: ``all``, ``text`` (without pictures and sounds), ``pictures``, ``sounds``, or
    ``COLUMN=VALUE``.
    Every training row belongs to one such objective; together their losses are the ordinary one."""
    output: str | None = None
    """A scalar that the model returns by this name, e.g. ``image_loss``; None there: absent from the batch."""
    function: str | None = None
    """``package.module:name``, called with (model outputs, batch); a scalar, or None where absent from the batch."""
    weight: float = Field(1.0, gt=0)
    """Factor on the loss."""

    @model_validator(mode="after")
    def _one_source(self) -> ObjectiveSpec:
        if sum(source is not None for source in (self.rows, self.output, self.function)) != 1:
            raise ValueError("exactly one of `rows`, `output` and `function` must be given")
        return self


class TrainingSpec(Record):
    """How every run is trained. A *full run* sees ``examples`` examples."""

    examples: int | None = Field(None, gt=0)
    """Examples seen by one full run; None: ``epochs`` passes over the training rows."""
    epochs: float = Field(3.0, gt=0, allow_inf_nan=False)
    batch_size: int = Field(16, gt=0)
    accumulation: int = Field(1, gt=0)
    """Micro-batches a step; a step sees ``batch_size`` examples in all."""
    learning_rate: float = Field(2e-4, gt=0, allow_inf_nan=False)
    part_learning_rates: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    """Learning rates of single parts, where they differ."""
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of a full run over which the learning rate rises; then it is constant."""
    decay: float = Field(0.2, ge=0, lt=1)
    """Share of a full run, at its end, over which the final run's learning rate falls linearly to 0."""
    clip_norm: float = Field(1.0, ge=0)
    """Largest gradient norm of a member, over all its parameters; 0: no clipping."""
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    dropout: float = Field(0.0, ge=0, lt=1)
    alpha_over_rank: float = Field(2.0, gt=0, allow_inf_nan=False)
    """The scale of an adapter, the same at every rank; with rsLoRA that of rank 16 (see `marslora.core.patterns`)."""
    full: tuple[str, ...] = ()
    """Parts that are trained whole instead of by LoRA (typically the projector)."""
    optimizer: PluginSpec = PluginSpec(name="adamw")
    adapter: PluginSpec = PluginSpec(name="lora")
    gradient_checkpointing: bool = False
    evaluations: int = Field(12, gt=1)
    """Validation points of a full run, even in the logarithm of the examples seen; in the final run so many are even in
    the examples themselves, and others come before."""
    keep: Literal["best", "last"] = "best"
    """Which point the final run hands back: that of lowest validation loss among its ``evaluations``, or its end."""
    objectives: tuple[ObjectiveSpec, ...] = ()
    """What the final run is trained for, where that is more than the loss of all answers; at least two."""
    gradients: PluginSpec = PluginSpec(name="sum")
    """How the objectives' gradients become one; their order is that of ``objectives``."""

    @model_validator(mode="after")
    def _several_objectives(self) -> TrainingSpec:
        names = [objective.name for objective in self.objectives]
        if len(names) == 1 or len(set(names)) < len(names):
            raise ValueError(f"`objectives` must be none, or at least two with names of their own, found {names}")
        if not names and self.gradients != PluginSpec(name="sum"):
            raise ValueError(f"`gradients` {self.gradients.name} needs at least two `objectives`")
        return self

    @model_serializer(mode="wrap")
    def _without_later_fields(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came later and is not set is not written, so that such a study has the digest it had before."""
        values: dict[str, Any] = serialize(self)
        later = {"objectives": not self.objectives, "gradients": not self.objectives, "keep": self.keep == "best"}
        return {key: value for key, value in values.items() if not later.get(key)}

    @model_validator(mode="after")
    def _check_adapter(self) -> TrainingSpec:
        options = self.adapter.options if self.adapter.name == "lora" else {}
        if unknown := {
            key: value for key, value in options.items() if key not in LORA_VARIANTS or value not in (True, False)
        }:
            raise ValueError(f"options of the adapter `lora` are {list(LORA_VARIANTS)}, true or false; found {unknown}")
        return self

    def rate_of(self, part: str, run_rate: float | None = None) -> float:
        """The learning rate of a part; a run with a learning rate of its own keeps the ratios of the parts."""
        rate = self.part_learning_rates.get(part, self.learning_rate)
        return rate if run_rate is None else rate * run_rate / self.learning_rate

    @property
    def use_dora(self) -> bool:
        """Whether rows have trained lengths."""
        return self.lora_variant.get("use_dora", False)

    @property
    def lora_variant(self) -> dict[str, bool]:
        """The options of a `lora` adapter as `marslora.core.patterns.lora_config_dict` takes them."""
        return (
            {key: bool(self.adapter.options.get(key)) for key in LORA_VARIANTS} if self.adapter.name == "lora" else {}
        )


class SearchSpec(Record):
    """How allocations are compared."""

    strategy: PluginSpec = PluginSpec(name="mars")
    budget: float | None = Field(None, gt=0)
    """Most run equivalents spent before the final run; None: what the strategy needs."""
    seed: int = 0
    adapter: PluginSpec | None = None
    """What calibration runs train; None: the adapter of the final run."""
    max_parameters: int | None = Field(None, gt=0)
    """Allocations with more trainable parameters, those of parts trained whole included, are not candidates."""
    max_memory: ByteSize | None = Field(None, gt=0)
    """The same in bytes (``500MB``, ``2GiB``) of training memory that grows with rank, `BYTES_PER_PARAMETER` each."""
    max_rank: int | None = Field(None, gt=0)
    """The largest rank of any part, such as vLLM's ``max_lora_rank``."""

    @property
    def most_parameters(self) -> int | None:
        """The tighter of ``max_parameters`` and ``max_memory``, as trainable parameters."""
        by_memory = None if self.max_memory is None else self.max_memory // BYTES_PER_PARAMETER
        return min((most for most in (self.max_parameters, by_memory) if most is not None), default=None)

    @model_serializer(mode="wrap")
    def _without_later_fields(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came later and is not set is not written, so that such a study has the digest it had before."""
        values: dict[str, Any] = serialize(self)
        later = ("adapter", "max_parameters", "max_memory", "max_rank")
        return {key: value for key, value in values.items() if key not in later or value is not None}


class StudySpec(Record):
    """Everything that defines a study. Its digest names it: another spec is another study."""

    model: ModelSpec
    data: DataSpec
    space: Space
    training: TrainingSpec = TrainingSpec()
    search: SearchSpec = SearchSpec()

    @property
    def calibration(self) -> TrainingSpec:
        """How calibration runs are trained."""
        adapter = self.search.adapter
        return self.training if adapter is None else self.training.model_copy(update={"adapter": adapter})

    schema_version: Literal[1] = 1

    @model_validator(mode="after")
    def _check_max_rank(self) -> StudySpec:
        most = self.search.max_rank
        if most and (above := {part: list(ladder) for part, ladder in self.space.ladders if ladder[-1] > most}):
            raise ValueError(f"`max_rank` is {most}, but the space has the ranks {above}")
        return self

    @model_validator(mode="after")
    def _check_experts(self) -> StudySpec:
        training = self.training
        is_plain = training.adapter.name == "lora" and not training.lora_variant["use_dora"]
        if self.model.experts and (training.dropout or not is_plain):
            raise ValueError("`experts` can be adapted by `lora` without dropout and DoRA alone: PEFT can do no more")
        if self.model.experts and training.optimizer.name != "adamw":
            raise ValueError(f"`experts` are trained by adamw, found the optimizer `{training.optimizer.name}`")
        return self


class MemberSpec(Record):
    """One run: an allocation, the rows it may see, and how far it goes. Members of a pack share their batches."""

    id: str
    """Unique in the study and stable, e.g. ``language=8.d500.s0``; the name of its checkpoint folder."""
    allocation: Allocation
    data_examples: int
    """D: the run cycles through the first D rows of the nested order."""
    until_examples: int
    """The run stops when it has seen so many examples."""
    seed: int = 0
    """Initialisation and dropout."""
    order_seed: int = 0
    """Order of the batches; members of one pack have the same."""
    learning_rate: float | None = None
    alpha_over_rank: float | None = None
    dropout: float | None = None
    decays: bool = False
    """The learning rate falls over the last `TrainingSpec.decay` of a full run, as that of a final run does."""
    purpose: str = ""
    """Why the strategy asked for it, e.g. ``convergence of language``; for reports and for grouping fits."""


class PackSpec(Record):
    """Members that train together on one frozen base: all that crosses to the training wing."""

    id: str
    model: ModelSpec
    data: DataSpec
    training: TrainingSpec
    full_examples: int
    """Examples of a full run, from which warm-up and evaluation points follow."""
    members: tuple[MemberSpec, ...]
    checkpoint_folder: str
    """Members' checkpoints live in ``checkpoint_folder/<member id>``; a member found there is continued."""
    cache_folder: str
    """Where preprocessed rows are kept."""
    max_bytes: int | None = Field(None, gt=0)
    """Memory that members may take together, beside the base; None: most of what is free."""


class FinalSpec(Record):
    """The final run: one allocation, trained with `transformers.Trainer` and PEFT."""

    model: ModelSpec
    data: DataSpec
    training: TrainingSpec
    allocation: Allocation
    module_ranks: dict[str, int]
    """Rank of every adapted linear, by module path."""
    full_modules: tuple[str, ...] = ()
    """Module paths that are trained whole."""
    stacked: tuple[str, ...] = ()
    """Those of ``module_ranks`` that are parameters in which experts are stacked."""
    full_examples: int
    start_folder: str | None = None
    """A member's checkpoint that the run continues; its examples count as already seen."""
    output_folder: str
    """Trainer checkpoints go to ``output_folder/checkpoints``, the adapter to ``output_folder/adapter``."""
    cache_folder: str
    seed: int = 0
    """Initialisation and dropout."""
    order_seed: int = 0
    """Order of the batches: that of the run in ``start_folder``, so that its rows come first."""
    report_to: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """What tells it from the other runs of a comparison."""
        return self.output_folder


class CountSpec(Record):
    """The trainable parameters of one method at several allocations are asked for."""

    run: FinalSpec
    """The method; its own ranks are not looked at."""
    info: ModelInfo
    allocations: tuple[Allocation, ...]

    @property
    def id(self) -> str:
        """That of the run."""
        return self.run.id


class TrackerSpec(Record):
    """Trackers of the final run, looked at before anything is paid for."""

    names: tuple[str, ...]
    """As `transformers` calls them."""


class PrepareSpec(Record):
    """What is looked at before anything is trained: the model's parts and every row of data."""

    model: ModelSpec
    data: DataSpec
    optimizer: PluginSpec = PluginSpec(name="adamw")
    """Looked at first, so that a wrong option is said before anything is read."""
    batch_size: int
    cache_folder: str
