"""From nested settings, as a configuration file or a command line gives them, to the spec of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marslora.core.ladders import DEFAULT_RANKS, space_of
from marslora.core.parts import ModelInfo
from marslora.core.spec import ModelSpec, SearchSpec, StudySpec


def spec_from(settings: Mapping[str, Any], source: str = "the study's settings") -> StudySpec:
    """Return the spec of nested settings; ``ranks`` becomes the search space of the parts that the model has.

    ``source`` names where the settings came from in error messages. Raises `ConfigError` or `ModelError`.
    """
    values = dict(settings)
    ranks = values.pop("ranks", DEFAULT_RANKS)
    if "space" not in values:
        info = describe_model(ModelSpec.parse(values.get("model", {}), "model"))
        full = tuple(values.get("training", {}).get("full", ()))
        max_rank = SearchSpec.parse(values.get("search", {}), "search").max_rank
        values["space"] = space_of(info, ranks, full, max_rank).model_dump()
    return StudySpec.parse(values, source)


def describe_model(spec: ModelSpec) -> ModelInfo:
    """Describe the parts of a model; a missing model is reported before torch is imported. Raises `ModelError`."""
    from marslora.models.folders import check_model_path

    check_model_path(spec.path)
    from marslora.models.loading import describe

    return describe(spec)


def default_folder(spec: StudySpec) -> Path:
    """Return ``studies/MODEL-DIGEST``: the same settings name the same folder, so repeating a command continues it."""
    return Path("studies") / f"{Path(spec.model.path).name or 'model'}-{spec.digest()[:8]}"
