"""The heat map for two searched parts: losses, dropped cells, the plausible set, the balanced line, the choice."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate
from marslora.report.candidates import list_rates, select_best_settings
from marslora.report.data import ReportData
from marslora.report.figures._style import (
    ACCENT,
    INK,
    NUM_STEPS,
    Layout,
    Trace,
    escape_text,
    fade,
    make_axis,
    make_layout,
)
from marslora.report.numbers import format_loss, format_percent

Cell = tuple[int, int]
"""(column, row): positions on the two ladders."""
Expected = Callable[[Candidate], float | None]
SCALE = [[index / (NUM_STEPS - 1), f"@r{NUM_STEPS - 1 - index}"] for index in range(NUM_STEPS)]
"""The colour scale: low losses have strong colours."""
NUM_LINE_POINTS = 120
BALANCED = "balanced line"
"""The name of the trace along which both parts converge at the same time."""


def draw_heat_map(data: ReportData, across: str, up: str, expected: Expected) -> tuple[list[Trace], Layout]:
    """The traces and the layout; columns are the ladder of the part ``across``, rows that of the part ``up``.

    Every allocation is shown at its best learning rate.
    """
    columns, rows = data.space.ladder(across), data.space.ladder(up)

    def find_cell(allocation: Allocation) -> Cell:
        return columns.index(allocation[across]), rows.index(allocation[up])

    cells = {find_cell(allocation): candidate for allocation, candidate in select_best_settings(data).items()}
    known = {cell: value for cell, c in cells.items() if (value := expected(c)) is not None}
    low, high = find_colour_range(cells, known)
    shows_rate = len(list_rates(data)) > 1
    dropped = [cell for cell, c in cells.items() if c.status == "dropped"]
    traces = [
        _draw_heat({cell: v for cell, v in known.items() if cell not in dropped}, cells, columns, rows, low, high),
        {**_draw_heat({cell: v for cell, v in known.items() if cell in dropped}, cells, columns, rows, low, high),
         "opacity": 0.4, "showscale": False},
        _draw_hatching(dropped),
    ]  # fmt: skip
    has_chances = any(candidate.p_best is not None for candidate in cells.values())
    inside = {find_cell(each.allocation) for each in data.decision.plausible} if has_chances else set()
    line = find_balanced_line(cells, across, up, columns, rows)
    traces += [_draw_outline(inside, "hold 90 % of P(best)", INK, "dash", 0.0)] if inside else []
    traces += _draw_balanced_line(line) if line else []
    traces.append(
        _draw_outline({cell for cell, c in cells.items() if c.status == "chosen"}, "chosen", ACCENT, "solid", 0.03)
    )
    layout = make_layout(
        _make_ladder_axis(f"{across} rank", columns, constrain="domain"),
        _make_ladder_axis(f"{up} rank", rows),
        annotations=[_annotate_cell(cell, cells[cell], value, low, high, shows_rate) for cell, value in known.items()],
    )
    return traces, layout


def find_colour_range(cells: Mapping[Cell, Candidate], known: Mapping[Cell, float]) -> tuple[float, float]:
    """The lowest and highest loss of the colour scale, at least a typical interval apart, so that noise looks flat."""
    low, high = min(known.values()), max(known.values())
    widths = [c.predicted_loss.high - c.predicted_loss.low for c in cells.values() if c.predicted_loss is not None]
    return low, max(high, low + (statistics.median(widths) if widths else 0.0))


def _draw_heat(
    values: Mapping[Cell, float], cells: Mapping[Cell, Candidate], columns: Sequence[int], rows: Sequence[int],
    low: float, high: float,
) -> Trace:  # fmt: skip
    places = [[(i, j) for i in range(len(columns))] for j in range(len(rows))]
    return {
        "type": "heatmap",
        "x": list(range(len(columns))),
        "y": list(range(len(rows))),
        "z": [[values.get(cell) for cell in line] for line in places],
        "customdata": [[_write_hover(cells[cell]) if cell in values else "" for cell in line] for line in places],
        "zmin": low,
        "zmax": high if high > low else low + 1e-9,
        "colorscale": SCALE,
        "xgap": 3,
        "ygap": 3,
        "hovertemplate": "%{customdata}<extra></extra>",
        "colorbar": {
            "title": {"text": "expected<br>loss", "font": {"size": 11}},
            "thickness": 10,
            "outlinewidth": 0,
            "tickfont": {"size": 10},
            "nticks": 5,
        },
    }


def _write_hover(candidate: Candidate) -> str:
    sentences = [f"<b>{escape_text(candidate.setting)}</b> ({candidate.status})"]
    if candidate.predicted_loss is not None:
        predicted = candidate.predicted_loss
        sentences.append(
            f"expected {format_loss(predicted.value)} ({format_loss(predicted.low)} to {format_loss(predicted.high)})"
        )
    if candidate.observed_loss is not None:
        sentences.append(
            f"observed {format_loss(candidate.observed_loss)} after {candidate.observed_examples or 0:,} examples"
        )
    if candidate.p_best is not None:
        sentences.append(f"P(best) {format_percent(candidate.p_best)}".replace("<", "&lt;"))
    sentences += [escape_text(line) for line in _wrap_words(candidate.reason)]
    return "<br>".join(sentences)


def _wrap_words(words: str, width: int = 56) -> list[str]:
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _annotate_cell(
    cell: Cell, candidate: Candidate, value: float, low: float, high: float, shows_rate: bool
) -> dict[str, Any]:
    """The loss of a cell, and small below it the loss seen so far and the learning rate."""
    strong = (value - low) / max(high - low, 1e-12) < 0.5
    colour = INK if candidate.status == "dropped" else "@onstrong" if strong else "@onweak"
    both = candidate.observed_loss is not None and candidate.predicted_loss is not None
    notes = [f"seen {format_loss(candidate.observed_loss)}"] if both else []
    notes += [f"at {candidate.learning_rate:.2g}"] if shows_rate and candidate.learning_rate else []
    small = f"<br><span style='font-size:10px'>{', '.join(notes)}</span>" if notes else ""
    chosen = candidate.status == "chosen"
    return {
        "x": cell[0],
        "y": cell[1],
        "text": (f"<b>{format_loss(value)}</b>" if chosen else format_loss(value)) + small,
        "showarrow": False,
        "font": {"size": 13, "color": colour},
    }


def _draw_hatching(cells: Sequence[Cell], lines: int = 3) -> Trace:
    """Diagonals across the cells, in one trace with gaps."""
    x: list[float | None] = []
    y: list[float | None] = []
    for column, row in cells:
        for index in range(1, 2 * lines):
            shift = (index - lines) / lines * 0.92
            start, end = max(-0.46, -0.46 + shift), min(0.46, 0.46 + shift)
            x += [column + start, column + end, None]
            y += [row + start - shift, row + end - shift, None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "name": "dropped",
        "line": {"color": fade(INK, 0.16), "width": 1},
        "hoverinfo": "skip",
        "showlegend": bool(cells),
    }


def _draw_outline(cells: set[Cell], name: str, colour: str, dash: str, inset: float) -> Trace:
    """The border of a set of cells: the edges that only one cell of the set has."""
    x: list[float | None] = []
    y: list[float | None] = []
    half = 0.5 - inset
    for column, row in sorted(cells):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            if (column + dx, row + dy) not in cells:
                x += [column + dx * half - abs(dy) * half, column + dx * half + abs(dy) * half, None]
                y += [row + dy * half - abs(dx) * half, row + dy * half + abs(dx) * half, None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "name": name,
        "line": {"color": colour, "width": 3.5 if dash == "solid" else 2, "dash": dash},
        "hoverinfo": "skip",
    }


def find_balanced_line(
    cells: Mapping[Cell, Candidate], across: str, up: str, columns: Sequence[int], rows: Sequence[int]
) -> list[tuple[float, float]]:
    """Points (column, row) at which both parts should converge together, interpolated in log time between the rungs.

    Empty if a convergence time is unknown.
    """
    times_across = _list_log_times(cells, across, 0, len(columns))
    times_up = _list_log_times(cells, up, 1, len(rows))
    if times_across is None or times_up is None:
        return []
    column_N = np.linspace(0, len(columns) - 1, NUM_LINE_POINTS)
    wanted_N = np.interp(column_N, range(len(columns)), times_across)
    crossings = ((column, _find_crossing(times_up, wanted)) for column, wanted in zip(column_N, wanted_N, strict=True))
    return [(float(column), row) for column, row in crossings if row is not None]


def _find_crossing(values: Sequence[float], wanted: float) -> float | None:
    """The first position at which the line through the values takes the wanted value; None if it never does."""
    for index, (here, there) in enumerate(itertools.pairwise(values)):
        if min(here, there) <= wanted <= max(here, there):
            return index + ((wanted - here) / (there - here) if there != here else 0.0)
    return None


def _list_log_times(cells: Mapping[Cell, Candidate], part: str, place: int, number: int) -> list[float] | None:
    """Log convergence time of ``part`` at every rung of its ladder; None where one is unknown."""
    time_of: dict[int, float] = {}
    for cell, candidate in cells.items():
        time = candidate.convergence_examples.get(part)
        if time is not None and math.isfinite(time.value) and time.value > 0:
            time_of[cell[place]] = math.log(time.value)
    return [time_of[index] for index in range(number)] if len(time_of) == number else None


def _draw_balanced_line(line: Sequence[tuple[float, float]]) -> list[Trace]:
    """Draw the balanced line over a halo that sets it off from dark and light cells."""
    dotted: Trace = {
        "type": "scatter",
        "mode": "lines",
        "x": [column for column, _ in line],
        "y": [row for _, row in line],
        "name": BALANCED,
        "line": {"color": "@warn", "width": 3, "dash": "dot"},
        "hovertemplate": "both parts converge together<extra></extra>",
    }
    halo = {**dotted, "line": {"color": "@card", "width": 6}, "showlegend": False, "hoverinfo": "skip"}
    return [{key: value for key, value in halo.items() if key != "hovertemplate"}, dotted]


def _make_ladder_axis(title: str, ladder: Sequence[int], **more: Any) -> dict[str, Any]:
    ticks = {"tickvals": list(range(len(ladder))), "ticktext": [str(rank) for rank in ladder]}
    return make_axis(title, **ticks, range=[-0.56, len(ladder) - 0.44], showgrid=False, **more)
