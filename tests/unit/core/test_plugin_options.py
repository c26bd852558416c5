"""Options of plugins are checked against the types of their fields."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from marslora.core.errors import ConfigError
from marslora.core.plugin_options import AbstractPlugin, OptionHelp, PluginConfig, describe_options


@dataclass(frozen=True, kw_only=True)
class Config(PluginConfig):
    share: float = 0.5
    steps: int = 4
    is_fast: bool = False
    route: Literal["own", "adamw"] | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    leaders: tuple[int, ...] = (4, 2)
    lr: Any = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    interval: Annotated[int, Field(gt=0)] | None = None
    settings: dict[str, Any] | None = None


def test_options_are_taken_by_name_and_lists_become_tuples():
    config = Config.of({"share": 1, "betas": [0.5, 1], "leaders": [3], "route": "own", "lr": "any"}, "toy")
    assert config == Config(share=1, betas=(0.5, 1), leaders=(3,), route="own", lr="any")
    assert Config.of(None, "toy") == Config.of({"route": None}, "toy") == Config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": 1, "colour": 2}, r"toy has no option \['colour', 'shares'\]. Its options are \['share', 'steps'"),
        ({"share": "much"}, "`share` of toy must be a number, found 'much'"),
        ({"share": True}, "`share` of toy must be a number, found True"),
        ({"steps": 0.5}, "`steps` of toy must be a whole number, found 0.5"),
        ({"is_fast": 1}, "`is_fast` of toy must be true or false, found 1"),
        ({"route": "aadamw"}, r"`route` of toy must be one of \['own', 'adamw'\] or null, found 'aadamw'"),
        ({"betas": [0.9]}, r"`betas` of toy must be a list of 2 numbers, found \(0.9,\)"),
        ({"momentum": 1.0}, "`momentum` of toy must be a number of at least 0 and below 1, found 1.0"),
        ({"momentum": float("nan")}, "`momentum` of toy must be a number of at least 0 and below 1, found nan"),
        ({"interval": 0}, "`interval` of toy must be a whole number above 0 or null, found 0"),
        ({"settings": 3}, "`settings` of toy must be a mapping or null, found 3"),
        ({"leaders": [1.5]}, r"`leaders` of toy must be a list of whole numbers, found \(1.5,\)"),
    ],
)
def test_errors_name_the_option_what_it_must_be_and_what_was_found(options, message):
    with pytest.raises(ConfigError, match=message):
        Config.of(options, "toy")


class Toy(AbstractPlugin):
    """A plugin with a number."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AbstractPlugin.Config):
        """Its options."""

        size: Annotated[int, Field(gt=0)] = 3
        """Number of things,
        all equal."""


class PlacedToy(Toy):
    """Another default, and an argument that is no option."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Toy.Config):
        """Its options."""

        size: Annotated[int, Field(gt=0)] = 5

    def __init__(self, place, **options):
        super().__init__(**options)
        self.place = place


def test_options_are_keywords_of_the_constructor():
    assert Toy().config.size == 3 and Toy(size=4).config == Toy.Config(size=4)
    assert PlacedToy("here").config.as_dict() == {"size": 5}
    assert str(inspect.signature(PlacedToy)) == "(place, *, size=5)"
    with pytest.raises(ConfigError, match=r"`size` of Toy must be a whole number above 0, found 0\."):
        Toy(size=0)
    with pytest.raises(ConfigError, match=r"Toy has no option \['self'\]\. Its options are \['size'\]\."):
        Toy(self=1)


def test_help_is_the_docstring_of_the_field():
    assert describe_options(Toy) == [OptionHelp("size", "a whole number above 0", 3, "Number of things,\nall equal.")]
    assert describe_options(PlacedToy)[0].help == describe_options(Toy)[0].help
