"""The Python API: `search`, `compare`, `inspect` and `attach`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from marslora.checks import check_study
from marslora.comparison.settings import COMPARE_OPTIONS, read_comparison
from marslora.core.allocation import MAX_RANK
from marslora.core.errors import ConfigError
from marslora.core.keywords import takes_options
from marslora.core.parts import ModelInfo
from marslora.core.progress import Listener, SilentListener
from marslora.core.spec import DataSpec, ModelSpec, StudySpec
from marslora.core.stopping import exit_on_termination
from marslora.core.words import is_blank
from marslora.decision import Decision
from marslora.in_memory import register_inputs, register_model, register_rows
from marslora.listeners import open_listener
from marslora.pipeline import Pipeline
from marslora.problems import has_measured
from marslora.run_options import RunOptions
from marslora.settings import INSPECT_OPTIONS, SEARCH_OPTIONS, default_folder, describe_model, make_spec, read_search
from marslora.store.study import Study

if TYPE_CHECKING:
    from marslora.core.comparison import Comparison

PROBE_ROWS, PROBE_VALIDATION = 64, 8
"""Rows that `inspect` reads at most: one batch of gradients needs no more."""


@takes_options(SEARCH_OPTIONS)
def search(
    *,
    processor: Any = None,
    config: str | Path | None = None,
    progress: bool = True,
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
        progress: Whether progress is shown, below the cell of a notebook or on the error stream.
        listener: What is told about progress instead, e.g. to draw a progress bar of your own.

    Raises:
        MarsloraError: With what was expected, what was found and how to mend it.
    """
    settings, run_options = read_search(register_inputs(options, processor), _read_path(config), "keyword")
    with open_listener(listener, progress=progress) as told:
        return run_study(make_spec(settings), run_options, told)


@takes_options(COMPARE_OPTIONS)
def compare(
    *,
    demo: str | None = None,
    processor: Any = None,
    config: str | Path | None = None,
    progress: bool = True,
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
        config: YAML file with model, data, training, methods, seeds, equal, ranks and metric; keywords override it.
        progress: Whether progress is shown, below the cell of a notebook or on the error stream.
        listener: What is told about progress instead, e.g. to draw a progress bar of your own.

    Raises:
        MarsloraError: With what was expected, what was found and how to mend it. A method that fails (the reference's
            plan excepted) is reported in the result instead.
    """
    from marslora.comparison.run import run_comparison

    request, run_options = read_comparison(register_inputs(options, processor), _read_path(config), demo, "keyword")
    with open_listener(listener, progress=progress) as told:
        return run_comparison(request, run_options, told)


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
        data = page.write_report(study)
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
            data=data,
        )
    if options.push_to_hub and final is not None:
        decision.push_to_hub(options.push_to_hub, private=options.private)
    return decision


def _read_path(path: str | Path | None) -> Path | None:
    if path is not None and (not isinstance(path, str | Path) or is_blank(str(path))):
        raise ConfigError(f"`config` must be the path of a YAML file, found {path!r}.")
    return None if path is None else Path(path)
