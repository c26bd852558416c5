"""From the options of a command or a call, and a configuration file, to the specs of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marslora.core.comparison import ComparisonSpec
from marslora.core.config_file import read_config
from marslora.core.errors import ConfigError
from marslora.core.options import OptionTable, Style
from marslora.core.spec import DataSpec, ModelSpec, PluginSpec, SearchSpec, StudySpec, TrainingSpec
from marslora.recipes import find_recipe
from marslora.run_options import ComparisonOptions
from marslora.settings import StudySettings, make_spec, merge_lengths

COMMON_FIELDS = ("examples", "epochs", "batch_size")
"""Fields of `TrainingSpec` that are the same for all methods, so that they see the same examples."""
DEMO = "demo:"
"""What the ``path`` of a built-in model and task begins with, e.g. ``demo:both``."""
SPACE_RANKS = (16,)
"""Ranks of the study in which a comparison is kept; the methods bring their own."""


class ComparisonSettings(ComparisonSpec):
    """What a user says of a comparison, before the model is looked at."""

    model: ModelSpec
    data: DataSpec
    training: TrainingSpec = TrainingSpec()


COMPARE_OPTIONS = OptionTable.of(ComparisonSettings, ComparisonOptions)
"""The options of ``marslora compare`` and the keywords of `marslora.compare`."""


@dataclass(frozen=True)
class ComparisonRequest:
    """A comparison as a user asked for it."""

    study: StudySpec
    """The model, the data and the common settings."""
    common: Mapping[str, Any]
    """Those fields of `TrainingSpec` that were given for all methods."""
    comparison: ComparisonSpec

    @property
    def default_folder(self) -> Path:
        """``comparisons/MODEL-DIGEST``: the same model, data and common settings name the same folder."""
        return Path("comparisons") / f"{Path(self.study.model.path).name or 'model'}-{self.study.digest()[:8]}"


def read_comparison(
    options: Mapping[str, Any], config: Path | None, demo: str | None, style: Style
) -> tuple[ComparisonRequest, ComparisonOptions]:
    """Read options by keyword, which override the configuration file, which overrides the built-in task ``demo``.

    Raises `ConfigError` for whatever is wrong, and `ModelError` for a model that is missing.
    """
    given = COMPARE_OPTIONS.nest(options, "marslora.compare")
    source = str(config) if config else "the settings"
    values = merge_lengths(read_config(config), given)
    COMPARE_OPTIONS.check_sections(values, source)
    run = COMPARE_OPTIONS.parse(ComparisonOptions, values, source, style, list(options))
    if demo is None and (path := str((values.get("model") or {}).get("path", ""))).startswith(DEMO):
        demo = path.removeprefix(DEMO)
        values["model"] = {key: value for key, value in values["model"].items() if key != "path"}
    if demo is not None:
        folder = run.out or Path(f"comparisons/demo-{demo}")
        run = run.model_copy(update={"out": folder})
        values = merge_lengths(read_demo(demo, folder), values)
    settings = COMPARE_OPTIONS.parse(ComparisonSettings, values, source, style, list(options))
    return make_request(settings), run


def make_request(settings: ComparisonSettings) -> ComparisonRequest:
    """Check the methods and return the specs. Raises `ConfigError` or `ModelError`."""
    for method in settings.methods:
        find_recipe(method.recipe, method.options)
        if fixed := sorted(set(method.training) & set(COMMON_FIELDS)):
            raise ConfigError(
                f"method `{method.title}` cannot have its own {fixed}: they are the same for all methods. "
                "Set them for the comparison."
            )
    study = make_spec(
        StudySettings(
            model=settings.model,
            data=settings.data,
            ranks=SPACE_RANKS,
            training=settings.training,
            search=SearchSpec(strategy=PluginSpec(name="uniform")),
        )
    )
    common = {name: getattr(settings.training, name) for name in settings.training.model_fields_set}
    comparison = ComparisonSpec(**{name: getattr(settings, name) for name in ComparisonSpec.model_fields})
    return ComparisonRequest(study, common, comparison)


def read_demo(task: str, folder: Path) -> dict[str, Any]:
    """Return model, data and training of a built-in task; its rows are written into ``folder/data``."""
    from marslora.demo.settings import make_settings

    values = make_settings(task, folder / "data")
    return {name: values[name] for name in ("model", "data", "training")}
