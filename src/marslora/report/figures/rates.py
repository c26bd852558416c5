"""The learning rates: what the search expects of each, at every rank of the part that matters most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from marslora.core.decision import Candidate
from marslora.report.candidates import (
    find_expected_loss,
    find_most_important_part,
    list_rates,
    name_candidate,
    select_best,
)
from marslora.report.data import ReportData
from marslora.report.figures._style import (
    ACCENT,
    LEVEL_NOTE,
    Chart,
    Trace,
    escape_text,
    make_axis,
    make_layout,
    make_log_axis,
    pick_ordered_colours,
)
from marslora.report.numbers import format_loss, format_number

SHIFT = 1.012
"""Factor between the places of neighbouring lines, so that their intervals do not cover each other."""


def draw_charts(data: ReportData) -> list[Chart]:
    """A line for each rank of the most important part; an empty list if the learning rate was not searched."""
    rates = list_rates(data)
    known = [candidate for candidate in data.decision.candidates if find_expected_loss(candidate) is not None]
    if len(rates) < 2 or not known:
        return []
    part = find_most_important_part(data)
    best = select_best(known, lambda candidate: (candidate.allocation.get(part), candidate.learning_rate))
    ranks = data.space.ladder(part)
    lines = {rank: [best[rank, rate] for rate in rates if (rank, rate) in best] for rank in ranks}
    drawn = {rank: line for rank, line in lines.items() if line}
    colours = dict(zip(drawn, pick_ordered_colours(len(drawn)), strict=True))
    middle = (len(drawn) - 1) / 2
    traces = [
        _draw_line(line, f"{part} rank {rank}", colours[rank], SHIFT ** (place - middle), data)
        for place, (rank, line) in enumerate(drawn.items())
    ]
    traces += _mark_choice(data, drawn, middle)
    shown = {"tickvals": rates, "ticktext": [f"{rate:g}" for rate in rates]}
    across = {**make_log_axis("learning rate", [rates[0] / 1.1, rates[-1] * 1.1]), **shown}
    return [
        Chart(
            name="rates",
            title="Learning rates",
            traces=traces,
            layout=make_layout(across, make_axis("loss (nats per answer token)")),
            caption=_write_caption(part, drawn),
            wide=True,
        )
    ]


def _draw_line(line: Sequence[Candidate], name: str, colour: str, shift: float, data: ReportData) -> Trace:
    losses = [find_expected_loss(candidate) or 0.0 for candidate in line]
    intervals = [candidate.predicted_loss for candidate in line]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [shift * (candidate.learning_rate or 0.0) for candidate in line],
        "y": losses,
        "name": escape_text(name),
        "line": {"color": colour, "width": 2},
        "marker": {"color": colour, "size": 7},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [i.high - value if i else None for i, value in zip(intervals, losses, strict=True)],
            "arrayminus": [value - i.low if i else None for i, value in zip(intervals, losses, strict=True)],
            "color": colour,
            "thickness": 1,
            "width": 3,
        },
        "customdata": [escape_text(name_candidate(candidate, data)) for candidate in line],
        "hovertemplate": "%{customdata}<br>%{y:.4f}<extra></extra>",
    }


def _mark_choice(data: ReportData, drawn: Mapping[int, Sequence[Candidate]], middle: float) -> list[Trace]:
    for place, line in enumerate(drawn.values()):
        for candidate in line:
            if candidate.status == "chosen":
                return [
                    {
                        "type": "scatter",
                        "mode": "markers",
                        "x": [SHIFT ** (place - middle) * (candidate.learning_rate or 0.0)],
                        "y": [find_expected_loss(candidate)],
                        "name": "chosen",
                        "marker": {"symbol": "star", "size": 15, "color": ACCENT},
                        "hovertemplate": escape_text(name_candidate(candidate, data)) + "<extra>chosen</extra>",
                    }
                ]
    return []


def _write_caption(part: str, drawn: Mapping[int, Sequence[Candidate]]) -> str:
    caption = (
        f"One line for each rank of {part}, the part whose rank matters most, each at the best of all other ranks."
    )
    if any(candidate.predicted_loss is not None for line in drawn.values() for candidate in line):
        caption += f" Losses are those expected within a full run; bars are {LEVEL_NOTE}s."
    else:
        caption += " Losses are the lowest observed; runs of different lengths are not comparable."
    best = {rank: min(line, key=lambda each: find_expected_loss(each) or math.inf) for rank, line in drawn.items()}
    rates = {candidate.learning_rate for candidate in best.values()}
    if len(drawn) > 1 and len(rates) == 1:
        caption += f" {format_number(rates.pop())} is best at every rank."
    elif len(drawn) > 1:
        shown = ", ".join(
            f"{format_number(candidate.learning_rate)} at rank {rank}" for rank, candidate in best.items()
        )
        caption += f" The best rates: {shown}."
    spans = [_span(line) for line in drawn.values() if len(line) > 1]
    if spans:
        caption += f" Between the best and the worst rate of a rank lie up to {format_loss(max(spans))} nats."
    return caption


def _span(line: Sequence[Candidate]) -> float:
    losses = [find_expected_loss(candidate) or 0.0 for candidate in line]
    return max(losses) - min(losses)
