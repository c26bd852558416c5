"""The allocations and what the search thinks of them: a map of two parts, a line of one, ranked bars of more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from marslora.core.decision import Candidate
from marslora.report.data import ReportData
from marslora.report.figures._map import BALANCED, draw_heat_map
from marslora.report.figures._style import ACCENT, INK, LEVEL_NOTE, MUTED, Chart, Trace, axis, frame, text
from marslora.report.numbers import count, loss, ranks

MANY = 20
"""The most candidates drawn in a ranked chart, as many as fit on a screen; the table has all of them."""


def draw_charts(data: ReportData) -> list[Chart]:
    """Draw one chart that suits the number of searched parts; an empty list if no loss is known."""
    known = [candidate for candidate in data.decision.candidates if find_expected_loss(candidate) is not None]
    if not known:
        return []
    if len(data.searched) == 2:
        return [_map(data)]
    return [_line(data, data.searched[0], known) if len(data.searched) == 1 else _ranked(data, known)]


def find_expected_loss(candidate: Candidate) -> float | None:
    """The predicted loss of a full run, or the observed one where nothing was predicted."""
    if candidate.predicted_loss is not None and math.isfinite(candidate.predicted_loss.value):
        return candidate.predicted_loss.value
    return candidate.observed_loss


def _map(data: ReportData) -> Chart:
    across, up = data.searched[1], data.searched[0]
    traces, layout = draw_heat_map(data, across, up, find_expected_loss)
    return Chart(
        name="allocations",
        title="The map of allocations",
        traces=traces,
        layout=layout,
        caption=_map_words(data, {str(trace.get("name")) for trace in traces}),
        height=max(360, 96 * len(data.spec.space.ladder(up)) + 90),
        wide=True,
    )


def _map_words(data: ReportData, drawn: set[str]) -> str:
    candidates = data.decision.candidates
    dropped = sum(candidate.status == "dropped" for candidate in candidates)
    said = ["Each cell is an allocation; its number is the lowest validation loss observed."]
    if any(candidate.predicted_loss is not None for candidate in candidates):
        said = [
            "Each cell is an allocation. Its large number is the lowest validation loss expected within a full run; "
            "the small one is the lowest loss observed so far."
        ]
    if dropped:
        said.append(f"{dropped} of {len(candidates)} cells were dropped (hatched).")
    plausible = data.decision.plausible
    if plausible and data.chosen.p_best is not None:
        cells = "one cell holds" if len(plausible) == 1 else f"{len(plausible)} cells hold"
        said.append(f"Inside the dashed outline, {cells} 90 % of the probability of being best.")
    imbalance = data.chosen.imbalance
    if imbalance is not None and BALANCED in drawn:
        factor = math.exp(imbalance.value)
        far = "on it" if factor < 1.25 else f"off it by a factor of {factor:.2g}"
        said.append(f"On the balanced line both parts converge together; the chosen cell lies {far}.")
    return " ".join(said)


def _line(data: ReportData, part: str, known: Sequence[Candidate]) -> Chart:
    ladder = [float(rank) for rank in data.spec.space.ladder(part)]
    ordered = sorted(known, key=lambda candidate: candidate.allocation[part])
    traces = [
        {**_dots(ordered, [float(c.allocation[part]) for c in ordered], [find_expected_loss(c) for c in ordered], "y"),
         "mode": "lines+markers", "line": {"color": MUTED, "width": 1.5}}
    ]  # fmt: skip
    seen = [candidate for candidate in ordered if candidate.observed_loss is not None]
    if seen:
        x = [float(candidate.allocation[part]) for candidate in seen]
        traces.append(_observed(x, [candidate.observed_loss for candidate in seen], seen, "line-ew-open"))
    positions = dict(zip(ladder, range(len(ladder)), strict=True))
    for trace in traces:
        trace["x"] = [positions[value] for value in trace["x"]]
    ticks = {"tickvals": list(range(len(ladder))), "ticktext": [f"{rank:g}" for rank in ladder]}
    x_axis = axis(f"{part} rank", **ticks, range=[-0.3, len(ladder) - 0.7])
    return Chart(
        name="allocations",
        title=f"Ranks of {part}",
        traces=traces,
        layout=frame(x_axis, axis("validation loss (nats per answer token)")),
        caption=_best_words(data, known),
        wide=True,
    )


def _ranked(data: ReportData, known: Sequence[Candidate]) -> Chart:
    ordered = sorted(known, key=lambda candidate: find_expected_loss(candidate) or math.inf)
    first = [candidate for candidate in ordered[:MANY] if candidate.status != "chosen"]
    rows = sorted([data.chosen, *first], key=lambda c: find_expected_loss(c) or math.inf, reverse=True)
    y = [float(place) for place in range(len(rows))]
    traces: list[Trace] = [_dots(rows, [find_expected_loss(candidate) for candidate in rows], y, "x")]
    seen = [(place, candidate) for place, candidate in zip(y, rows, strict=True) if candidate.observed_loss is not None]
    if seen:
        traces.append(_observed([c.observed_loss for _, c in seen], [place for place, _ in seen], [c for _, c in seen]))
    names = [text(ranks(candidate.allocation, data.searched)) for candidate in rows]
    chosen = next(place for place, candidate in enumerate(rows) if candidate.status == "chosen")
    names[chosen] = f"<b>{names[chosen]}</b>"
    y_axis = axis("", tickvals=y, ticktext=names, range=[-0.6, len(rows) - 0.4])
    more = (
        f" The best {len(rows)} of {len(known)} are drawn; the table below lists all." if len(known) > len(rows) else ""
    )
    return Chart(
        name="allocations",
        title="The allocations, best first",
        traces=traces,
        layout=frame(axis("validation loss (nats per answer token)"), y_axis),
        caption=_best_words(data, known) + more,
        height=26 * len(rows) + 110,
        wide=True,
    )


def _best_words(data: ReportData, known: Sequence[Candidate]) -> str:
    ordered = sorted(known, key=lambda candidate: find_expected_loss(candidate) or math.inf)
    best, worst = ordered[0], ordered[-1]
    gap = (find_expected_loss(worst) or 0.0) - (find_expected_loss(best) or 0.0)
    said = (
        f"{ranks(best.allocation, data.searched)} has the lowest expected loss ({loss(find_expected_loss(best))}); "
        f"the worst is {loss(gap)} nats higher. Bars are {LEVEL_NOTE}s."
    )
    if best.allocation != data.decision.chosen:
        said += f" The choice is {ranks(data.decision.chosen, data.searched)}: {data.chosen.reason.rstrip('.')}."
    return said


def _dots(rows: Sequence[Candidate], x: Sequence[float | None], y: Sequence[float | None], along: str) -> Trace:
    """Expected losses with their intervals, the chosen one in the accent colour."""
    value = {"x": x, "y": y}[along]
    intervals = [candidate.predicted_loss for candidate in rows]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": list(y),
        "name": "expected in a full run",
        "customdata": [text(candidate.allocation) for candidate in rows],
        "marker": {
            "size": [13 if candidate.status == "chosen" else 8 for candidate in rows],
            "color": [choose_colour(candidate) for candidate in rows],
            "symbol": ["star" if candidate.status == "chosen" else "circle" for candidate in rows],
        },
        f"error_{along}": {
            "type": "data",
            "symmetric": False,
            "array": [i.high - (v or 0.0) if i else None for i, v in zip(intervals, value, strict=True)],
            "arrayminus": [(v or 0.0) - i.low if i else None for i, v in zip(intervals, value, strict=True)],
            "color": MUTED,
            "thickness": 1.2,
            "width": 3,
        },
        "hovertemplate": "%{customdata}<br>%{" + along + ":.4f}<extra></extra>",
    }


def _observed(
    x: Iterable[float | None], y: Iterable[float | None], rows: Sequence[Candidate], symbol: str = "line-ns-open"
) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": list(y),
        "name": "observed so far",
        "customdata": [f"after {count(candidate.observed_examples)} examples" for candidate in rows],
        "marker": {"symbol": symbol, "size": 10, "color": INK, "line": {"width": 1.6}},
        "hovertemplate": "%{customdata}<extra>observed</extra>",
    }


def choose_colour(candidate: Candidate) -> str:
    """The accent for what was chosen, ink for what was kept, muted for what was dropped."""
    return {"chosen": ACCENT, "kept": INK, "dropped": MUTED}[candidate.status]
