"""From the options of a command or a call, and a configuration file, to the spec of a study.

The way of a setting: a flag, a keyword or a line of YAML becomes a field of `StudySettings`; `make_spec` turns the
``ranks`` among them into the search space of the model's parts, which makes a `StudySpec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator, model_validator

from marslora.core.budget import Budget, Limit
from marslora.core.config_file import merge_settings, read_config
from marslora.core.ladders import DEFAULT_RANKS, RankLadders, build_space, read_ladders
from marslora.core.options import SEARCHING, Option, OptionRecord, OptionTable, Style
from marslora.core.parts import ModelInfo
from marslora.core.spec import DataSpec, ModelSpec, SearchSpec, StudySpec, TrainingSpec
from marslora.run_options import RunOptions


class StudySettings(OptionRecord):
    """What a user says of a study, before the model is looked at."""

    model: ModelSpec
    data: DataSpec
    ranks: Annotated[
        RankLadders,
        PlainValidator(read_ladders),
        Option(SEARCHING, short="-r", metavar="RANKS", is_repeatable=True, type=RankLadders | str),
    ] = DEFAULT_RANKS
    """Ladder of ranks for every part (4,16,64), or for single parts (vision=4,16 and language=64). One rank fixes a
    part. A projector that is not named gets the middle rank of the ladder, and is not searched."""
    search: SearchSpec = SearchSpec()
    training: TrainingSpec = TrainingSpec()
    limit: Limit = Limit()
    """The time and operations in the ``budget`` of ``search``."""

    @model_validator(mode="before")
    @classmethod
    def _split_budget(cls, values: Any) -> Any:
        search = values.get("search") if isinstance(values, Mapping) else None
        if not isinstance(search, Mapping) or "budget" not in search:
            return values
        budget = Budget.read(search["budget"])
        return {**values, "search": {**search, "budget": budget.runs}, "limit": budget.limit}


SEARCH_OPTIONS = OptionTable.of(StudySettings, RunOptions)
"""The options of ``marslora search`` and the keywords of `marslora.search`."""
INSPECT_OPTIONS = OptionTable.of(ModelSpec, without=("model",))
"""The options of ``marslora inspect`` and the keywords of `marslora.inspect` that say how the model is loaded."""


def read_search(options: Mapping[str, Any], config: Path | None, style: Style) -> tuple[StudySettings, RunOptions]:
    """Read options by keyword, which override the configuration file. Raises `ConfigError` for whatever is wrong."""
    given = SEARCH_OPTIONS.nest(options, "marslora.search")
    source = str(config) if config else "the settings"
    values = merge_lengths(read_config(config), given)
    SEARCH_OPTIONS.check_sections(values, source)
    settings = SEARCH_OPTIONS.parse(StudySettings, values, source, style, list(options))
    run = SEARCH_OPTIONS.parse(RunOptions, values, source, style, list(options))
    return settings, run.model_copy(update={"limit": settings.limit})


def merge_lengths(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge settings as `merge_settings` does; a length of the run, `epochs` or `examples`, replaces the other too."""
    training = over.get("training")
    lengths = {"epochs", "examples"} & set(training if isinstance(training, Mapping) else ())
    old = base.get("training")
    if len(lengths) == 1 and isinstance(old, Mapping):
        base = {**base, "training": {key: value for key, value in old.items() if key not in ("epochs", "examples")}}
    return merge_settings(base, over)


def make_spec(settings: StudySettings) -> StudySpec:
    """Return the spec of a study: the parts of the model get their ladders.

    Raises `ConfigError`, also for a part that the model does not have, or `ModelError`.
    """
    info = describe_model(settings.model)
    for part in (*settings.training.full, *settings.training.part_learning_rates):
        info.part(part)
    return StudySpec.parse(
        {
            "model": settings.model,
            "data": settings.data,
            "space": build_space(info, settings.ranks, settings.training.full, settings.search.max_rank),
            "training": settings.training,
            "search": settings.search,
        },
        "the settings",
    )


def describe_model(spec: ModelSpec) -> ModelInfo:
    """Describe the parts of a model; a missing model is reported before torch is imported. Raises `ModelError`."""
    from marslora.models.folders import check_model_path

    check_model_path(spec.path)
    from marslora.models.loading import describe

    return describe(spec)


def default_folder(spec: StudySpec) -> Path:
    """Return ``studies/MODEL-DIGEST``: the same settings name the same folder, so repeating a command continues it."""
    return Path("studies") / f"{Path(spec.model.path).name or 'model'}-{spec.digest()[:8]}"
