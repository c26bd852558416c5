"""Options of plugins are checked against the types of their fields."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from marslora.core.errors import ConfigError
from marslora.core.plugin_options import PluginConfig


@dataclass(frozen=True, kw_only=True)
class Config(PluginConfig):
    share: float = 0.5
    steps: int = 4
    is_fast: bool = False
    route: Literal["own", "adamw"] | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    leaders: tuple[int, ...] = (4, 2)
    lr: Any = 1.0


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
        ({"leaders": [1.5]}, r"`leaders` of toy must be a list of whole numbers, found \(1.5,\)"),
    ],
)
def test_errors_name_the_option_what_it_must_be_and_what_was_found(options, message):
    with pytest.raises(ConfigError, match=message):
        Config.of(options, "toy")
