"""The Python API: `search` does the whole way, `Decision` is what it found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marslora.core import patterns
from marslora.core.allocation import Allocation
from marslora.core.budget import Budget, Limit
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.ladders import DEFAULT_RANKS, RankLadders
from marslora.core.parts import ModelInfo
from marslora.core.runs import FinalResult
from marslora.core.spec import DataSpec, ModelSpec, StudySpec, TrainingSpec
from marslora.pipeline import Listener, Pipeline, Silent, full_modules
from marslora.settings import default_folder, describe_model, spec_from
from marslora.store.study import Study

if TYPE_CHECKING:
    from peft import LoraConfig

    from marslora.core.comparison import Comparison
    from marslora.executors import AbstractExecutor


@dataclass(frozen=True)
class Decision:
    """Which ranks, how sure, and where everything lies."""

    record: DecisionRecord
    """The decision with every candidate, law and reason, as in `decision.json`."""
    info: ModelInfo
    training: TrainingSpec
    folder: Path
    """The study folder."""
    final: FinalResult | None = None
    """How the final run ended; None if it was not asked for."""
    uniform: FinalResult | None = None
    """How the uniform baseline ended; None if it was not asked for, or the chosen ranks are uniform."""

    @property
    def chosen(self) -> Allocation:
        """The chosen rank of every part."""
        return self.record.chosen

    @property
    def probability(self) -> float | None:
        """P(best) of the chosen allocation; None where no law could say."""
        return self.record.candidate(self.chosen).p_best

    @property
    def adapter_folder(self) -> Path | None:
        """The trained adapter, which `attach` puts on a model; None if the final run was not asked for."""
        return Path(self.final.adapter_folder) if self.final else None

    @property
    def report(self) -> Path:
        """The study's page."""
        return self.folder / "report.html"

    def lora_config(self) -> LoraConfig:
        """The chosen allocation as a `peft.LoraConfig` with mutually exclusive patterns."""
        from peft import LoraConfig

        return LoraConfig(**self.lora_settings())

    def lora_settings(self) -> dict[str, Any]:
        """The keyword arguments of `lora_config`, as plain data."""
        full = full_modules(self.info, self.training)
        ranks = self.info.module_ranks(self.chosen)
        training = self.training
        stacked = self.info.stacked(self.chosen)
        return patterns.lora_config_dict(
            ranks, training.alpha_over_rank, full, training.dropout, stacked=stacked, **training.lora_variant
        )

    def __str__(self) -> str:
        return self.record.summary


def search(
    *,
    model: Any,
    train: Any,
    processor: Any = None,
    eval: Any = None,
    test: Any = None,
    ranks: RankLadders = DEFAULT_RANKS,
    strategy: str = "mars",
    budget: float | str | None = None,
    max_parameters: int | None = None,
    max_memory: int | str | None = None,
    max_rank: int | None = None,
    calibration_adapter: str | None = None,
    training: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    seed: int = 0,
    study: str | Path | None = None,
    storage: str | None = None,
    final: bool = True,
    uniform: bool = False,
    report_to: Sequence[str] = (),
    listener: Listener | None = None,
) -> Decision:
    """Find the ranks, train the adapter, write the report; call again with the same arguments to continue.

    Args:
        model: A folder or hub name, or a `transformers` model already in memory (then ``processor`` too).
        train: Training rows: a file, several, or a sequence of rows with ``messages`` and ``images``.
        processor: The processor of a model in memory.
        eval: Held-out rows for every decision; None splits a share off ``train``.
        test: Rows that are looked at once, at the very end.
        ranks: One ladder for every part, or ``{part: ladder or rank}``. A projector that is not named gets the
            ladder's middle rank, and is not searched.
        strategy: A kind of `marslora.strategies`, e.g. ``mars``, ``grid``, ``uniform``.
        budget: Most run equivalents spent on calibration, e.g. ``0.5``; None leaves it to the strategy. With a limit on
            time or operations, e.g. ``"30m"``, ``"1e15flops"`` or ``"0.5,2h"``, no round begins that would exceed it.
        max_parameters: Allocations with more trainable parameters are not candidates.
        max_memory: The same in bytes, e.g. ``"500MB"``: 16 for a trainable parameter (its weight, gradient and AdamW's
            two moments). The base and its activations, which rank hardly changes, come on top: see `inspect`.
        max_rank: The largest rank of any part, such as vLLM's ``max_lora_rank``; ladders end there.
        calibration_adapter: What calibration runs train, typically ``lora``; None: the final run's adapter.
        training: Fields of `TrainingSpec`, e.g. ``{"epochs": 2, "learning_rate": 1e-4}``.
        data: Further fields of `DataSpec`, e.g. ``{"max_validation": 256}``.
        seed: Seed of initialisation, order and bootstrap.
        study: The study folder; None derives one from the arguments.
        storage: An Optuna storage URL; None is an SQLite file in the study folder.
        final: Train the chosen allocation to the end.
        uniform: Train one uniform rank with as many parameters too, to compare; not where that is what was chosen.
        report_to: Trackers of `transformers.Trainer` for the final run.
        listener: Who is told about progress.

    Raises:
        MarsloraError: With what was expected, what was found and how to mend it.
    """
    asked = Budget.of(budget)
    settings: dict[str, Any] = {
        "model": {"path": _register_model(model, processor)},
        "data": {
            **(data or {}),
            "train": _held_rows("train", train),
            "validation": _held_rows("eval", eval),
            "test": _held_rows("test", test),
        },
        "training": dict(training or {}),
        "search": {
            "strategy": {"name": strategy},
            "budget": asked.runs,
            "max_parameters": max_parameters,
            "max_memory": max_memory,
            "max_rank": max_rank,
            "seed": seed,
            "adapter": {"name": calibration_adapter} if calibration_adapter else None,
        },
        "ranks": ranks,
    }
    spec = spec_from(settings)
    folder = Path(study) if study else default_folder(spec)
    return run_study(
        spec,
        folder,
        storage=storage,
        final=final,
        uniform=uniform,
        report_to=report_to,
        listener=listener,
        limit=asked.limit,
    )


def compare(
    *,
    model: Any = None,
    train: Any = None,
    methods: Sequence[str | Mapping[str, Any]],
    demo: str | None = None,
    processor: Any = None,
    eval: Any = None,
    test: Any = None,
    seeds: Sequence[int] = (0, 1, 2),
    equal: str = "parameters",
    ranks: int | Mapping[str, int] | None = None,
    training: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    listener: Listener | None = None,
) -> Comparison:
    """Train several methods on the same rows, seeds and budget; call again with the same arguments to continue.

    Args:
        model: As in `search`.
        train: As in `search`.
        methods: The reference first. Each a recipe of `marslora.recipes`, ``RECIPE:key=value,...`` as on the command
            line, or a mapping of `MethodSpec`'s fields.
        demo: An embedded task, instead of ``model`` and ``train``.
        processor: As in `search`.
        eval: As in `search`.
        test: Rows that are looked at once, at the end of every run.
        seeds: Each a run of every method.
        equal: ``parameters``, ``compute`` or ``examples``: see `ComparisonSpec`.
        ranks: Of every method that is given none of its own; None: the recipes'.
        training: Fields of `TrainingSpec` for all methods; they override what the recipes' papers used.
        data: Further fields of `DataSpec`.
        out: The folder; None derives one from the arguments.
        listener: Who is told about progress.

    Raises:
        MarsloraError: With what was expected, what was found and how to mend it. A method that fails (the reference's
            plan excepted) is reported in the result instead.
    """
    from marslora.comparison.run import run
    from marslora.comparison.settings import asked, demo_settings

    if demo is not None:
        base = demo_settings(demo, Path(out or f"comparisons/demo-{demo}"))
        out = out or f"comparisons/demo-{demo}"
    else:
        rows = {"train": _held_rows("train", train), "validation": _held_rows("eval", eval)}
        base = {
            "model": {"path": _register_model(model, processor)},
            "data": {**rows, "test": _held_rows("test", test)},
        }
    settings = {
        "model": base["model"],
        "data": {**base["data"], **(data or {})},
        "training": {**base.get("training", {}), **(training or {})},
        "methods": list(methods),
        "seeds": list(seeds),
        "equal": equal,
        "ranks": ranks,
    }
    wanted = asked(settings, "the comparison's arguments")
    return run(wanted, Path(out) if out else wanted.default_folder, listener=listener)


def attach(model: Any, folder: str | Path) -> Any:
    """A trained adapter on ``model``, ready to be called, whichever kind trained it.

    A plain folder of PEFT's gives a `PeftModel`. Any other adapter changes ``model`` itself, and gives an object whose
    ``use_task`` chooses a task and whose ``remove`` takes the adapter off.
    Raises `StudyError` where ``folder`` holds no adapter, or one for another model.
    """
    from marslora import methods

    return methods.attach(model, folder)


def inspect(
    *,
    model: Any,
    train: Any = None,
    processor: Any = None,
    targets: str | None = None,
    experts: bool = False,
    rank: int = 16,
    probe: bool = False,
) -> ModelInfo:
    """The parts of a model and what LoRA can adapt in them; with rows, what they would learn.

    Args:
        model: A folder, a hub name, or a model in memory (then ``processor`` is needed beside it).
        train: Rows to probe with, as `search` takes them: one forward and backward finds layers without a gradient,
            and says in ``warnings`` what is wrong and how to mend it. Memory is measured at ``rank``.
        processor: Of a model in memory.
        targets: Regular expression: only linears whose whole path matches are looked at.
        experts: Look at experts whose weights are stacked in one parameter, too.
        rank: Of the adapters whose memory is measured.
        probe: Probe also without ``train``, on rows of an embedded task. The model must see pictures.

    Without rows only the configuration is read. Raises `ModelError`, `DataError` or `ConfigError`.
    """
    import tempfile

    spec = ModelSpec(path=_register_model(model, processor), targets=targets, experts=experts)
    if train is None and not probe:
        return describe_model(spec)
    from marslora.engine.inspect import inspect_model

    with tempfile.TemporaryDirectory() as folder:
        rows = _embedded_rows(spec, folder) if train is None else _held_rows("train", train)
        data = DataSpec(train=rows, max_examples=64, max_validation=8)
        return inspect_model(spec, data, str(Path(folder, "cache")), rank)


def _embedded_rows(spec: ModelSpec, folder: str) -> tuple[str, ...]:
    from marslora.demo.task_files import write_task
    from marslora.demo.tasks import TASKS

    if "image" not in (info := describe_model(spec)).modalities:
        raise ConfigError(f"{info.architecture} sees no pictures: it must be probed on your own rows. Give --train.")
    paths = write_task(next(iter(TASKS)), folder, num_train=16, num_validation=1, num_test=1)
    return (str(paths["train"]),)


def run_study(
    spec: StudySpec,
    folder: Path,
    *,
    storage: str | None = None,
    final: bool = True,
    uniform: bool = False,
    report_to: Sequence[str] = (),
    listener: Listener | None = None,
    executor: AbstractExecutor | None = None,
    limit: Limit | None = None,
) -> Decision:
    """Run every stage of a study that is not there yet."""
    from marslora.executors.inline import Inline
    from marslora.report import page

    with Study.create(folder, spec, storage) as study:
        pipeline = Pipeline(study, executor or Inline(), listener or Silent(), tuple(report_to), limit or Limit())
        record = pipeline.decide()
        pipeline.plan_final()
        trained = pipeline.train() if final else None
        baseline = pipeline.train_uniform() if uniform else None
        pipeline.export()
        page.write_study(study)
        return Decision(
            record=record,
            info=pipeline.prepare().info,
            training=spec.training,
            folder=folder,
            final=trained,
            uniform=baseline,
        )


def _register_model(model: Any, processor: Any) -> str:
    if isinstance(model, str | Path):
        return str(model)
    from marslora.models.loading import fingerprint_model, register_model

    if processor is None:
        raise ConfigError("`processor` is needed beside a model in memory. Give `AutoProcessor.from_pretrained(...)`.")
    return register_model(f"{type(model).__name__}-{fingerprint_model(model)}", model, processor)


def _held_rows(name: str, rows: Any) -> tuple[str, ...]:
    if rows is None:
        return ()
    if isinstance(rows, str | Path):
        return (str(rows),)
    if not isinstance(rows, Iterable):
        raise ConfigError(f"`{name}` must be a file, several, or rows, found {rows!r}.")
    if isinstance(rows, Sequence) and all(isinstance(row, str | Path) for row in rows):
        return tuple(str(row) for row in rows)
    from marslora.data.splits import register_rows

    return (register_rows(name, rows),)
