"""The Python API: `search`, `compare`, `inspect`, `attach`, and the `Decision` that a search returns."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marslora.checks import check_study
from marslora.comparison.settings import COMPARE_OPTIONS, read_comparison
from marslora.core import patterns
from marslora.core.allocation import MAX_RANK, Allocation
from marslora.core.decision import DecisionRecord
from marslora.core.errors import ConfigError
from marslora.core.options import takes_options
from marslora.core.parts import ModelInfo
from marslora.core.progress import Listener, SilentListener
from marslora.core.runs import FinalResult
from marslora.core.schedule import make_training_arguments
from marslora.core.spec import DataSpec, ModelSpec, StudySpec, TrainingSpec
from marslora.core.stopping import exit_on_termination
from marslora.core.words import is_blank
from marslora.in_memory import register_inputs, register_model, register_rows
from marslora.pipeline import Pipeline
from marslora.problems import has_measured
from marslora.run_options import RunOptions
from marslora.settings import INSPECT_OPTIONS, SEARCH_OPTIONS, default_folder, describe_model, make_spec, read_search
from marslora.store.study import Study

if TYPE_CHECKING:
    from peft import LoraConfig

    from marslora.core.comparison import Comparison
    from marslora.deployment.ask import Answerer
    from marslora.deployment.merge import MergeCheck

PROBE_ROWS, PROBE_VALIDATION = 64, 8
"""Rows that `inspect` reads at most: one batch of gradients needs no more."""


@dataclass(frozen=True)
class Decision:
    """The ranks and learning rates that a search chose, how sure it is, and where its results are."""

    record: DecisionRecord
    """The decision with every candidate, law and reason, as in `decision.json`."""
    info: ModelInfo
    """The parts of the model and their linear layers."""
    training: TrainingSpec
    """How the final run is trained, with the chosen learning rates."""
    full_examples: int
    """Examples that the final run sees."""
    seed: int
    """Seed of the final run."""
    folder: Path
    """The study folder."""
    final: FinalResult | None = None
    """Result of the final run; None if there was none (``final=False``)."""
    uniform: FinalResult | None = None
    """Result of the uniform baseline; None if there was none, or if the chosen ranks are uniform."""

    @property
    def chosen(self) -> Allocation:
        """The chosen rank of every part."""
        return self.record.chosen

    @property
    def learning_rate(self) -> float:
        """The chosen learning rate, or the one that was given."""
        return self.training.learning_rate

    @property
    def part_learning_rates(self) -> dict[str, float]:
        """Learning rates of single parts, chosen or given."""
        return self.training.part_learning_rates

    @property
    def probability(self) -> float | None:
        """Probability that the chosen setting is the best; None if no law could be fitted."""
        return self.record.chosen_candidate.p_best

    @property
    def adapter_folder(self) -> Path | None:
        """Folder of the trained adapter, which `attach` puts on a model; None if there was no final run."""
        return Path(self.final.adapter_folder) if self.final else None

    @property
    def report(self) -> Path:
        """Path of the study's report page."""
        return self.folder / "report.html"

    def lora_config(self) -> LoraConfig:
        """Return the chosen allocation as a `peft.LoraConfig` with mutually exclusive patterns."""
        from peft import LoraConfig

        return LoraConfig(**self.lora_settings())

    def lora_settings(self) -> dict[str, Any]:
        """Return the keyword arguments of `lora_config`, as plain data."""
        full = self.info.full_modules(self.training.full)
        ranks = self.info.module_ranks(self.chosen)
        training = self.training
        stacked = self.info.stacked(self.chosen)
        return patterns.lora_config_dict(
            ranks, training.alpha_over_rank, full, training.dropout, stacked=stacked, **training.lora_variant
        )

    def training_arguments(self) -> dict[str, Any]:
        """Return how the final run is trained as keyword arguments of `transformers.TrainingArguments` or TRL's config.

        The learning rate warms up, stays and falls as in the final run. Learning rates of single parts
        (`part_learning_rates`), which these classes do not have, need groups of parameters: a warning says so. An
        optimizer other than AdamW is given to the trainer itself.
        """
        if self.part_learning_rates:
            warnings.warn(
                f"a trainer has one learning rate, so those of parts need groups of parameters: "
                f"{self.part_learning_rates}",
                stacklevel=2,
            )
        return make_training_arguments(self.training, self.full_examples, self.seed)

    def open_answerer(self, **options: Any) -> Answerer:
        """Load the model with its adapter; ``ask`` of the result answers questions with it, and with the base alone.

        The keywords are those of `marslora.deployment.ask.open_answerer`, and the errors too.
        """
        from marslora.deployment.ask import open_answerer

        return open_answerer(self.folder, **options)

    def merge(self, out: str | Path, **options: Any) -> MergeCheck:
        """Write a whole model, the adapter merged into it, into the folder ``out``; how far its logits are off.

        The keywords are those of `marslora.deployment.merge.merge_study`, and the errors too.
        """
        from marslora.deployment.merge import merge_study

        return merge_study(self.folder, Path(out), **options)

    def push_to_hub(self, repo: str, *, private: bool = False) -> str:
        """Push the adapter with its model card to the hub; the address of the repository.

        Raises `StudyError` if there was no final run, or if the hub refuses.
        """
        from marslora.deployment.push import push_study

        return push_study(self.folder, repo, private=private)

    def __str__(self) -> str:
        return self.record.summary


@takes_options(SEARCH_OPTIONS)
def search(
    *,
    processor: Any = None,
    config: str | Path | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> Decision:
    """Find the ranks, train the adapter, write the report; call again with the same arguments to continue.

    Every option of ``marslora search`` is a keyword here. Several that belong together may also be given as a mapping
    with the names of the specs' fields, e.g. ``training={"epochs": 2, "warmup": 0.1}``.

    Args:
        OPTIONS
        processor: The processor of a model in memory.
        config: YAML file with model, data, ranks, search and training; keywords override it.
        listener: What is told about progress, e.g. to draw a progress bar.

    Raises:
        MarsloraError: With what was expected, what was found and how to mend it.
    """
    settings, run_options = read_search(register_inputs(options, processor), _read_path(config), "keyword")
    return run_study(make_spec(settings), run_options, listener)


@takes_options(COMPARE_OPTIONS)
def compare(
    *,
    demo: str | None = None,
    processor: Any = None,
    config: str | Path | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> Comparison:
    """Train several methods on the same rows, seeds and budget; call again with the same arguments to continue.

    Every option of ``marslora compare`` is a keyword here. Several that belong together may also be given as a mapping
    with the names of the specs' fields, e.g. ``training={"epochs": 2}``. What is given of the training holds for all
    methods and overrides what the recipes' papers used.

    Args:
        OPTIONS
        demo: A built-in task (vision, language, both, small or null), instead of ``model`` and ``train``.
        processor: The processor of a model in memory.
        config: YAML file with model, data, training, methods, seeds, equal and ranks; keywords override it.
        listener: What is told about progress, e.g. to draw a progress bar.

    Raises:
        MarsloraError: With what was expected, what was found and how to mend it. A method that fails (the reference's
            plan excepted) is reported in the result instead.
    """
    from marslora.comparison.run import run_comparison

    request, run_options = read_comparison(register_inputs(options, processor), _read_path(config), demo, "keyword")
    return run_comparison(request, run_options, listener)


def attach(model: Any, folder: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Put a trained adapter on ``model`` and return it ready to be called, whichever method trained it.

    A folder in PEFT's own format gives a `PeftModel`. Any other adapter changes ``model`` itself and gives an object
    whose ``use_task`` chooses a task and whose ``remove`` takes the adapter off.
    An adapter may name Python code from outside marslora; it is imported with ``trust_remote_code`` alone.
    Raises `StudyError` if ``folder`` holds no adapter, or one for another model.
    """
    from marslora import methods

    return methods.attach(model, folder, trust_remote_code=trust_remote_code)


@takes_options(INSPECT_OPTIONS)
def inspect(
    *,
    model: Any,
    train: Any = None,
    processor: Any = None,
    rank: int = 16,
    probe: bool = False,
    **options: Any,
) -> ModelInfo:
    """Return the parts of a model and what LoRA can adapt in them; with rows, what they would learn.

    Without rows only the configuration is read.

    Args:
        model: A folder, a hub name, or a model in memory, together with ``processor``.
        train: Rows to probe with, as `search` takes them: one forward and backward pass finds layers that no gradient
            reaches, and ``warnings`` of the result say what is wrong and how to mend it.
        processor: The processor of a model in memory.
        rank: Rank of the adapters whose memory is measured.
        probe: Probe without ``train`` too, on rows of a built-in task. The model must see pictures.
        OPTIONS

    Raises:
        MarsloraError: A `ModelError`, `DataError` or `ConfigError` for what cannot be read or is wrong.
    """
    import tempfile

    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK:
        raise ConfigError(f"`rank` must be a whole number from 1 to {MAX_RANK}, found {rank!r}.")
    values = {**INSPECT_OPTIONS.nest(options, "marslora.inspect"), "path": register_model(model, processor)}
    spec = INSPECT_OPTIONS.parse(ModelSpec, values, "model", "keyword", list(options))
    if train is None and not probe:
        return describe_model(spec)
    from marslora.engine.inspect import inspect_model

    with tempfile.TemporaryDirectory() as folder:
        rows = _write_demo_rows(spec, folder) if train is None else register_rows("train", train)
        values = {"train": rows, "max_examples": PROBE_ROWS, "max_validation": PROBE_VALIDATION}
        data = DataSpec.parse(values, "inspect")
        return inspect_model(spec, data, str(Path(folder, "cache")), rank)


def _write_demo_rows(spec: ModelSpec, folder: str) -> tuple[str, ...]:
    from marslora.demo.task_files import write_task
    from marslora.demo.tasks import TASKS

    if "image" not in (info := describe_model(spec)).modalities:
        raise ConfigError(
            f"{info.architecture} takes {', '.join(info.modalities)} and no pictures, so probe it on your own rows. "
            "Give `train` (--train)."
        )
    paths = write_task(next(iter(TASKS)), folder, num_train=16, num_validation=1, num_test=1)
    return (str(paths["train"]),)


def run_study(spec: StudySpec, options: RunOptions, listener: Listener | None = None) -> Decision:
    """Run every stage of a study that is missing in its folder. If no run could be used, no adapter is trained."""
    from marslora.report import model_card, page

    check_study(spec, options)
    folder, executor = options.study or default_folder(spec), options.make_executor()
    with exit_on_termination(), Study.create(folder, spec, options.storage) as study:
        pipeline = Pipeline(study, executor, listener or SilentListener(), options)
        record = pipeline.decide()
        planned = final = uniform = None
        if has_measured(study.finished_runs()):
            planned = pipeline.plan_final()
            final = pipeline.train() if options.final else None
            uniform = pipeline.train_uniform() if options.uniform else None
            pipeline.export()
        page.write_report(study)
        if final is not None:
            model_card.write_card(study, Path(final.adapter_folder), licence=options.license)
        decision = Decision(
            record=record,
            info=pipeline.prepare().info,
            training=record.setting.apply_to(spec.training),
            full_examples=pipeline.problem.full_examples,
            seed=planned.seed if planned else spec.search.seed,
            folder=study.folder,
            final=final,
            uniform=uniform,
        )
    if options.push_to_hub and final is not None:
        decision.push_to_hub(options.push_to_hub, private=options.private)
    return decision


def _read_path(path: str | Path | None) -> Path | None:
    if path is not None and (not isinstance(path, str | Path) or is_blank(str(path))):
        raise ConfigError(f"`config` must be the path of a YAML file, found {path!r}.")
    return None if path is None else Path(path)
