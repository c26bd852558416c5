"""The gradients of the objectives in the final run: whether they agree, how large they are, which rule applied."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from marslora.core.runs import BlockGradient
from marslora.report.data import ReportData
from marslora.report.figures._style import (
    DASHES,
    INK,
    MUTED,
    Chart,
    Trace,
    escape_text,
    make_axis,
    make_layout,
    make_log_axis,
    pick_ordered_colours,
)
from marslora.report.numbers import format_number, format_percent, join_words

NUM_POINTS = 60
"""The most points of a line. If there are more steps, neighbours are averaged, which also smooths the noise."""
MAX_BLOCKS = 6
"""The most blocks drawn, those that conflict most often; the caption counts all of them."""


def draw_charts(data: ReportData) -> list[Chart]:
    """Draw cosines by block and norms by objective over the run; an empty list if there was only one objective."""
    notes = [note for note in data.gradients if note.cosine is not None]
    if not notes:
        return []
    return [_draw_agreement(notes), _draw_norms(notes)]


def _draw_agreement(notes: Sequence[BlockGradient]) -> Chart:
    by_block = _group_by(notes, lambda note: note.block)
    often = sorted(by_block, key=lambda block: -_share_of_conflicts(by_block[block]))[:MAX_BLOCKS]
    shown = [block for block in by_block if block in often]
    traces = [
        _draw_line(
            _average_neighbours((note.step, note.cosine or 0.0) for note in by_block[block]), block, colour, dash
        )
        for block, colour, dash in zip(shown, pick_ordered_colours(len(shown)), itertools.cycle(DASHES), strict=False)
    ]
    last = max(note.step for note in notes) + 1
    traces.append({**_draw_line([(1, 0.0), (last, 0.0)], "orthogonal", MUTED, "dash"), "hoverinfo": "skip"})
    return Chart(
        name="gradients-cosine",
        title="Do the objectives agree?",
        traces=traces,
        layout=make_layout(make_axis("optimizer step"), make_axis("cosine between gradients", range=[-1.05, 1.05])),
        caption=_write_caption(by_block),
        height=340,
    )


def _draw_norms(notes: Sequence[BlockGradient]) -> Chart:
    names = list(dict.fromkeys(name for note in notes for name in note.objectives))
    norms = {name: _total_norms(notes, name) for name in names}
    traces = [
        _draw_line(_average_neighbours(norms[name].items()), name, colour, dash)
        for name, colour, dash in zip(
            names, [INK, *pick_ordered_colours(len(names) - 1)], itertools.cycle(DASHES), strict=False
        )
    ]
    medians = {name: statistics.median(norms[name].values()) for name in names}
    strong, weak = max(names, key=medians.__getitem__), min(names, key=medians.__getitem__)
    ratio = medians[strong] / medians[weak] if medians[weak] > 0 else math.inf
    return Chart(
        name="gradients-norm",
        title="How large are their gradients?",
        traces=traces,
        layout=make_layout(
            make_axis("optimizer step"), make_log_axis("norm of the gradient", [y for t in traces for y in t["y"]])
        ),
        caption=(
            f"In the median step the gradient of {strong} was {format_number(ratio)} times as long as that of {weak}."
        ),
        height=340,
    )


def _write_caption(by_block: Mapping[str, Sequence[BlockGradient]]) -> str:
    worst = max(by_block, key=lambda block: _share_of_conflicts(by_block[block]))
    share = _share_of_conflicts(by_block[worst])
    where = f"{worst}: there" if len(by_block) > 1 else "there"
    sentences = [f"They pointed against each other most often in {where} in {format_percent(share)} of the steps."]
    if len(by_block) == 1:
        sentences = [f"They pointed against each other in {format_percent(share)} of the steps."]
    cases = Counter(note.case for notes in by_block.values() for note in notes if note.case != "plain")
    if len(cases) > 1 or "sum" not in cases:
        total = sum(cases.values())
        parts = [f"{case} ({format_percent(times / total)})" for case, times in cases.most_common()]
        sentences.append(
            f"Rules applied: {join_words(parts)}." if parts else "The gradients of every block were summed."
        )
    if len(by_block) > MAX_BLOCKS:
        sentences.append(f"Of {len(by_block)} blocks, only those that disagree most often are drawn.")
    return " ".join(sentences)


def _share_of_conflicts(notes: Sequence[BlockGradient]) -> float:
    """The share of the steps in which two gradients conflict (their cosine is below 0)."""
    return sum((note.cosine or 0.0) < 0 for note in notes) / len(notes)


def _total_norms(notes: Sequence[BlockGradient], name: str) -> dict[int, float]:
    """Norm of an objective's gradient over all blocks, by step."""
    squares: dict[int, float] = {}
    for note in notes:
        norm = dict(zip(note.objectives, note.norms, strict=True)).get(name, 0.0)
        squares[note.step] = squares.get(note.step, 0.0) + norm**2
    return {step: math.sqrt(square) for step, square in squares.items()}


def _group_by(notes: Iterable[BlockGradient], key: Callable[[BlockGradient], str]) -> dict[str, list[BlockGradient]]:
    groups: dict[str, list[BlockGradient]] = {}
    for note in notes:
        groups.setdefault(key(note), []).append(note)
    return groups


def _average_neighbours(values: Iterable[tuple[int, float]]) -> list[tuple[float, float]]:
    """(step from 1, value), sorted; if there are more than `NUM_POINTS`, neighbours are averaged."""
    ordered = sorted(values)
    size = max(1, math.ceil(len(ordered) / NUM_POINTS))
    parts = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [(1 + statistics.mean(s for s, _ in part), statistics.mean(v for _, v in part)) for part in parts]


def _draw_line(points: Sequence[tuple[float, float]], name: str, colour: str, dash: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "name": escape_text(name),
        "line": {"color": colour, "width": 2, "dash": dash},
        "hovertemplate": "step %{x:.0f}: %{y:.3g}<extra>" + escape_text(name) + "</extra>",
    }
