"""Methods side by side: losses and differences as dots with intervals, loss against cost, curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from marslora.core.comparison import Comparison, MethodSummary
from marslora.core.decision import Interval
from marslora.report.figures._labels import pad_range, place_names, share
from marslora.report.figures._style import (
    ACCENT,
    DASHES,
    INK,
    LEVEL_NOTE,
    MUTED,
    Chart,
    Trace,
    axis,
    fade,
    frame,
    log_axis,
    steps,
    text,
)
from marslora.report.numbers import loss, plural, short

METRICS = {"test_loss": "test loss", "validation_loss": "validation loss"}
UNIT = "(nats per answer token)"


def draw_charts(comparison: Comparison) -> list[Chart]:
    """Draw the charts of the methods that have results; an empty list if none has."""
    methods = [method for method in comparison.ordered() if comparison.loss(method) is not None]
    if not methods:
        return []
    found = [_losses(comparison, methods)]
    found += [_differences(comparison, compared)] if (compared := [m for m in methods if m.difference]) else []
    return [*found, _costs(comparison, methods), _curves(comparison, methods)]


def _losses(comparison: Comparison, methods: Sequence[MethodSummary]) -> Chart:
    metric = METRICS[comparison.metric]
    seeds = {
        "type": "scatter",
        "mode": "markers",
        "x": [getattr(result, comparison.metric) for method in methods for result in method.results.values()],
        "y": [text(method.name) for method in methods for _ in method.results],
        "name": "one seed",
        "marker": {"size": 6, "color": fade(INK, 0.35)},
        "hovertemplate": "%{y}: %{x:.4f}<extra>one seed</extra>",
    }
    means = [(method, found) for method in methods if (found := comparison.loss(method))]
    best, worst = means[0], means[-1]
    said = f"{best[0].name} ended lowest ({loss(best[1].value)}), {worst[0].name} highest ({loss(worst[1].value)})."
    return Chart(
        name="losses",
        title=f"{metric.capitalize()} at the end",
        traces=[seeds, _dots(means, comparison.reference.name)],
        layout=_rows(methods, f"{metric} {UNIT}"),
        caption=f"{said} Lines are {LEVEL_NOTE}s over {plural(len(comparison.seeds), 'seed')}.",
        height=_height(methods),
    )


def _differences(comparison: Comparison, methods: Sequence[MethodSummary]) -> Chart:
    found = [(method, method.difference) for method in methods if method.difference is not None]
    better = sum(each.high < 0 for _, each in found)
    worse = sum(each.low > 0 for _, each in found)
    layout = _rows(methods, f"{METRICS[comparison.metric]} minus that of {comparison.reference.name}")
    zero = {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": MUTED, "dash": "dot"},
    }
    words = f"{better} of {plural(len(found), 'method')} end below {comparison.reference.name} and {worse} above it"
    return Chart(
        name="differences",
        title="Difference from the reference",
        traces=[_dots(found, "")],
        layout={**layout, "shapes": [zero]},
        caption=f"Paired by seed, {words}, judged by {LEVEL_NOTE}s that exclude 0. The others are indistinguishable.",
        height=_height(methods),
    )


def _dots(found: Sequence[tuple[MethodSummary, Interval]], reference: str) -> Trace:
    def half(value: float) -> float:
        return value if math.isfinite(value) else 0.0

    return {
        "type": "scatter",
        "mode": "markers",
        "x": [each.value for _, each in found],
        "y": [text(method.name) for method, _ in found],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [half(each.high - each.value) for _, each in found],
            "arrayminus": [half(each.value - each.low) for _, each in found],
            "color": fade(INK, 0.6),
            "thickness": 1.6,
            "width": 5,
        },
        "marker": {"size": 11, "color": [ACCENT if method.name == reference else "@r4" for method, _ in found]},
        "name": "mean",
        "hovertemplate": "%{y}: %{x:.4f}<extra>mean</extra>",
    }


def _rows(methods: Sequence[MethodSummary], title: str) -> dict[str, object]:
    names = [text(method.name) for method in reversed(methods)]
    return frame(
        axis(title, nticks=6), axis("", categoryorder="array", categoryarray=names, type="category"), showlegend=False
    )


def _height(methods: Sequence[MethodSummary]) -> int:
    return 130 + 34 * len(methods)


def _costs(comparison: Comparison, methods: Sequence[MethodSummary]) -> Chart:
    known = [(m, cost, found) for m in methods if (cost := m.cost) and (found := comparison.loss(m)) and cost.flops > 0]
    own = comparison.reference.cost
    unit = own.flops if own and own.flops else 1.0
    relative_costs = [cost.flops / unit for _, cost, _ in known]
    names = [text(method.name) for method, _, _ in known]
    wide = pad_range(relative_costs)
    tall = pad_range([found.value for _, _, found in known])
    points = [
        (share(x, wide), share(found.value, tall)) for x, (_, _, found) in zip(relative_costs, known, strict=True)
    ]
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": relative_costs,
        "y": [found.value for _, _, found in known],
        "text": names,
        "textposition": place_names(points, names),
        "textfont": {"size": 11, "color": MUTED},
        "customdata": [[short(cost.seconds), short(method.num_trainable)] for method, cost, _ in known],
        "marker": {"size": 11, "color": [ACCENT if m is comparison.reference else "@r4" for m, _, _ in known]},
        "hovertemplate": "%{text}: %{y:.4f}<br>%{x:.3f} of the operations, %{customdata[0]} s<extra></extra>",
    }
    apart = short(max(relative_costs) / min(relative_costs)) if relative_costs else ""
    said = f"The most expensive run took {apart} times the operations of the cheapest." if relative_costs else ""
    return Chart(
        name="costs",
        title="Loss against cost",
        traces=[trace],
        layout=frame(
            axis(f"floating-point operations of a run, {comparison.reference.name} = 1", range=wide, nticks=6),
            axis(f"{METRICS[comparison.metric]} {UNIT}", range=tall),
            showlegend=False,
        ),
        caption=f"{said} Lower and further left is better.".strip(),
    )


def _curves(comparison: Comparison, methods: Sequence[MethodSummary]) -> Chart:
    colours = list(reversed(steps(len(methods))))
    points = [e for m in methods for result in m.results.values() for e in result.examples if e > 0]
    origin = min(points, default=1) / 2
    traces = [
        _curve(method, INK if method is comparison.reference else colours[n], DASHES[n % len(DASHES)], origin)
        for n, method in enumerate(methods)
    ]
    up = log_axis(f"validation loss {UNIT}", [y for trace in traces for y in trace["y"]])
    return Chart(
        name="methods-curves",
        title="Loss during training",
        traces=traces,
        layout=frame(log_axis("examples seen", [origin, *points], start=origin), up),
        caption=(
            "Validation loss, mean over seeds. Methods in stronger colours ended lower; "
            f"{comparison.reference.name} is black."
        ),
        height=400,
        wide=True,
    )


def _curve(method: MethodSummary, colour: str, dash: str, origin: float) -> Trace:
    results = list(method.results.values())
    shared = [n for n in results[0].examples if all(n in result.examples for result in results)]
    losses = [dict(zip(result.examples, result.validation_curve, strict=True)) for result in results]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [float(n) or origin for n in shared],
        "y": [sum(one[n] for one in losses) / len(losses) for n in shared],
        "name": text(method.name),
        "line": {"color": colour, "width": 2, "dash": dash},
        "hovertemplate": "%{x:,.0f} examples: %{y:.4f}<extra>" + text(method.name) + "</extra>",
    }
