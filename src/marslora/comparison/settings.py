"""Build the specs of a comparison from the options of a command or a call and a configuration file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marslora.checks import check_method, check_metric
from marslora.comparison.matching import choose_ranks, make_allocation
from marslora.core.comparison import ComparisonSpec, build_training
from marslora.core.config_file import read_config
from marslora.core.errors import ConfigError
from marslora.core.options import OptionTable, Style
from marslora.core.parts import ModelInfo
from marslora.core.spec import DataSpec, ModelSpec, PluginSpec, SearchSpec, StudySpec, TrainingSpec
from marslora.recipes import find_recipe
from marslora.run_options import ComparisonOptions
from marslora.settings import StudySettings, describe_model, find_folder, make_spec, merge_lengths

COMMON_FIELDS = ("examples", "epochs", "batch_size")
"""Fields of `TrainingSpec` that are the same for all methods, so that they see the same examples."""
NOT_YET = {"model": {"path": "demo"}, "data": {"train": ["demo"]}}
"""Stands for model and rows of a built-in task until these are written."""
DEMO = "demo:"
"""The beginning of the ``path`` of a built-in model and task, e.g. ``demo:both``."""
SPACE_RANKS = (16,)
"""Placeholder ranks of the study that holds a comparison; the methods have their own ranks."""


class ComparisonSettings(ComparisonSpec):
    """The settings of a comparison as a user gives them, before the model is read."""

    model: ModelSpec
    data: DataSpec
    training: TrainingSpec = TrainingSpec()


COMPARE_OPTIONS = OptionTable.of(ComparisonSettings, ComparisonOptions)
"""The options of ``marslora compare`` and the keywords of `marslora.compare`."""


@dataclass(frozen=True)
class ComparisonRequest:
    """A comparison as requested by a user."""

    study: StudySpec
    """The model, the data and the common settings."""
    common: Mapping[str, Any]
    """The fields of `TrainingSpec` that were given for all methods."""
    comparison: ComparisonSpec

    @property
    def default_folder(self) -> Path:
        """``comparisons/MODEL-DIGEST``: the same model, data and common settings name the same folder."""
        return find_folder(Path("comparisons"), self.study)


def read_comparison(
    options: Mapping[str, Any], config: Path | None, demo: str | None, style: Style
) -> tuple[ComparisonRequest, ComparisonOptions]:
    """Read options by keyword. They override the configuration file, and both override the built-in task ``demo``.

    Raises `ConfigError` for wrong settings, and `ModelError` for a model that is missing.
    """
    by_section = COMPARE_OPTIONS.nest(options, "marslora.compare")
    source = str(config) if config else "the settings"
    values = merge_lengths(read_config(config), by_section)
    COMPARE_OPTIONS.check_sections(values, source)
    run = COMPARE_OPTIONS.parse(ComparisonOptions, values, source, style, list(options))
    if demo is None and (path := str((values.get("model") or {}).get("path", ""))).startswith(DEMO):
        demo = path.removeprefix(DEMO)
        values["model"] = {key: value for key, value in values["model"].items() if key != "path"}
    if demo is not None:
        _check_before_writing(demo, values, run, style, list(options))
        folder = run.out or Path(f"comparisons/demo-{demo}")
        run = run.model_copy(update={"out": folder})
        values = merge_lengths(read_demo(demo, folder), values)
    settings = COMPARE_OPTIONS.parse(ComparisonSettings, values, source, style, list(options))
    return make_request(settings), run


def _check_before_writing(
    demo: str, values: Mapping[str, Any], run: ComparisonOptions, style: Style, given: Sequence[str]
) -> None:
    """Raise `ConfigError` for what is wrong with a comparison on a built-in task, before its rows are written."""
    from marslora.demo.tasks import find_task

    find_task(demo)
    run.make_executor()
    settings = COMPARE_OPTIONS.parse(ComparisonSettings, merge_lengths(NOT_YET, values), "the settings", style, given)
    check_methods(settings)


def check_methods(settings: ComparisonSettings) -> None:
    """Raise `ConfigError` for a method that does not exist, has wrong settings, or settings that are those of all, and
    for a metric that does not exist."""
    check_metric(settings.metric)
    common = _list_common(settings)
    for method in settings.methods:
        find_recipe(method.recipe, method.options)
        if fixed := sorted(set(method.training) & set(COMMON_FIELDS)):
            raise ConfigError(
                f"method `{method.title}` cannot have its own {fixed}, which are the same for all methods. Set them in "
                "`training` of the comparison instead."
            )
        check_method(method, common, experts=settings.model.experts)


def make_request(settings: ComparisonSettings) -> ComparisonRequest:
    """Check the methods and return the specs. Raises `ConfigError` for a wrong method and what `make_spec` raises."""
    check_methods(settings)
    study = make_spec(
        StudySettings(
            model=settings.model,
            data=settings.data,
            ranks=SPACE_RANKS,
            training=settings.training,
            search=SearchSpec(strategy=PluginSpec(name="uniform")),
        )
    )
    common = _list_common(settings)
    comparison = ComparisonSpec(**{name: getattr(settings, name) for name in ComparisonSpec.model_fields})
    _check_parts(comparison, common, describe_model(settings.model))
    return ComparisonRequest(study, common, comparison)


def _list_common(settings: ComparisonSettings) -> dict[str, Any]:
    return {name: getattr(settings.training, name) for name in settings.training.model_fields_set}


def _check_parts(comparison: ComparisonSpec, common: dict[str, Any], info: ModelInfo) -> None:
    """Raise `ConfigError` for a method that names a part that the model does not have, or adapts none."""
    for entry in comparison.methods:
        recipe = find_recipe(entry.recipe, entry.options)
        training = build_training(recipe, entry, common, tuple(part.name for part in info.parts))
        make_allocation(choose_ranks(recipe, entry, comparison), info, training.full)


def read_demo(task: str, folder: Path) -> dict[str, Any]:
    """The model, data and training settings of a built-in task, whose rows are written into ``folder/data``."""
    from marslora.demo.settings import make_settings
    from marslora.demo.tasks import TASKS

    values = make_settings(task, folder / "data")
    return {"model": values["model"], "data": values["data"], "training": dict(TASKS[task].training)}
