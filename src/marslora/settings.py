"""From the options of a command or a call, and a configuration file, to the spec of a study.

The way of a setting: a flag, a keyword or a line of YAML becomes a field of `StudySettings`; `make_spec` turns the
``ranks`` and learning rates among them into what is searched for the model's parts, which makes a `StudySpec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator, model_validator

from marslora import recipes
from marslora.core import plugins
from marslora.core.allocation import Space, list_allocations
from marslora.core.budget import Budget, Limit
from marslora.core.config_file import merge_settings, read_config
from marslora.core.content import digest_model_folder, digest_paths
from marslora.core.data_files import MEMORY, list_sources, parse_source
from marslora.core.errors import ConfigError
from marslora.core.ladders import RankLadders, build_space, read_ladders
from marslora.core.options import SEARCHING, Option, OptionRecord, OptionTable, Style
from marslora.core.parts import ModelInfo
from marslora.core.rates import AUTO, PART_FACTORS, find_adamw_rate, spread_rates
from marslora.core.record import digest_texts
from marslora.core.spec import DataSpec, ModelSpec, SearchSpec, StudySpec, TrainingSettings, TrainingSpec
from marslora.run_options import RunOptions

ADAMW_LIKE = ("adamw", "mars_adamw")
"""The optimizers whose steps are as long as AdamW's, so that its learning rates suit them."""


class StudySettings(OptionRecord):
    """What a user says of a study, before the model is looked at."""

    model: ModelSpec
    data: DataSpec
    ranks: Annotated[
        RankLadders | None,
        PlainValidator(read_ladders),
        Option(
            SEARCHING,
            short="-r",
            metavar="RANKS",
            is_repeatable=True,
            type=RankLadders | str,
            other_names=("rank", "r", "lora_r", "lora_rank"),
        ),
    ] = None
    """Ladder of ranks for every part (4,16,64), or for single parts (vision=0,4,16 and language=64). One rank fixes a
    part, 0 leaves it as it is. A projector that is not named gets the middle rank of the ladder, and is not searched.
    Default: 4,16,64, and 0 too for vision and audio towers."""
    search: SearchSpec = SearchSpec()
    training: TrainingSettings = TrainingSettings()
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
    values = {name: value for name, value in values.items() if value is not None or name not in SEARCH_OPTIONS.sections}
    SEARCH_OPTIONS.check_sections(values, source)
    settings = SEARCH_OPTIONS.parse(StudySettings, values, source, style, list(options))
    run = SEARCH_OPTIONS.parse(RunOptions, values, source, style, list(options))
    return settings, run.model_copy(update={"limit": settings.limit})


def merge_lengths(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge settings as `merge_settings` does; a length of the run, `epochs` or `examples`, replaces the other too.

    Raises `ConfigError` where both are given.
    """
    new, old = over.get("training"), base.get("training")
    lengths = {"epochs", "examples"} & set(new if isinstance(new, Mapping) else ())
    for training in (new, old):
        if isinstance(training, Mapping) and None not in (training.get("epochs"), training.get("examples")):
            raise ConfigError(
                f"`epochs` and `examples` both say how long a run is, found {training['epochs']} and "
                f"{training['examples']}. Give one of them."
            )
    if lengths and isinstance(old, Mapping):
        base = {**base, "training": {key: value for key, value in old.items() if key not in ("epochs", "examples")}}
    return merge_settings(base, over)


def make_spec(settings: StudySettings) -> StudySpec:
    """Return the spec of a study: the parts of the model get their ladders, the learning rates become numbers.

    Raises `ConfigError`, also for a part that the model does not have and if no candidate is left, `ModelError`, or
    `DataError` for rows that do not exist.
    """
    check_sources(settings.data)
    info, training = describe_model(settings.model), settings.training
    for part in (*training.full, *training.part_learning_rates):
        info.part(part)
    info.token_indices(training.trainable_token_indices)
    space = build_space(info, settings.ranks, training.full, settings.search.max_rank)
    list_allocations(
        space,
        lambda allocation: info.num_trainable(
            allocation, training.full, use_dora=training.use_dora, ids=training.trainable_token_indices
        ),
        settings.search.most_parameters,
    )
    return StudySpec.parse(
        {
            "model": settings.model,
            "data": settings.data,
            "space": space,
            **_resolve_rates(training, space, info),
            "search": settings.search,
        },
        "the settings",
    )


def _resolve_rates(training: TrainingSettings, space: Space, info: ModelInfo) -> dict[str, Any]:
    """The fields of a `StudySpec` that say how runs are trained and which learning rates are searched."""
    apart = [part for part, rate in training.part_learning_rates.items() if rate == AUTO]
    for part in apart:
        if part not in space.parts or space.ladder(part) == (0,):
            raise ConfigError(
                f"`part_learning_rates` {part}={AUTO} needs a part that is trained with ranks, found {part} "
                f"{'trained whole' if part in training.full else 'without'}. Give its learning rate, or leave it out."
            )
    rate = training.learning_rate
    ladder = _list_rates(training, info) if rate == AUTO else (rate,) if isinstance(rate, float) else rate
    values = {name: getattr(training, name) for name in TrainingSettings.model_fields}
    fixed = {part: rate for part, rate in training.part_learning_rates.items() if rate != AUTO}
    return {
        "training": {**values, "learning_rate": ladder[len(ladder) // 2], "part_learning_rates": fixed},
        "learning_rates": ladder if len(ladder) > 1 or apart else (),
        "part_rate_factors": dict.fromkeys(apart, PART_FACTORS),
    }


def _list_rates(training: TrainingSettings, info: ModelInfo) -> tuple[float, ...]:
    """The learning rates that are tried if the user named none."""
    name = training.optimizer.name
    if name in ADAMW_LIKE and info.width:
        return spread_rates(find_adamw_rate(info.width, training.alpha_over_rank))
    usual: float = TrainingSpec.model_fields["learning_rate"].default
    if name in plugins.names(recipes):
        usual = recipes.find_recipe(name).defaults.get("learning_rate", usual)
    return spread_rates(usual)


def check_sources(data: DataSpec) -> None:
    """Raise `DataError` or `ConfigError` for files, folders and data sets that do not exist; no row is read."""
    from marslora.data.check import check_folder, resolve_files

    check_folder(data.image_folder)
    for role in ("train", "validation", "test"):
        resolve_files(getattr(data, role), role, allow_outside=data.allow_outside)


def describe_model(spec: ModelSpec) -> ModelInfo:
    """Describe the parts of a model; a missing model is reported before torch is imported. Raises `ModelError`."""
    from marslora.models.folders import check_model_path

    check_model_path(spec.path)
    from marslora.models.loading import check_device, describe

    check_device(spec.device)
    return describe(spec)


def default_folder(spec: StudySpec) -> Path:
    """Return ``studies/MODEL-DIGEST``: the same settings name the same folder, so repeating a command continues it."""
    return find_folder(Path("studies"), spec)


def find_folder(parent: Path, spec: StudySpec) -> Path:
    """The folder of a study in ``parent``, named after its model and the content of model and rows.

    One that exists counts even if the model was renamed since.
    """
    files = [parse_source(source)[0] for source in list_sources(spec.data) if not source.startswith(MEMORY)]
    folder = Path(spec.model.path).expanduser()
    model = digest_model_folder(folder) if folder.is_dir() else spec.model.path
    digest = digest_texts(spec.without_place().digest(), model, digest_paths(files))[:8]
    named = parent / f"{Path(spec.model.path).name or 'model'}-{digest}"
    return next(iter(sorted(parent.glob(f"*-{digest}"))), named)
