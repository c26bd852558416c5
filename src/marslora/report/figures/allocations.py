"""The expected loss of the allocations: a heat map for two searched parts, a line for one, a ranking for more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from marslora.core.decision import Candidate
from marslora.report.candidates import (
    find_expected_loss,
    list_rates,
    name_candidate,
    select_best,
    select_best_settings,
    sort_by_loss,
)
from marslora.report.data import ReportData
from marslora.report.figures._map import BALANCED, draw_heat_map
from marslora.report.figures._style import (
    ACCENT,
    INK,
    LEVEL_NOTE,
    MUTED,
    Chart,
    Trace,
    escape_text,
    make_axis,
    make_layout,
)
from marslora.report.numbers import format_count, format_loss

MANY = 20
"""The most candidates drawn in a ranked chart, as many as fit on a screen; the table has all of them."""


def draw_charts(data: ReportData) -> list[Chart]:
    """Draw one chart that suits the number of searched parts; an empty list if no loss is known."""
    known = [candidate for candidate in data.decision.candidates if find_expected_loss(candidate) is not None]
    if not known:
        return []
    if len(data.searched) == 2:
        return [_draw_map(data)]
    if len(data.searched) > 2:
        return [_draw_ranking(data, known)]
    part = data.searched[0]
    return [_draw_line(data, part, list(select_best(known, lambda each: each.allocation[part]).values()))]


def _draw_map(data: ReportData) -> Chart:
    across, up = data.searched[1], data.searched[0]
    traces, layout = draw_heat_map(data, across, up, find_expected_loss)
    return Chart(
        name="allocations",
        title="The map of allocations",
        traces=traces,
        layout=layout,
        caption=_write_map_caption(data, {str(trace.get("name")) for trace in traces}),
        height=max(360, 96 * len(data.space.ladder(up)) + 90),
        wide=True,
    )


def _write_map_caption(data: ReportData, drawn: set[str]) -> str:
    candidates = select_best_settings(data).values()
    dropped = sum(candidate.status == "dropped" for candidate in candidates)
    has_rates = len(list_rates(data)) > 1
    best = " at its best learning rate" if has_rates else ""
    sentences = [f"Each cell is an allocation{best}; its number is the lowest validation loss observed."]
    if any(candidate.predicted_loss is not None for candidate in candidates):
        sentences = [
            f"Each cell is an allocation{best}. Its large number is the lowest validation loss expected within a full "
            f"run; the small print is the lowest loss observed so far{', and the rate' if has_rates else ''}."
        ]
    if dropped:
        sentences.append(f"{dropped} of {len(candidates)} cells were dropped (hatched).")
    plausible = {setting.allocation for setting in data.decision.plausible}
    if plausible and data.chosen.p_best is not None:
        cells = "one cell holds" if len(plausible) == 1 else f"{len(plausible)} cells hold"
        sentences.append(f"Inside the dashed outline, {cells} 90 % of the probability of being best.")
    imbalance = data.chosen.imbalance
    if imbalance is not None and BALANCED in drawn:
        factor = math.exp(imbalance.value)
        far = "on it" if factor < 1.25 else f"off it by a factor of {factor:.2g}"
        sentences.append(f"On the balanced line both parts converge together; the chosen cell lies {far}.")
    return " ".join(sentences)


def _draw_line(data: ReportData, part: str, known: Sequence[Candidate]) -> Chart:
    ladder = [float(rank) for rank in data.space.ladder(part)]
    ordered = sorted(known, key=lambda candidate: candidate.allocation[part])
    traces = [
        {
            **_draw_expected(
                ordered, [float(c.allocation[part]) for c in ordered], [find_expected_loss(c) for c in ordered], "y"
            ),
            "mode": "lines+markers",
            "line": {"color": MUTED, "width": 1.5},
        }
    ]
    seen = [candidate for candidate in ordered if candidate.observed_loss is not None]
    if seen:
        x = [float(candidate.allocation[part]) for candidate in seen]
        traces.append(_draw_observed(x, [candidate.observed_loss for candidate in seen], seen, "line-ew-open"))
    positions = dict(zip(ladder, range(len(ladder)), strict=True))
    for trace in traces:
        trace["x"] = [positions[value] for value in trace["x"]]
    ticks = {"tickvals": list(range(len(ladder))), "ticktext": [f"{rank:g}" for rank in ladder]}
    x_axis = make_axis(f"{part} rank", **ticks, range=[-0.3, len(ladder) - 0.7])
    return Chart(
        name="allocations",
        title=f"Ranks of {part}",
        traces=traces,
        layout=make_layout(x_axis, make_axis("loss (nats per answer token)")),
        caption=_write_caption(data, known),
        wide=True,
    )


def _draw_ranking(data: ReportData, known: Sequence[Candidate]) -> Chart:
    ordered = sort_by_loss(known)
    first = [candidate for candidate in ordered[:MANY] if candidate.status != "chosen"]
    rows = sort_by_loss([data.chosen, *first])[::-1]
    y = [float(place) for place in range(len(rows))]
    traces: list[Trace] = [_draw_expected(rows, [find_expected_loss(candidate) for candidate in rows], y, "x")]
    seen = [(place, candidate) for place, candidate in zip(y, rows, strict=True) if candidate.observed_loss is not None]
    if seen:
        traces.append(
            _draw_observed([c.observed_loss for _, c in seen], [place for place, _ in seen], [c for _, c in seen])
        )
    names = [escape_text(name_candidate(candidate, data)) for candidate in rows]
    chosen = next(place for place, candidate in enumerate(rows) if candidate.status == "chosen")
    names[chosen] = f"<b>{names[chosen]}</b>"
    y_axis = make_axis("", tickvals=y, ticktext=names, range=[-0.6, len(rows) - 0.4])
    more = (
        f" The best {len(rows)} of {len(known)} are drawn; the table below lists all." if len(known) > len(rows) else ""
    )
    return Chart(
        name="allocations",
        title=f"The {data.candidate_noun}s, best first",
        traces=traces,
        layout=make_layout(make_axis("loss (nats per answer token)"), y_axis),
        caption=_write_caption(data, known) + more,
        height=26 * len(rows) + 110,
        wide=True,
    )


def _write_caption(data: ReportData, known: Sequence[Candidate]) -> str:
    ordered = sort_by_loss(known)
    best, worst = ordered[0], ordered[-1]
    gap = (find_expected_loss(worst) or 0.0) - (find_expected_loss(best) or 0.0)
    caption = (
        f"{name_candidate(best, data)} has the lowest expected loss ({format_loss(find_expected_loss(best))}); "
        f"the worst is {format_loss(gap)} nats higher. Bars are {LEVEL_NOTE}s."
    )
    if best.setting != data.decision.setting:
        caption += f" The choice is {name_candidate(data.chosen, data)}: {data.chosen.reason.rstrip('.')}."
    return caption


def _draw_expected(
    rows: Sequence[Candidate], x: Sequence[float | None], y: Sequence[float | None], along: str
) -> Trace:
    """Expected losses with their intervals; the chosen allocation has the accent colour. ``along``: the loss's axis."""
    value = {"x": x, "y": y}[along]
    intervals = [candidate.predicted_loss for candidate in rows]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": list(y),
        "name": "expected in a full run",
        "customdata": [escape_text(candidate.setting) for candidate in rows],
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


def _draw_observed(
    x: Iterable[float | None], y: Iterable[float | None], rows: Sequence[Candidate], symbol: str = "line-ns-open"
) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": list(x),
        "y": list(y),
        "name": "observed so far",
        "customdata": [f"after {format_count(candidate.observed_examples)} examples" for candidate in rows],
        "marker": {"symbol": symbol, "size": 10, "color": INK, "line": {"width": 1.6}},
        "hovertemplate": "%{customdata}<extra>observed</extra>",
    }


def choose_colour(candidate: Candidate) -> str:
    """The accent colour for the chosen allocation, ink for those that were kept, muted for those that were dropped."""
    return {"chosen": ACCENT, "kept": INK, "dropped": MUTED}[candidate.status]
