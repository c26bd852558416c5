"""What the final run saw of its objectives' gradients: whether they agree, how large they are, which rule applied."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from marslora.core.runs import BlockGradient
from marslora.report.data import ReportData
from marslora.report.figures._style import DASHES, INK, MUTED, Chart, Trace, axis, frame, log_axis, steps, text
from marslora.report.numbers import listing, percent, short

NUM_POINTS = 60
"""The most points of a line; with more steps, neighbours are averaged, which also smooths the noise."""
MAX_BLOCKS = 6
"""Blocks beyond these, which conflict most often, are in the sentence's count alone."""


def draw_charts(data: ReportData) -> list[Chart]:
    """Cosines by block and norms by objective over the run; an empty list if there was one objective."""
    notes = [note for note in data.gradients if note.cosine is not None]
    if not notes:
        return []
    return [_agreement(notes), _sizes(notes)]


def _agreement(notes: Sequence[BlockGradient]) -> Chart:
    by_block = _grouped(notes, lambda note: note.block)
    often = sorted(by_block, key=lambda block: -_conflicts(by_block[block]))[:MAX_BLOCKS]
    shown = [block for block in by_block if block in often]
    traces = [
        _line(_points((note.step, note.cosine or 0.0) for note in by_block[block]), block, colour, dash)
        for block, colour, dash in zip(shown, steps(len(shown)), itertools.cycle(DASHES), strict=False)
    ]
    last = max(note.step for note in notes) + 1
    traces.append({**_line([(1, 0.0), (last, 0.0)], "orthogonal", MUTED, "dash"), "hoverinfo": "skip"})
    return Chart(
        name="gradients-cosine",
        title="Do the objectives agree?",
        traces=traces,
        layout=frame(axis("optimizer step"), axis("cosine between gradients", range=[-1.05, 1.05])),
        caption=_words(by_block),
        height=340,
    )


def _sizes(notes: Sequence[BlockGradient]) -> Chart:
    names = list(dict.fromkeys(name for note in notes for name in note.objectives))
    norms = {name: _whole_norms(notes, name) for name in names}
    traces = [
        _line(_points(norms[name].items()), name, colour, dash)
        for name, colour, dash in zip(names, [INK, *steps(len(names) - 1)], itertools.cycle(DASHES), strict=False)
    ]
    medians = {name: statistics.median(norms[name].values()) for name in names}
    strong, weak = max(names, key=medians.__getitem__), min(names, key=medians.__getitem__)
    ratio = medians[strong] / medians[weak] if medians[weak] > 0 else math.inf
    return Chart(
        name="gradients-norm",
        title="How large are their gradients?",
        traces=traces,
        layout=frame(axis("optimizer step"), log_axis("norm of the gradient", [y for t in traces for y in t["y"]])),
        caption=f"In the median step the gradient of {strong} was {short(ratio)} times as long as that of {weak}.",
        height=340,
    )


def _words(by_block: Mapping[str, Sequence[BlockGradient]]) -> str:
    worst = max(by_block, key=lambda block: _conflicts(by_block[block]))
    share = _conflicts(by_block[worst])
    where = f"{worst}: there" if len(by_block) > 1 else "there"
    said = [f"They pointed against each other most often in {where} in {percent(share)} of the steps."]
    if len(by_block) == 1:
        said = [f"They pointed against each other in {percent(share)} of the steps."]
    cases = Counter(note.case for notes in by_block.values() for note in notes if note.case != "plain")
    if len(cases) > 1 or "sum" not in cases:
        total = sum(cases.values())
        parts = [f"{case} ({percent(times / total)})" for case, times in cases.most_common()]
        said.append(f"Rules applied: {listing(parts)}." if parts else "The gradients of every block were summed.")
    if len(by_block) > MAX_BLOCKS:
        said.append(f"Of {len(by_block)} blocks, only those that disagree most often are drawn.")
    return " ".join(said)


def _conflicts(notes: Sequence[BlockGradient]) -> float:
    """Share of the steps in which two gradients point apart."""
    return sum((note.cosine or 0.0) < 0 for note in notes) / len(notes)


def _whole_norms(notes: Sequence[BlockGradient], name: str) -> dict[int, float]:
    """Norm of an objective's gradient over all blocks, by step."""
    squares: dict[int, float] = {}
    for note in notes:
        norm = dict(zip(note.objectives, note.norms, strict=True)).get(name, 0.0)
        squares[note.step] = squares.get(note.step, 0.0) + norm**2
    return {step: math.sqrt(square) for step, square in squares.items()}


def _grouped(notes: Iterable[BlockGradient], key: Callable[[BlockGradient], str]) -> dict[str, list[BlockGradient]]:
    groups: dict[str, list[BlockGradient]] = {}
    for note in notes:
        groups.setdefault(key(note), []).append(note)
    return groups


def _points(values: Iterable[tuple[int, float]]) -> list[tuple[float, float]]:
    """(step from 1, value), neighbours averaged where there are many."""
    found = sorted(values)
    size = max(1, math.ceil(len(found) / NUM_POINTS))
    parts = [found[start : start + size] for start in range(0, len(found), size)]
    return [(1 + statistics.mean(s for s, _ in part), statistics.mean(v for _, v in part)) for part in parts]


def _line(points: Sequence[tuple[float, float]], name: str, colour: str, dash: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "name": text(name),
        "line": {"color": colour, "width": 2, "dash": dash},
        "hovertemplate": "step %{x:.0f}: %{y:.3g}<extra>" + text(name) + "</extra>",
    }
