"""What a person asks for, in words or as a mapping, becomes the specs of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from marslora.core.comparison import ComparisonSpec, MethodSpec
from marslora.core.errors import ConfigError
from marslora.core.spec import StudySpec
from marslora.recipes import find_recipe
from marslora.settings import spec_from

KINDS = ("adapter", "optimizer", "gradients")
COMMON = ("examples", "epochs", "batch_size")
"""Fields of `TrainingSpec` that are the same for all methods."""


@dataclass(frozen=True)
class Asked:
    """A comparison as it was asked for."""

    study: StudySpec
    """The model, the data and the common settings."""
    common: Mapping[str, Any]
    """Those fields of `TrainingSpec` that were given for all methods."""
    comparison: ComparisonSpec

    @property
    def default_folder(self) -> Path:
        """``comparisons/MODEL-DIGEST``: the same model, data and common settings name the same folder."""
        return Path("comparisons") / f"{Path(self.study.model.path).name or 'model'}-{self.study.digest()[:8]}"


def asked(settings: Mapping[str, Any], source: str) -> Asked:
    """The specs of ``model``, ``data``, ``training``, ``methods``, ``seeds``, ``equal`` and ``ranks``.

    A method is a recipe's name, the words of `method_of_words`, or a mapping of `MethodSpec`'s fields.
    Raises `ConfigError` for whatever is wrong.
    """
    values = dict(settings)
    fields = {name: values.pop(name) for name in ("methods", "seeds", "equal", "ranks") if name in values}
    if not fields.get("methods"):
        raise ConfigError(f"{source}: `methods` is missing. Name at least one recipe (see `marslora kinds`).")
    named = [fields["methods"]] if isinstance(fields["methods"], str) else fields["methods"]
    fields["methods"] = [method_of_words(each) if isinstance(each, str) else each for each in named]
    comparison = ComparisonSpec.parse(fields, source)
    for method in comparison.methods:
        find_recipe(method.recipe, method.options)
        if fixed := sorted(set(method.training) & set(COMMON)):
            raise ConfigError(
                f"method `{method.title}` cannot have its own {fixed}: they are the same for all methods."
            )
    study = spec_from({**values, "search": {"strategy": {"name": "uniform"}}, "ranks": (16,)}, source)
    return Asked(study, dict(values.get("training", {})), comparison)


def demo_settings(task: str, folder: Path) -> dict[str, Any]:
    """Model, data and training of an embedded task; its rows are written into ``folder/data``."""
    from marslora.demo.settings import make_settings

    settings = make_settings(task, folder / "data")
    return {name: settings[name] for name in ("model", "data", "training")}


def method_of_words(text: str) -> MethodSpec:
    """A method from ``RECIPE`` or ``RECIPE:key=value,...``.

    Keys are ``name``, ``rank``, ``rank.PART``, ``rate.PART`` (over the learning rate of all others), ``adapter``,
    ``optimizer``, ``gradients``, ``training.FIELD``; any other is an option of the recipe. Values are read as YAML.
    """
    recipe, _, rest = text.partition(":")
    found: dict[str, Any] = {"recipe": recipe, "options": {}, "training": {}, "name": text if rest else ""}
    for word in filter(None, rest.split(",")):
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"`--method` must look like asymlora:rank=8,rate.projector=0.1, found {text!r}.")
        try:
            _put(found, key.strip(), yaml.safe_load(value))
        except yaml.YAMLError:
            raise ConfigError(f"`--method {text}`: the value of {key} is no YAML, found {value!r}.") from None
    return MethodSpec.parse(found, f"--method {text}")


def _put(found: dict[str, Any], key: str, value: Any) -> None:
    head, _, tail = key.partition(".")
    if key == "name":
        found["name"] = str(value)
    elif key == "rank":
        found["ranks"] = value
    elif head == "rank":
        found["ranks"] = {**(found.get("ranks") or {}), tail: value}
    elif head == "rate" and tail:
        found["rate_factors"] = {**(found.get("rate_factors") or {}), tail: value}
    elif key in KINDS:
        found["training"][key] = {"name": value}
    elif head == "training" and tail:
        found["training"][tail] = value
    else:
        found["options"][key] = value


def rank_words(words: Sequence[str]) -> int | dict[str, int] | None:
    """``["16"]`` for every part, or ``["vision=8", "language=16"]``; None for none."""
    if not words:
        return None
    try:
        if len(words) == 1 and "=" not in words[0]:
            return int(words[0])
        return {part: int(rank) for part, _, rank in (word.partition("=") for word in words)}
    except ValueError:
        raise ConfigError(f"`--rank` must be a number or PART=NUMBER, found {list(words)}.") from None
