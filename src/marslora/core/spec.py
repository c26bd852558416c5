"""What a user asks for (`StudySpec`) and the specs of the work that executors run (`PackSpec`, `FinalSpec`, ...).

How runs are trained and where rows are have files of their own, `marslora.core.training` and `marslora.core.data_spec`;
all specs can be imported from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, field_validator, model_validator

from marslora.core.allocation import Allocation, Space
from marslora.core.data_spec import MAX_FRAMES as MAX_FRAMES
from marslora.core.data_spec import MAX_PIXELS as MAX_PIXELS
from marslora.core.data_spec import DataSpec as DataSpec
from marslora.core.options import INPUT, RUNNING, SEARCHING, Option, OptionRecord
from marslora.core.parts import ModelInfo
from marslora.core.record import Record
from marslora.core.seeds import LARGEST_SEED
from marslora.core.setting import PartRates, Setting
from marslora.core.training import ObjectiveSpec as ObjectiveSpec
from marslora.core.training import PluginSpec as PluginSpec
from marslora.core.training import TrainingSettings as TrainingSettings
from marslora.core.training import TrainingSpec as TrainingSpec

MAX_VALIDATION_SHARE = 0.15
"""Largest share of a run's operations that validation may take where it is kept low; a convention."""
VALIDATION_WORK = 0.5
"""Operations of validating on a row, in those of training on it: a forward pass alone, where training also goes
backward through the frozen weights, which takes as many operations. Gradients of adapters come on top and are small."""
BYTES_PER_PARAMETER = 16
"""Training memory of one parameter: a weight, its gradient and AdamW's two moments, each in float32."""
SCHEMA_VERSION: Literal[3] = 3
"""Version of ``spec.json``: it grows by one whenever study folders of the version before cannot be read any more."""


class ModelSpec(OptionRecord):
    """Where the model is and how it is loaded."""

    path: Annotated[
        str,
        Option(
            INPUT,
            name="model",
            short="-m",
            metavar="MODEL",
            type=Any,
            hint="Give a model folder or a hub name, or try `marslora demo` or `marslora compare --demo both`.",
            other_names=("model_path", "model_id", "base_model", "model_name_or_path"),
        ),
    ]
    """Model folder or hub name; in Python also a model in memory, together with ``processor``."""
    targets: Annotated[
        str | None, Option(INPUT, metavar="REGEX", other_names=("target_modules", "lora_target", "lora_target_modules"))
    ] = None
    """Adapt only those linear layers whose whole path matches this regular expression. Default: all of each part."""
    experts: Annotated[bool, Option(INPUT)] = False
    """Also adapt experts whose weights are stacked in one parameter, each expert with the rank of its part."""
    trust_remote_code: Annotated[bool, Option(INPUT)] = False
    """Run the Python code that comes with the model, as `from_pretrained` does. Only for sources that you trust."""
    device: Annotated[str, Option(RUNNING)] = "auto"
    """Device to use, such as ``cpu`` or ``cuda:1``; ``auto`` takes the GPU if there is one."""
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Option(RUNNING, other_names=("precision", "torch_dtype", "bf16", "fp16")),
    ] = "auto"
    """Number format of the frozen model; ``auto`` is bfloat16 on a GPU that has it in hardware, otherwise float32."""
    attention: Annotated[
        Literal["auto", "sdpa", "flash_attention_2", "eager"],
        Option(RUNNING, other_names=("attn_implementation", "attn_impl", "flash_attn")),
    ] = "auto"
    """Kernel that computes attention; ``auto`` is what `transformers` chooses for the model, mostly sdpa."""
    quantize: Annotated[
        Literal["nf4", "int8"] | None, Option(RUNNING, other_names=("load_in_4bit", "load_in_8bit", "quantization_bit"))
    ] = None
    """Hold the language model's linears in 4 or 8 bits; needs marslora[quantize]. Default: as the model was saved."""

    def without_place(self) -> ModelSpec:
        """The same without saying where it is."""
        return self.model_copy(update={"path": ""})


class SearchSpec(OptionRecord):
    """How allocations are compared."""

    strategy: Annotated[
        PluginSpec,
        Option(SEARCHING, metavar="STRATEGY"),
        Option(
            SEARCHING,
            name="sweep",
            key="sweep",
            type=float,
            help="After the search, also train the chosen ranks and their neighbours for this share of a full run, on "
            "top of the budget. An option of the strategy `mars`.",
        ),
    ] = PluginSpec(name="mars")
    """Search strategy: mars, grid, uniform, ... (see `marslora list`), with options as in mars:sweep=0.25."""
    budget: Annotated[
        float | None,
        Field(gt=0),
        Option(SEARCHING, metavar="BUDGET", type=float | str, other_names=("trials", "n_trials", "timeout")),
    ] = None
    """Full runs to spend on calibration before the final run, e.g. 0.5. A time (30m, 2h) or a number of operations
    (1e15flops) is a limit that no round may exceed; several are joined as in 0.5,30m. Default: the strategy decides."""
    max_parameters: Annotated[int | None, Field(gt=0), Option(SEARCHING)] = None
    """Upper limit on trainable parameters, those of parts trained whole included. Default: no limit."""
    max_memory: Annotated[ByteSize | None, Field(gt=0), Option(SEARCHING, metavar="BYTES", type=int | str)] = None
    """Upper limit on the memory of trained parameters, their gradients and the optimizer's state, e.g. 500MB or 2GiB;
    16 bytes for each parameter. The model and its activations come on top (see `marslora inspect`). Default: none."""
    max_rank: Annotated[int | None, Field(gt=0), Option(SEARCHING)] = None
    """Largest rank of any part, such as vLLM's max_lora_rank. Default: no limit."""
    adapter: Annotated[PluginSpec | None, Option(SEARCHING, name="calibration_adapter", metavar="ADAPTER")] = None
    """What is trained while ranks are compared, typically lora. Default: the adapter of the final run."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED), Option(SEARCHING)] = 0
    """Seed of initialisation, order of the rows and bootstrap."""

    @field_validator("strategy", mode="before")
    @classmethod
    def _name_strategy(cls, value: Any) -> Any:
        is_nameless = isinstance(value, Mapping) and "name" not in value
        return {**value, "name": cls.model_fields["strategy"].default.name} if is_nameless else value

    @property
    def most_parameters(self) -> int | None:
        """The tighter of ``max_parameters`` and ``max_memory``, as trainable parameters."""
        by_memory = None if self.max_memory is None else self.max_memory // BYTES_PER_PARAMETER
        return min((most for most in (self.max_parameters, by_memory) if most is not None), default=None)


class StudySpec(Record):
    """Everything that defines a study. Its digest names it: another spec is another study."""

    schema_version: Literal[3] = SCHEMA_VERSION
    model: ModelSpec
    data: DataSpec
    space: Space
    training: TrainingSpec = TrainingSpec()
    """Its learning rate is the middle one of ``learning_rates`` if these are searched."""
    learning_rates: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()
    """Learning rates that may be chosen, increasing; with one, or none, the learning rate is not searched."""
    part_rate_factors: dict[str, tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]] = {}
    """The parts whose learning rate is searched apart: the factors on that of the others which may be chosen."""
    search: SearchSpec = SearchSpec()

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """The parts that are trained in some candidate, whole ones included, if a gradient reaches them."""
        return (*self.training.full, *(part for part, ladder in self.space.ladders if any(ladder)))

    @property
    def calibration(self) -> TrainingSpec:
        """How calibration runs are trained."""
        adapter = self.search.adapter
        return self.training if adapter is None else self.training.model_copy(update={"adapter": adapter})

    def without_place(self) -> StudySpec:
        """The same without saying where model and rows are: what a study is, together with what these hold."""
        return self.model_copy(update={"model": self.model.without_place(), "data": self.data.without_place()})

    @model_validator(mode="after")
    def _check_max_rank(self) -> StudySpec:
        most = self.search.max_rank
        if most and (above := {part: list(ladder) for part, ladder in self.space.ladders if ladder[-1] > most}):
            raise ValueError(
                f"no rank may be above `max_rank` = {most}, found {above}: raise it or leave these ranks out"
            )
        return self

    @model_validator(mode="after")
    def _check_rates(self) -> StudySpec:
        if list(self.learning_rates) != sorted(set(self.learning_rates)):
            raise ValueError(f"`learning_rates` must increase without repeats, found {list(self.learning_rates)}")
        return self

    @model_validator(mode="after")
    def _check_experts(self) -> StudySpec:
        if self.model.experts and self.training.optimizer.name != "adamw":
            raise ValueError(f"`experts` need the optimizer adamw, found `{self.training.optimizer.name}`")
        return self


class MemberSpec(Record):
    """One run: an allocation, the rows it may see, and how far it goes. Members of a pack share their batches."""

    id: str
    """Unique in the study and stable, e.g. ``language=8.d500.s0``; the name of its checkpoint folder."""
    allocation: Allocation
    data_examples: int
    """D: the run cycles through the first D rows of the nested order."""
    until_examples: int
    """The run stops once it has seen this many examples."""
    seed: int = 0
    """Seed of initialisation and dropout."""
    order_seed: int = 0
    """Seed of the order of the batches; members of one pack have the same."""
    learning_rate: float | None = None
    """Learning rate of this run; None: that of the training spec."""
    part_learning_rates: PartRates = ()
    """Learning rates of single parts in this run, which override all others."""
    alpha_over_rank: float | None = None
    """Scale of this run's adapters; None: that of the training spec."""
    dropout: float | None = None
    """Dropout of this run; None: that of the training spec."""
    validations: Literal["regular", "end", "few"] = "regular"
    """When it is validated: at the regular points of a full run and at its end, at its end alone, or at those regular
    points at which all validations so far take at most `MAX_VALIDATION_SHARE` of the operations."""
    decays: bool = False
    """Whether the learning rate falls over the last `TrainingSpec.decay` of a full run, as that of a final run does."""
    purpose: str = ""
    """Why the strategy asked for it, e.g. ``convergence of language``; for reports and for grouping fits."""

    @property
    def setting(self) -> Setting:
        """The ranks and learning rates that it trains with, as a search compares them."""
        return Setting(
            allocation=self.allocation,
            learning_rate=self.learning_rate,
            part_learning_rates=self.part_learning_rates,
        )

    def rate_of(self, part: str, training: TrainingSpec) -> float:
        """The learning rate of ``part`` in this run, where ``training`` says how all runs are trained."""
        own = dict(self.part_learning_rates).get(part)
        return training.rate_of(part, self.learning_rate) if own is None else own


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
    """Memory that members may take together, on top of the base; None: most of what is free."""


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
    token_indices: dict[str, tuple[int, ...]] = {}
    """The tokens whose rows are trained, by the path of the embedding or head."""
    full_examples: int
    start_folder: str | None = None
    """A member's checkpoint that the run continues; its examples count as already seen."""
    output_folder: str
    """Trainer checkpoints go to ``output_folder/checkpoints``, the adapter to ``output_folder/adapter``."""
    cache_folder: str
    seed: int = 0
    """Seed of initialisation and dropout."""
    order_seed: int = 0
    """Seed of the order of the batches: that of the run in ``start_folder``, so that its rows come first."""
    report_to: tuple[str, ...] = ()
    metric: str = "loss"
    """What chooses the point that is kept: the loss, or a metric of generated answers, of which more is better."""

    @property
    def id(self) -> str:
        """What distinguishes it from the other runs of a comparison."""
        return self.output_folder

    def inputs_digest(self) -> str:
        """Return a digest of everything that the adapter depends on in its study, whose model and rows never change.

        Folders and trackers do not belong to it.
        """
        started = Path(self.start_folder).name if self.start_folder else None
        elsewhere: dict[str, Any] = {"output_folder": "", "cache_folder": "", "report_to": (), "start_folder": started}
        elsewhere |= {"model": self.model.without_place(), "data": self.data.without_place()}
        if self.training.micro_batch == "auto":  # how many there are depends on what is free
            elsewhere["training"] = self.training.model_copy(update={"accumulation": 1})
        return self.model_copy(update=elsewhere).digest()


class CountSpec(Record):
    """A request for the trainable parameters of one method at several allocations."""

    run: FinalSpec
    """The method; its own ranks are ignored."""
    info: ModelInfo
    allocations: tuple[Allocation, ...]

    @property
    def id(self) -> str:
        """The id of the run."""
        return self.run.id


class RowsSpec(Record):
    """A request for the rows of a study in the layouts of other tools."""

    data: DataSpec
    folders: tuple[tuple[str, str], ...]
    """(folder, layout) of every tool, as `marslora.data.export` names layouts."""
    media_folder: str
    """Where pictures and sounds go that rows hold as bytes."""


class TrackerSpec(Record):
    """Trackers of the final run, checked before any compute is spent."""

    names: tuple[str, ...]
    """Names of the trackers, as `transformers` calls them."""


class PrepareSpec(Record):
    """What is read before anything is trained: the model's parts and every row of data."""

    model: ModelSpec
    data: DataSpec
    optimizer: PluginSpec = PluginSpec(name="adamw")
    """Checked first, so that a wrong option is reported before any data is read."""
    batch_size: int
    token_indices: tuple[int, ...] = ()
    """Tokens whose embeddings will be trained, about which no warning is needed."""
    cache_folder: str
