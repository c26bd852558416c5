"""Law-C of each part: measured convergence times against rank, the fitted law and its bootstrap band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marslora.core.decision import LawFit, LawPoint
from marslora.laws.convergence import ConvergenceLaw
from marslora.report.data import ReportData
from marslora.report.figures._style import SYMBOLS, Chart, Trace, fade, make_layout, make_log_axis, pick_ordered_colours
from marslora.report.numbers import abbreviate_count, format_count, format_number, format_percent

NUM_CURVE_POINTS = 48
"""Points of a law's line: enough to look smooth at half a page."""
FLAT = 1.15
"""The caption treats two times that differ by less than this factor as equal."""


def draw_charts(data: ReportData) -> list[Chart]:
    """Draw one panel for each part with measured convergence times."""
    laws = [law for part in data.info.parts if (law := data.convergence_law(part.name)) is not None]
    return [_draw_panel(law, index) for index, law in enumerate(laws) if law.points]


def _draw_panel(law: LawFit, index: int) -> Chart:
    sizes = sorted({point.inputs.get("data", 0.0) for point in law.points})
    ranks = sorted({point.inputs["rank"] for point in law.points if point.inputs.get("rank", 0) > 0})
    traces: list[Trace] = []
    for place, (size, colour) in enumerate(zip(sizes, pick_ordered_colours(len(sizes)), strict=True)):
        if law.status != "failed" and ranks:
            traces += draw_law(law, ranks, size, colour)
        traces += _draw_points(
            [p for p in law.points if p.inputs.get("data", 0.0) == size],
            size,
            colour,
            SYMBOLS[place % 8],
            9 + 3 * (len(sizes) - 1 - place),
        )
    ticks = [float(rank) for rank in ranks]
    across = make_log_axis("rank", ticks)
    across = {**across, "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    heights = [p.measured for p in law.points] + [y for t in traces for y in t["y"] if t["mode"] == "lines" and y]
    return Chart(
        name=f"law-{index}",
        title=f"{law.subject}: examples until convergence",
        traces=traces,
        layout=make_layout(across, make_log_axis("examples until convergence", heights)),
        caption=describe_law(law, ranks),
    )


def draw_law(law: LawFit, ranks: Sequence[float], size: float, colour: str) -> list[Trace]:
    """Draw the law and the band of its bootstrap replicates between the smallest and largest rank, at one data size."""
    rank_N = np.geomspace(min(ranks), max(ranks), NUM_CURVE_POINTS)
    inputs = {"rank": rank_N, "data": np.full(NUM_CURVE_POINTS, max(size, 1.0))}
    model = ConvergenceLaw()
    middle_N = model.predict_many(law, inputs)
    low_N, high_N = np.nanquantile(model.predict_draws(law, inputs), [0.05, 0.95], axis=0)
    band: Trace = {
        "type": "scatter",
        "mode": "none",
        "x": [*rank_N.tolist(), *rank_N[::-1].tolist()],
        "y": [*np.maximum(high_N, middle_N).tolist(), *np.minimum(low_N, middle_N)[::-1].tolist()],
        "fill": "toself",
        "fillcolor": fade(colour, 0.16),
        "hoverinfo": "skip",
        "showlegend": False,
    }
    line: Trace = {
        "type": "scatter",
        "mode": "lines",
        "x": rank_N.tolist(),
        "y": middle_N.tolist(),
        "line": {"color": colour, "width": 2},
        "name": f"law, {format_count(size)} rows",
        "showlegend": False,
        "hovertemplate": "rank %{x:.1f}: %{y:,.0f} examples<extra>law</extra>",
    }
    return [band, line]


def _draw_points(points: Sequence[LawPoint], size: float, colour: str, symbol: str, size_on_page: int) -> list[Trace]:
    traces = []
    for censored in (False, True):
        chosen = [point for point in points if point.censored is censored]
        if chosen:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [point.inputs["rank"] for point in chosen],
                    "y": [point.measured for point in chosen],
                    "name": f"{abbreviate_count(size)} rows" + (", at least" if censored else ""),
                    "marker": {
                        "symbol": "arrow-up" if censored else symbol,
                        "size": size_on_page + 3 if censored else 9,
                        "color": colour,
                        "line": {"color": "@ink", "width": 1},
                    },
                    "hovertemplate": "rank %{x}: "
                    + ("more than " if censored else "")
                    + "%{y:,.0f} examples<extra></extra>",
                }
            )
    return traces


def describe_law(law: LawFit, ranks: Sequence[float]) -> str:
    """The caption of a panel: how the convergence time depends on rank, in examples."""
    censored = sum(point.censored for point in law.points)
    rest = f" {censored} of {len(law.points)} measurements are lower bounds (arrows)." if censored else ""
    if law.status == "failed" or not ranks:
        return f"No law could be fitted: {law.message or 'no reason was given'}.{rest}"
    size = max(point.inputs.get("data", 1.0) for point in law.points)
    inputs = {"rank": np.array([ranks[0], ranks[-1]]), "data": np.array([max(size, 1.0)] * 2)}
    slow, fast = ConvergenceLaw().predict_many(law, inputs).tolist()
    between = f"rank {ranks[0]:g} to {ranks[-1]:g} at {format_count(size)} rows"
    if max(slow, fast) < FLAT * min(slow, fast):
        caption = (
            f"Rank hardly changes how long {law.subject} learns: about {abbreviate_count(fast)} examples at any rank."
        )
    else:
        way = "sooner" if fast < slow else "later"
        factor, change = (
            max(slow, fast) / min(slow, fast),
            f"{abbreviate_count(slow)} to {abbreviate_count(fast)} examples",
        )
        caption = f"From {between}, {law.subject} converges {format_number(factor)} times {way} ({change})."
    error = format_percent(law.residual) if np.isfinite(law.residual) else ""
    return caption + (f" The law deviates from its points by {error} (root mean square)." if error else "") + rest
