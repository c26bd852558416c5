"""What all charts share: colours by role, axes with units, one layout.

A colour is written as its role, ``@accent`` or ``@r3/0.2`` (with opacity), and becomes a colour of the light or the
dark theme when the page draws it; `page.css` holds both.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marslora.report.numbers import abbreviate_count

Trace = dict[str, Any]
Layout = dict[str, Any]

INK, MUTED, LINE, PAPER, ACCENT, WARN = "@ink", "@muted", "@line", "@card", "@accent", "@warn"
NUM_STEPS = 7
"""Steps of the ordered scale ``@r0`` (weak) to ``@r6`` (strong)."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "pentagon", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot")
LEVEL_NOTE = "90 % interval"


@dataclass(frozen=True)
class Chart:
    """One figure of the page."""

    name: str
    """Unique on the page, letters and dashes."""
    title: str
    traces: Sequence[Trace]
    layout: Layout
    caption: str
    """What the chart shows, in sentences computed from its numbers."""
    height: int = 340
    wide: bool = False
    """Takes the whole width of the page."""

    def figure(self) -> dict[str, Any]:
        """The plotly figure: only numbers, text and lists; what is not a finite number is None."""
        figure: dict[str, Any] = make_json_safe(
            {"data": list(self.traces), "layout": {**self.layout, "height": self.height}}
        )
        return figure


def make_json_safe(value: Any) -> Any:
    """The value as strict JSON: mappings, lists, text, finite numbers and None, which replaces NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): make_json_safe(item) for key, item in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Sequence):
        return [make_json_safe(item) for item in value]
    return value


def escape_text(value: object) -> str:
    """Escape text for a figure, where plotly interprets a few HTML tags."""
    return html.escape(str(value), quote=False)


def pick_ordered_colours(number: int) -> list[str]:
    """Colours for ``number`` ordered things, from weak to strong; with more than `NUM_STEPS`, neighbours share one."""
    if number <= 1:
        return ["@r4"] * number
    return [f"@r{round(2 + index * (NUM_STEPS - 3) / (number - 1))}" for index in range(number)]


def fade(colour: str, opacity: float) -> str:
    """The colour with this opacity, 0 to 1."""
    return f"{colour}/{opacity:g}"


def make_axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a title that names its unit."""
    return {
        "title": {"text": escape_text(title), "font": {"size": 12, "color": MUTED}, "standoff": 8},
        "gridcolor": LINE,
        "linecolor": LINE,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": LINE,
        "ticklen": 4,
        "tickfont": {"size": 11, "color": MUTED},
        "automargin": True,
        "fixedrange": False,
        **more,
    }


def make_log_axis(title: str, values: Sequence[float], start: float | None = None) -> dict[str, Any]:
    """A logarithmic axis over the values, with ticks at round numbers; ``start`` is the position drawn as 0."""
    positive = [value for value in values if math.isfinite(value) and value > 0]
    if not positive:
        return make_axis(title)
    low, high = min(positive), max(positive)
    margin = 0.05 * math.log10(high / low) + 0.01
    ticks = [tick for tick in choose_round_ticks(low, high) if start is None or tick > 1.6 * start]
    labels = [abbreviate_count(tick) if tick >= 1000 else f"{tick:g}" for tick in ticks]
    return make_axis(
        title,
        type="log",
        tickvals=ticks if start is None else [start, *ticks],
        ticktext=labels if start is None else ["start", *labels],
        range=[math.log10(low) - margin, math.log10(high) + margin],
    )


def choose_round_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the bounds: powers of ten, and more numbers between them if the range is narrow."""
    decades = math.log10(high / low)
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    factors = (
        (1.0,)
        if decades > 2.5
        else (1.0, 2.0, 5.0)
        if decades > 0.8
        else (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
    )
    ticks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    return [tick for tick in ticks if low * 0.98 <= tick <= high * 1.02]


def make_layout(x: Mapping[str, Any], y: Mapping[str, Any], **more: Any) -> Layout:
    """The layout of a figure: no background, the legend below, hover in the page's colours."""
    return {
        "xaxis": dict(x),
        "yaxis": dict(y),
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12, "color": INK, "family": "system-ui, sans-serif"},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": LINE, "font": {"color": INK, "size": 12}},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "xanchor": "left",
            "yanchor": "bottom",
            "font": {"size": 11, "color": MUTED},
            "itemwidth": 36,
            "tracegroupgap": 0,
        },
        "hovermode": "closest",
        "showlegend": True,
        **more,
    }
