"""Law-C of each part: measured convergence times against rank, the fitted law and its bootstrap band."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from marslora.core.decision import LawFit, LawPoint
from marslora.laws.convergence import ConvergenceLaw
from marslora.report.data import ReportData
from marslora.report.figures._style import SYMBOLS, Chart, Trace, fade, frame, log_axis, steps
from marslora.report.numbers import compact, count, percent, short

NUM_CURVE_POINTS = 48
"""Points of a law's line: enough to look smooth at half a page."""
FLAT = 1.15
"""Two times that differ by less than this factor are called the same."""


def draw_charts(data: ReportData) -> list[Chart]:
    """A panel for each part with convergence times."""
    laws = [law for part in data.info.parts if (law := data.convergence_law(part.name)) is not None]
    return [_panel(law, index) for index, law in enumerate(laws) if law.points]


def _panel(law: LawFit, index: int) -> Chart:
    sizes = sorted({point.inputs.get("data", 0.0) for point in law.points})
    found = sorted({point.inputs["rank"] for point in law.points if point.inputs.get("rank", 0) > 0})
    traces: list[Trace] = []
    for place, (size, colour) in enumerate(zip(sizes, steps(len(sizes)), strict=True)):
        if law.status != "failed" and found:
            traces += draw_law(law, found, size, colour)
        traces += _points(
            [p for p in law.points if p.inputs.get("data", 0.0) == size],
            size,
            colour,
            SYMBOLS[place % 8],
            9 + 3 * (len(sizes) - 1 - place),
        )
    ticks = [float(rank) for rank in found]
    across = log_axis("rank", ticks)
    across = {**across, "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    heights = [p.measured for p in law.points] + [y for t in traces for y in t["y"] if t["mode"] == "lines" and y]
    return Chart(
        name=f"law-{index}",
        title=f"{law.subject}: examples until convergence",
        traces=traces,
        layout=frame(across, log_axis("examples until convergence", heights)),
        caption=describe_law(law, found),
    )


def draw_law(law: LawFit, ranks: Sequence[float], size: float, colour: str) -> list[Trace]:
    """The law between the smallest and the largest rank at one data size, and the band of its replicates."""
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
        "name": f"law, {count(size)} rows",
        "showlegend": False,
        "hovertemplate": "rank %{x:.1f}: %{y:,.0f} examples<extra>law</extra>",
    }
    return [band, line]


def _points(points: Sequence[LawPoint], size: float, colour: str, symbol: str, size_on_page: int) -> list[Trace]:
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
                    "name": f"{compact(size)} rows" + (", at least" if censored else ""),
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
    """What the law says about rank, in examples."""
    censored = sum(point.censored for point in law.points)
    rest = f" {censored} of {len(law.points)} measurements are lower bounds (arrows)." if censored else ""
    if law.status == "failed" or not ranks:
        return f"No law could be fitted: {law.message or 'no reason was given'}.{rest}"
    size = max(point.inputs.get("data", 1.0) for point in law.points)
    inputs = {"rank": np.array([ranks[0], ranks[-1]]), "data": np.array([max(size, 1.0)] * 2)}
    slow, fast = ConvergenceLaw().predict_many(law, inputs).tolist()
    between = f"rank {ranks[0]:g} to {ranks[-1]:g} at {count(size)} rows"
    if max(slow, fast) < FLAT * min(slow, fast):
        said = f"Rank hardly changes how long {law.subject} learns: about {compact(fast)} examples at any rank."
    else:
        way = "sooner" if fast < slow else "later"
        factor, change = max(slow, fast) / min(slow, fast), f"{compact(slow)} to {compact(fast)} examples"
        said = f"From {between}, {law.subject} converges {short(factor)} times {way} ({change})."
    error = percent(law.residual) if np.isfinite(law.residual) else ""
    return said + (f" The law deviates from its points by {error} (root mean square)." if error else "") + rest
