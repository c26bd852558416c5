"""Searches compared: regret against cost, table by table, what they cost, and what their probabilities are worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from marslora.replay import (
    BenchmarkResult,
    FamilyCurve,
    Reliability,
    ReplayScore,
    bootstrap_mean,
    build_family_curves,
    measure_reliability,
)
from marslora.report.figures._style import (
    ACCENT,
    DASHES,
    INK,
    LEVEL_NOTE,
    MUTED,
    SYMBOLS,
    WARN,
    Chart,
    Trace,
    axis,
    fade,
    frame,
    log_axis,
    text,
)
from marslora.report.numbers import loss, percent, plural, short

COST_TICKS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.6, 2, 3, 4, 6, 10, 16, 32, 64, 128)
REGRET_TICKS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
COST_FROM, REGRET_FROM = 0.9, 0.002
"""Axes are logarithms of cost - `COST_FROM` and of regret + `REGRET_FROM`: both begin where a logarithm cannot."""
PEERS = (fade(INK, 0.6), "@r5", "@r4", "@r3", "@r6", fade(MUTED, 0.8))


def place_cost(cost: float) -> float:
    """Where a cost in full runs stands on its axis."""
    return math.log10(max(cost - COST_FROM, 0.01))


def place_regret(regret: float) -> float:
    """Where a regret in nats stands on its axis."""
    return math.log10(max(regret, 0.0) + REGRET_FROM)


def draw_regret_charts(bench: BenchmarkResult) -> list[Chart]:
    """Draw regret against cost over all tables, across the page."""
    found = build_family_curves(bench.scores)
    return [
        Chart(
            name="regret",
            title="Regret against cost",
            traces=_lines(bench, found, has_bands=True),
            layout=_frame(found),
            caption=(
                "Mean over tables, seeds and limits on parameters; each point is one setting of a family. Bands are "
                f"{LEVEL_NOTE}s over tables and seeds. Lower and further left is better; 1 is the final run alone."
            ),
            height=560,
            wide=True,
        )
    ]


def draw_charts_by_table(bench: BenchmarkResult) -> list[Chart]:
    """Draw regret against cost for each table."""
    found = []
    for number, header in enumerate(bench.tables):
        own = build_family_curves([score for score in bench.scores if score.table == header.name])
        spread = {score.instance: score.median_regret for score in bench.scores if score.table == header.name}
        lost = short(float(np.mean(list(spread.values())))) if spread else "-"
        found.append(
            Chart(
                name=f"regret-{number}",
                title=header.name,
                traces=_lines(bench, own, has_bands=False),
                layout={**_frame(own, 0.11), "showlegend": False},
                caption=f"{header.description} The median allocation ends {lost} nats above the best.",
                height=300,
            )
        )
    return found


def _frame(found: dict[str, FamilyCurve], apart: float = 0.055) -> dict[str, object]:
    costs = [float(cost) for curve in found.values() for cost in curve.cost_S]
    regrets = [float(regret) for curve in found.values() for regret in curve.regret_SW.mean(axis=1)]
    x = _axis("full runs paid for, the final run included", COST_TICKS, place_cost, costs, apart)
    y = _axis("regret (nats per answer token)", REGRET_TICKS, place_regret, [0.0, *regrets], 0.055)
    return frame(x, y)


def _axis(
    title: str, ticks: Sequence[float], place: Callable[[float], float], values: Sequence[float], apart: float
) -> dict[str, object]:
    low, high = place(min(values, default=1.0)), place(max(values, default=1.0))
    margin = 0.06 * (high - low) + 0.02
    inside: list[float] = []
    for tick in ticks:  # labels that would touch are left out
        far = not inside or place(tick) - place(inside[-1]) > apart * (high - low)
        if low - margin <= place(tick) <= high + margin and far:
            inside.append(tick)
    return axis(
        title,
        tickvals=[place(tick) for tick in inside],
        ticktext=[f"{tick:g}" for tick in inside],
        tickangle=0,
        range=[low - margin, high + margin],
    )


def _lines(bench: BenchmarkResult, found: dict[str, FamilyCurve], *, has_bands: bool) -> list[Trace]:
    traces: list[Trace] = []
    ordered = sorted(found.values(), key=lambda curve: curve.family in _noted(bench))  # those noted lie on top
    for curve in ordered:
        style = _style(bench, curve.family)
        intervals = [bootstrap_mean(regret_W, curve.clusters) for regret_W in curve.regret_SW]
        if has_bands and curve.family in _noted(bench):
            traces.append(_band(curve, [(each.low, each.high) for each in intervals], style["color"]))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [place_cost(float(cost)) for cost in curve.cost_S],
                "y": [place_regret(each.value) for each in intervals],
                "customdata": [
                    [text(setting), short(float(cost)), loss(each.value), loss(each.low), loss(each.high)]
                    for setting, cost, each in zip(curve.settings, curve.cost_S, intervals, strict=True)
                ],
                "name": text(curve.family),
                "legendgroup": text(curve.family),
                "line": {"color": style["color"], "dash": style["dash"], "width": style["width"]},
                "marker": {"symbol": style["symbol"], "size": style["size"], "color": style["color"]},
                "hovertemplate": (
                    "%{customdata[0]}<br>%{customdata[1]} full runs, regret %{customdata[2]} "
                    "(%{customdata[3]} to %{customdata[4]})<extra>" + text(curve.family) + "</extra>"
                ),
            }
        )
    return traces


def _noted(bench: BenchmarkResult) -> tuple[str, ...]:
    """The families that stand out: the reference, and those that say how sure they are."""
    told = {score.family for score in bench.scores if score.p_best is not None}
    return (bench.reference, *(family for family in bench.families if family in told and family != bench.reference))


def _style(bench: BenchmarkResult, family: str) -> dict[str, object]:
    noted, number = _noted(bench), bench.families.index(family)
    symbol, dash = SYMBOLS[number % len(SYMBOLS)], DASHES[number % len(DASHES)]
    if family == bench.reference:
        return {"color": INK, "dash": "solid", "width": 2.5, "size": 9, "symbol": "square"}
    if family in noted:
        first = family == noted[1]
        return {"color": ACCENT if first else WARN, "dash": "solid", "width": 2.5, "size": 9, "symbol": "circle"}
    return {"color": PEERS[number % len(PEERS)], "dash": dash, "width": 1.3, "size": 7, "symbol": symbol}


def _band(curve: FamilyCurve, bounds: Sequence[tuple[float, float]], colour: object) -> Trace:
    x = [place_cost(float(cost)) for cost in curve.cost_S]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*x, *reversed(x)],
        "y": [*(place_regret(high) for _, high in bounds), *(place_regret(low) for low, _ in reversed(bounds))],
        "fill": "toself",
        "fillcolor": fade(str(colour), 0.14),
        "line": {"width": 0, "color": fade(str(colour), 0.14)},
        "legendgroup": text(curve.family),
        "showlegend": False,
        "hoverinfo": "skip",
    }


def draw_reliability_charts(bench: BenchmarkResult) -> list[Chart]:
    """Draw reported probabilities against what was so; an empty list if no family reports any."""
    known = [found for family in _noted(bench) if (found := measure_reliability(bench.scores, family)) is not None]
    if not known:
        return []
    straight = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"color": MUTED, "dash": "dot", "width": 1.2},
        "name": "exact",
        "hoverinfo": "skip",
    }
    marks = [trace for found in known for trace in _marks(found, str(_style(bench, found.family)["color"]))]
    share = {"tickformat": ".0%", "range": [-0.04, 1.06]}
    layout = frame(axis("reported probability of being best", **share), axis("share that was best", **share))
    first = known[0]
    return [
        Chart(
            name="reliability",
            title="Are the reported probabilities right?",
            traces=[straight, *marks],
            layout=layout,
            caption=(
                f"{first.family}: in {percent(first.coverage_best)} of {plural(first.num, 'replay')} the reported 90 % "
                f"set contains the best allocation, in {percent(first.coverage)} the best or one that seeds cannot "
                "distinguish from it. On the dotted line probabilities are exact; above it they are too low."
            ),
            height=400,
        )
    ]


def _marks(found: Reliability, colour: str) -> list[Trace]:
    def trace(name: str, heights: Sequence[float], symbol: str) -> Trace:
        return {
            "type": "scatter",
            "mode": "lines+markers",
            "x": [each.stated for each in found.bins],
            "y": list(heights),
            "customdata": [each.num for each in found.bins],
            "name": text(f"{found.family}: {name}"),
            "line": {"color": colour, "width": 1.5, "dash": "solid" if symbol == "circle" else "dash"},
            "marker": {
                "symbol": symbol,
                "color": colour,
                "size": [6 + 14 * math.sqrt(each.num / found.num) for each in found.bins],
            },
            "hovertemplate": "reported %{x:.0%}, best in %{y:.0%} of %{customdata} replays<extra></extra>",
        }

    strict = trace("the best", [each.best for each in found.bins], "circle")
    return [strict, trace("the best or tied", [each.best_or_tied for each in found.bins], "circle-open")]


def draw_cost_charts(bench: BenchmarkResult) -> list[Chart]:
    """Draw what every setting of every family cost, the cheapest family on top."""
    by_family: dict[str, dict[str, list[ReplayScore]]] = {}
    for score in bench.scores:
        by_family.setdefault(score.family, {}).setdefault(score.setting, []).append(score)
    least = {family: min(_mean_cost(of) for of in settings.values()) for family, settings in by_family.items()}
    order = sorted(by_family, key=lambda family: -least[family])
    rows = [(family, setting, of) for family in order for setting, of in by_family[family].items()]
    costs = [score.cost for score in bench.scores]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [_mean_cost(of) for _, _, of in rows],
        "y": [text(family) for family, _, _ in rows],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [max(score.cost for score in of) - _mean_cost(of) for _, _, of in rows],
            "arrayminus": [_mean_cost(of) - min(score.cost for score in of) for _, _, of in rows],
            "color": fade(MUTED, 0.6),
            "thickness": 1.2,
            "width": 3,
        },
        "customdata": [
            [text(setting), short(_mean(of, "seconds")), short(_mean(of, "num_rounds"))] for _, setting, of in rows
        ],
        "marker": {"size": 9, "color": [str(_style(bench, family)["color"]) for family, _, _ in rows]},
        "hovertemplate": (
            "%{customdata[0]}<br>%{x:.2f} full runs, %{customdata[1]} s, %{customdata[2]} rounds<extra>%{y}</extra>"
        ),
    }
    names = [text(family) for family in order]
    layout = frame(
        log_axis("full runs paid for, the final run included", costs),
        axis("", type="category", categoryorder="array", categoryarray=names),
        showlegend=False,
    )
    return [
        Chart(
            name="bench-cost",
            title="What a search costs",
            traces=[trace],
            layout=layout,
            caption=(
                "Each point is one setting, mean over all replays; lines reach from the cheapest to the most "
                "expensive. A search that continues a run pays only for the rest of it."
            ),
            height=100 + 26 * len(order),
            wide=True,
        )
    ]


def _mean_cost(scores: Sequence[ReplayScore]) -> float:
    return _mean(scores, "cost")


def _mean(scores: Sequence[ReplayScore], name: str) -> float:
    return float(np.mean([getattr(score, name) for score in scores]))
