"""The charts of a comparison of methods: losses and differences with intervals, loss against cost, curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from marslora.core.comparison import Comparison, MethodSummary
from marslora.core.decision import Interval
from marslora.report.figures._labels import locate_on_axis, pad_range, place_names
from marslora.report.figures._style import (
    ACCENT,
    DASHES,
    INK,
    LEVEL_NOTE,
    MUTED,
    Chart,
    Trace,
    escape_text,
    fade,
    make_axis,
    make_layout,
    make_log_axis,
    pick_ordered_colours,
)
from marslora.report.numbers import format_loss, format_number, pluralise

METRICS = {"test_loss": "test loss", "validation_loss": "validation loss"}
UNIT = "(nats per answer token)"


def draw_charts(comparison: Comparison) -> list[Chart]:
    """Draw the charts of the methods that have results; an empty list if none has."""
    methods = [method for method in comparison.ordered() if comparison.loss(method) is not None]
    if not methods:
        return []
    charts = [_draw_losses(comparison, methods)]
    charts += [_draw_differences(comparison, compared)] if (compared := [m for m in methods if m.difference]) else []
    return [*charts, _draw_costs(comparison, methods), _draw_curves(comparison, methods)]


def _draw_losses(comparison: Comparison, methods: Sequence[MethodSummary]) -> Chart:
    metric = METRICS[comparison.metric]
    seeds = {
        "type": "scatter",
        "mode": "markers",
        "x": [getattr(result, comparison.metric) for method in methods for result in method.results.values()],
        "y": [escape_text(method.name) for method in methods for _ in method.results],
        "name": "one seed",
        "marker": {"size": 6, "color": fade(INK, 0.35)},
        "hovertemplate": "%{y}: %{x:.4f}<extra>one seed</extra>",
    }
    means = [(method, interval) for method in methods if (interval := comparison.loss(method))]
    best, worst = means[0], means[-1]
    lowest, highest = format_loss(best[1].value), format_loss(worst[1].value)
    caption = f"{best[0].name} ended lowest ({lowest}), {worst[0].name} highest ({highest})."
    return Chart(
        name="losses",
        title=f"{metric.capitalize()} at the end",
        traces=[seeds, _draw_dots(means, comparison.reference.name)],
        layout=_make_rows_layout(methods, f"{metric} {UNIT}"),
        caption=f"{caption} Lines are {LEVEL_NOTE}s over {pluralise(len(comparison.seeds), 'seed')}.",
        height=_choose_height(methods),
    )


def _draw_differences(comparison: Comparison, methods: Sequence[MethodSummary]) -> Chart:
    differences = [(method, method.difference) for method in methods if method.difference is not None]
    better = sum(each.high < 0 for _, each in differences)
    worse = sum(each.low > 0 for _, each in differences)
    layout = _make_rows_layout(methods, f"{METRICS[comparison.metric]} minus that of {comparison.reference.name}")
    zero = {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": MUTED, "dash": "dot"},
    }
    number, reference = pluralise(len(differences), "method"), comparison.reference.name
    counts = f"{better} of {number} end below {reference} and {worse} above it"
    return Chart(
        name="differences",
        title="Difference from the reference",
        traces=[_draw_dots(differences, "")],
        layout={**layout, "shapes": [zero]},
        caption=f"Paired by seed, {counts}, judged by {LEVEL_NOTE}s that exclude 0. The others are indistinguishable.",
        height=_choose_height(methods),
    )


def _draw_dots(intervals: Sequence[tuple[MethodSummary, Interval]], reference: str) -> Trace:
    def half(value: float) -> float:
        return value if math.isfinite(value) else 0.0

    return {
        "type": "scatter",
        "mode": "markers",
        "x": [each.value for _, each in intervals],
        "y": [escape_text(method.name) for method, _ in intervals],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [half(each.high - each.value) for _, each in intervals],
            "arrayminus": [half(each.value - each.low) for _, each in intervals],
            "color": fade(INK, 0.6),
            "thickness": 1.6,
            "width": 5,
        },
        "marker": {"size": 11, "color": [ACCENT if method.name == reference else "@r4" for method, _ in intervals]},
        "name": "mean",
        "hovertemplate": "%{y}: %{x:.4f}<extra>mean</extra>",
    }


def _make_rows_layout(methods: Sequence[MethodSummary], title: str) -> dict[str, object]:
    names = [escape_text(method.name) for method in reversed(methods)]
    return make_layout(
        make_axis(title, nticks=6),
        make_axis("", categoryorder="array", categoryarray=names, type="category"),
        showlegend=False,
    )


def _choose_height(methods: Sequence[MethodSummary]) -> int:
    return 130 + 34 * len(methods)


def _draw_costs(comparison: Comparison, methods: Sequence[MethodSummary]) -> Chart:
    known = [
        (m, cost, interval) for m in methods if (cost := m.cost) and (interval := comparison.loss(m)) and cost.flops > 0
    ]
    reference = comparison.reference.cost
    unit = reference.flops if reference and reference.flops else 1.0
    relative_costs = [cost.flops / unit for _, cost, _ in known]
    names = [escape_text(method.name) for method, _, _ in known]
    x_range = pad_range(relative_costs)
    y_range = pad_range([interval.value for _, _, interval in known])
    points = [
        (locate_on_axis(x, x_range), locate_on_axis(interval.value, y_range))
        for x, (_, _, interval) in zip(relative_costs, known, strict=True)
    ]
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": relative_costs,
        "y": [interval.value for _, _, interval in known],
        "text": names,
        "textposition": place_names(points, names),
        "textfont": {"size": 11, "color": MUTED},
        "customdata": [[format_number(cost.seconds), format_number(method.num_trainable)] for method, cost, _ in known],
        "marker": {"size": 11, "color": [ACCENT if m is comparison.reference else "@r4" for m, _, _ in known]},
        "hovertemplate": "%{text}: %{y:.4f}<br>%{x:.3f} of the operations, %{customdata[0]} s<extra></extra>",
    }
    ratio = format_number(max(relative_costs) / min(relative_costs)) if relative_costs else ""
    caption = f"The most expensive run took {ratio} times the operations of the cheapest." if relative_costs else ""
    return Chart(
        name="costs",
        title="Loss against cost",
        traces=[trace],
        layout=make_layout(
            make_axis(f"floating-point operations of a run, {comparison.reference.name} = 1", range=x_range, nticks=6),
            make_axis(f"{METRICS[comparison.metric]} {UNIT}", range=y_range),
            showlegend=False,
        ),
        caption=f"{caption} Lower and further left is better.".strip(),
    )


def _draw_curves(comparison: Comparison, methods: Sequence[MethodSummary]) -> Chart:
    colours = list(reversed(pick_ordered_colours(len(methods))))
    points = [e for m in methods for result in m.results.values() for e in result.examples if e > 0]
    origin = min(points, default=1) / 2
    traces = [
        _draw_curve(method, INK if method is comparison.reference else colours[n], DASHES[n % len(DASHES)], origin)
        for n, method in enumerate(methods)
    ]
    up = make_log_axis(f"validation loss {UNIT}", [y for trace in traces for y in trace["y"]])
    return Chart(
        name="methods-curves",
        title="Loss during training",
        traces=traces,
        layout=make_layout(make_log_axis("examples seen", [origin, *points], start=origin), up),
        caption=(
            "Validation loss, mean over seeds. Methods in stronger colours ended lower; "
            f"{comparison.reference.name} is black."
        ),
        height=400,
        wide=True,
    )


def _draw_curve(method: MethodSummary, colour: str, dash: str, origin: float) -> Trace:
    results = list(method.results.values())
    shared = [n for n in results[0].examples if all(n in result.examples for result in results)]
    losses = [dict(zip(result.examples, result.validation_curve, strict=True)) for result in results]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [float(n) or origin for n in shared],
        "y": [sum(one[n] for one in losses) / len(losses) for n in shared],
        "name": escape_text(method.name),
        "line": {"color": colour, "width": 2, "dash": dash},
        "hovertemplate": "%{x:,.0f} examples: %{y:.4f}<extra>" + escape_text(method.name) + "</extra>",
    }
