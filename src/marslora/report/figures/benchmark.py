"""The charts of a benchmark of searches: regret against cost, table by table, cost, and reliability."""

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
    escape_text,
    fade,
    make_axis,
    make_layout,
    make_log_axis,
)
from marslora.report.numbers import format_loss, format_number, format_percent, pluralise

COST_TICKS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.6, 2, 3, 4, 6, 10, 16, 32, 64, 128)
REGRET_TICKS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
COST_FROM, REGRET_FROM = 0.9, 0.002
"""The axes show logarithms of cost - `COST_FROM` and of regret + `REGRET_FROM`: cost starts at 1 and regret at 0."""
PEERS = (fade(INK, 0.6), "@r5", "@r4", "@r3", "@r6", fade(MUTED, 0.8))


def place_cost(cost: float) -> float:
    """The position on its axis of a cost in full runs."""
    return math.log10(max(cost - COST_FROM, 0.01))


def place_regret(regret: float) -> float:
    """The position on its axis of a regret in nats."""
    return math.log10(max(regret, 0.0) + REGRET_FROM)


def draw_regret_charts(bench: BenchmarkResult) -> list[Chart]:
    """Draw one chart of regret against cost over all tables, as wide as the page."""
    curves = build_family_curves(bench.scores)
    return [
        Chart(
            name="regret",
            title="Regret against cost",
            traces=_draw_lines(bench, curves, has_bands=True),
            layout=_make_layout(curves),
            caption=(
                "Mean over tables, seeds and limits on parameters; each point is one setting of a family. Bands are "
                f"{LEVEL_NOTE}s over tables and seeds. Lower and further left is better; 1 is the final run alone."
            ),
            height=560,
            wide=True,
        )
    ]


def draw_charts_by_table(bench: BenchmarkResult) -> list[Chart]:
    """Draw one chart of regret against cost for each table."""
    charts = []
    for number, header in enumerate(bench.tables):
        scores = [score for score in bench.scores if score.table == header.name]
        curves = build_family_curves(scores)
        medians = {score.instance: score.median_regret for score in scores}
        median = format_number(float(np.mean(list(medians.values())))) if medians else "-"
        charts.append(
            Chart(
                name=f"regret-{number}",
                title=header.name,
                traces=_draw_lines(bench, curves, has_bands=False),
                layout={**_make_layout(curves, 0.11), "showlegend": False},
                caption=f"{header.description} The median allocation ends {median} nats above the best.",
                height=300,
            )
        )
    return charts


def _make_layout(curves: dict[str, FamilyCurve], label_gap: float = 0.055) -> dict[str, object]:
    costs = [float(cost) for curve in curves.values() for cost in curve.cost_S]
    regrets = [float(regret) for curve in curves.values() for regret in curve.regret_SW.mean(axis=1)]
    x = _make_axis("full runs paid for, the final run included", COST_TICKS, place_cost, costs, label_gap)
    y = _make_axis("regret (nats per answer token)", REGRET_TICKS, place_regret, [0.0, *regrets], 0.055)
    return make_layout(x, y)


def _make_axis(
    title: str, ticks: Sequence[float], place: Callable[[float], float], values: Sequence[float], label_gap: float
) -> dict[str, object]:
    low, high = place(min(values, default=1.0)), place(max(values, default=1.0))
    margin = 0.06 * (high - low) + 0.02
    shown: list[float] = []
    for tick in ticks:  # a label that would touch its neighbour is left out
        has_room = not shown or place(tick) - place(shown[-1]) > label_gap * (high - low)
        if low - margin <= place(tick) <= high + margin and has_room:
            shown.append(tick)
    return make_axis(
        title,
        tickvals=[place(tick) for tick in shown],
        ticktext=[f"{tick:g}" for tick in shown],
        tickangle=0,
        range=[low - margin, high + margin],
    )


def _draw_lines(bench: BenchmarkResult, curves: dict[str, FamilyCurve], *, has_bands: bool) -> list[Trace]:
    traces: list[Trace] = []
    # Highlighted families are drawn last, on top of the others.
    ordered = sorted(curves.values(), key=lambda curve: curve.family in _list_highlighted(bench))
    for curve in ordered:
        style = _choose_style(bench, curve.family)
        intervals = [bootstrap_mean(regret_W, curve.clusters) for regret_W in curve.regret_SW]
        if has_bands and curve.family in _list_highlighted(bench):
            traces.append(_draw_band(curve, [(each.low, each.high) for each in intervals], style["color"]))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [place_cost(float(cost)) for cost in curve.cost_S],
                "y": [place_regret(each.value) for each in intervals],
                "customdata": [
                    [
                        escape_text(setting),
                        format_number(float(cost)),
                        format_loss(each.value),
                        format_loss(each.low),
                        format_loss(each.high),
                    ]
                    for setting, cost, each in zip(curve.settings, curve.cost_S, intervals, strict=True)
                ],
                "name": escape_text(curve.family),
                "legendgroup": escape_text(curve.family),
                "line": {"color": style["color"], "dash": style["dash"], "width": style["width"]},
                "marker": {"symbol": style["symbol"], "size": style["size"], "color": style["color"]},
                "hovertemplate": (
                    "%{customdata[0]}<br>%{customdata[1]} full runs, regret %{customdata[2]} "
                    "(%{customdata[3]} to %{customdata[4]})<extra>" + escape_text(curve.family) + "</extra>"
                ),
            }
        )
    return traces


def _list_highlighted(bench: BenchmarkResult) -> tuple[str, ...]:
    """The highlighted families: the reference first, then those that report probabilities."""
    stating = {score.family for score in bench.scores if score.p_best is not None}
    return (bench.reference, *(family for family in bench.families if family in stating and family != bench.reference))


def _choose_style(bench: BenchmarkResult, family: str) -> dict[str, object]:
    highlighted, number = _list_highlighted(bench), bench.families.index(family)
    symbol, dash = SYMBOLS[number % len(SYMBOLS)], DASHES[number % len(DASHES)]
    if family == bench.reference:
        return {"color": INK, "dash": "solid", "width": 2.5, "size": 9, "symbol": "square"}
    if family in highlighted:
        first = family == highlighted[1]
        return {"color": ACCENT if first else WARN, "dash": "solid", "width": 2.5, "size": 9, "symbol": "circle"}
    return {"color": PEERS[number % len(PEERS)], "dash": dash, "width": 1.3, "size": 7, "symbol": symbol}


def _draw_band(curve: FamilyCurve, bounds: Sequence[tuple[float, float]], colour: object) -> Trace:
    x = [place_cost(float(cost)) for cost in curve.cost_S]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*x, *reversed(x)],
        "y": [*(place_regret(high) for _, high in bounds), *(place_regret(low) for low, _ in reversed(bounds))],
        "fill": "toself",
        "fillcolor": fade(str(colour), 0.14),
        "line": {"width": 0, "color": fade(str(colour), 0.14)},
        "legendgroup": escape_text(curve.family),
        "showlegend": False,
        "hoverinfo": "skip",
    }


def draw_reliability_charts(bench: BenchmarkResult) -> list[Chart]:
    """Draw how often candidates were best against their reported probability; an empty list without reports."""
    measured = (measure_reliability(bench.scores, family) for family in _list_highlighted(bench))
    reliabilities = [reliability for reliability in measured if reliability is not None]
    if not reliabilities:
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
    marks = [
        trace
        for reliability in reliabilities
        for trace in _draw_reliability(reliability, str(_choose_style(bench, reliability.family)["color"]))
    ]
    share = {"tickformat": ".0%", "range": [-0.04, 1.06]}
    layout = make_layout(
        make_axis("reported probability of being best", **share), make_axis("share that was best", **share)
    )
    first = reliabilities[0]
    return [
        Chart(
            name="reliability",
            title="Are the reported probabilities right?",
            traces=[straight, *marks],
            layout=layout,
            caption=(
                f"{first.family}: in {format_percent(first.coverage_best)} of {pluralise(first.num, 'replay')} the "
                f"plausible set (90 %) contains the best allocation, in {format_percent(first.coverage)} the best or "
                "one that seeds cannot distinguish from it. On the dotted line probabilities are exact; above it they "
                "are too low."
            ),
            height=400,
        )
    ]


def _draw_reliability(reliability: Reliability, colour: str) -> list[Trace]:
    def trace(name: str, heights: Sequence[float], symbol: str) -> Trace:
        return {
            "type": "scatter",
            "mode": "lines+markers",
            "x": [each.stated for each in reliability.bins],
            "y": list(heights),
            "customdata": [each.num for each in reliability.bins],
            "name": escape_text(f"{reliability.family}: {name}"),
            "line": {"color": colour, "width": 1.5, "dash": "solid" if symbol == "circle" else "dash"},
            "marker": {
                "symbol": symbol,
                "color": colour,
                "size": [6 + 14 * math.sqrt(each.num / reliability.num) for each in reliability.bins],
            },
            "hovertemplate": "reported %{x:.0%}, best in %{y:.0%} of %{customdata} replays<extra></extra>",
        }

    strict = trace("the best", [each.best for each in reliability.bins], "circle")
    return [strict, trace("the best or tied", [each.best_or_tied for each in reliability.bins], "circle-open")]


def draw_cost_charts(bench: BenchmarkResult) -> list[Chart]:
    """Draw what every setting of every family cost, the cheapest family on top."""
    by_family: dict[str, dict[str, list[ReplayScore]]] = {}
    for score in bench.scores:
        by_family.setdefault(score.family, {}).setdefault(score.setting, []).append(score)
    least = {family: min(_compute_mean_cost(of) for of in settings.values()) for family, settings in by_family.items()}
    order = sorted(by_family, key=lambda family: -least[family])
    rows = [(family, setting, of) for family in order for setting, of in by_family[family].items()]
    names = [escape_text(family) for family in order]
    layout = make_layout(
        make_log_axis("full runs paid for, the final run included", [score.cost for score in bench.scores]),
        make_axis("", type="category", categoryorder="array", categoryarray=names),
        showlegend=False,
    )
    return [
        Chart(
            name="bench-cost",
            title="What a search costs",
            traces=[_draw_costs(bench, rows)],
            layout=layout,
            caption=(
                "Each point is one setting, mean over all replays; lines reach from the cheapest to the most "
                "expensive. A search that continues a run pays only for the rest of it."
            ),
            height=100 + 26 * len(order),
            wide=True,
        )
    ]


def _draw_costs(bench: BenchmarkResult, rows: Sequence[tuple[str, str, list[ReplayScore]]]) -> Trace:
    """A point for each (family, setting, replays), with a line from the cheapest replay to the most expensive."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [_compute_mean_cost(of) for _, _, of in rows],
        "y": [escape_text(family) for family, _, _ in rows],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [max(score.cost for score in of) - _compute_mean_cost(of) for _, _, of in rows],
            "arrayminus": [_compute_mean_cost(of) - min(score.cost for score in of) for _, _, of in rows],
            "color": fade(MUTED, 0.6),
            "thickness": 1.2,
            "width": 3,
        },
        "customdata": [
            [
                escape_text(setting),
                format_number(_compute_mean(of, "seconds")),
                format_number(_compute_mean(of, "num_rounds")),
            ]
            for _, setting, of in rows
        ],
        "marker": {"size": 9, "color": [str(_choose_style(bench, family)["color"]) for family, _, _ in rows]},
        "hovertemplate": (
            "%{customdata[0]}<br>%{x:.2f} full runs, %{customdata[1]} s, %{customdata[2]} rounds<extra>%{y}</extra>"
        ),
    }


def _compute_mean_cost(scores: Sequence[ReplayScore]) -> float:
    return _compute_mean(scores, "cost")


def _compute_mean(scores: Sequence[ReplayScore], name: str) -> float:
    return float(np.mean([getattr(score, name) for score in scores]))
