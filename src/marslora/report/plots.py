"""Turn the charts of a page into plotly figures for notebooks and scripts, in the colours of the light theme."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from plotly.graph_objects import Figure

from marslora.report.figures._style import PAPER, Chart

ROLE = re.compile(r"@([a-z]+[0-9]?)(?:/([0-9.]+))?")
"""A colour by its role, with its opacity: ``@accent`` or ``@r3/0.2``. The page's script reads the same words."""


def make_plot(chart: Chart) -> Figure:
    """The chart as a plotly figure with its title; ``show()`` and ``write_image()`` work as for any other."""
    figure = chart.figure()
    layout = {
        **figure["layout"],
        "title": {"text": chart.title, "font": {"size": 16}},
        "paper_bgcolor": PAPER,
        "margin": {"l": 60, "r": 24, "t": 96, "b": 56},
    }
    return Figure(resolve_colours({"data": figure["data"], "layout": layout}))


@cache
def read_colours() -> Mapping[str, str]:
    """The colours of the light theme by role, ``{"accent": "#b8430c", ...}``, as the page's style sheet has them."""
    sheet = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    light = sheet[: sheet.index("@media")]
    return dict(re.findall(r"--([a-z]+[0-9]?): (#[0-9a-f]{6})", light))


def resolve_colours(value: Any) -> Any:
    """The same value with a colour in the place of every role."""
    if isinstance(value, Mapping):
        return {key: resolve_colours(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve_colours(item) for item in value]
    found = ROLE.fullmatch(value) if isinstance(value, str) else None
    return make_colour(found[1], float(found[2] or 1)) if found and found[1] in read_colours() else value


def make_colour(role: str, opacity: float = 1.0) -> str:
    """The colour of a role in the light theme as ``rgba(r,g,b,opacity)``."""
    colour = read_colours()[role]
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"
