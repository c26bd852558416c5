"""The cost of the search, compared with training every candidate once."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.report.data import (
    ReportData,
    Spending,
    compute_calibration_spending,
    compute_final_spending,
    compute_grid_spending,
    compute_total_spending,
)
from marslora.report.figures._style import ACCENT, Chart, fade, make_axis, make_layout
from marslora.report.numbers import format_duration, format_number, format_run_count, pluralise

UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))
COLOURS = (fade(ACCENT, 0.45), fade(ACCENT, 0.7), ACCENT, fade("@muted", 0.7))


def draw_charts(data: ReportData) -> list[Chart]:
    """Draw a bar chart of full runs, and one of seconds if all of them are known."""
    bars = list_spendings(data)
    total, grid = bars["total"], bars[f"every {data.candidate_noun}"]
    full_runs = [each.runs for each in bars.values()]
    labels = [format_run_count(each) for each in full_runs]
    caption = _write_caption(data, total, grid)
    charts = [_draw_bars("cost-runs", "In full runs", "full runs", bars, labels, full_runs, caption)]
    times = [each.seconds for each in bars.values()]
    if all(each is not None for each in times) and total.seconds and grid.seconds:
        caption = (
            f"{format_duration(total.seconds)} in all; training every {data.candidate_noun} would take about "
            f"{format_duration(grid.seconds)} (estimated as that many times the time of one full run)."
        )
        labels = [format_duration(each) for each in times]
        unit, seconds = _choose_unit(max(each or 0.0 for each in times))
        values = [each and each / seconds for each in times]
        charts.append(_draw_bars("cost-seconds", "In time", f"{unit} of wall time", bars, labels, values, caption))
    return charts


def _choose_unit(most: float) -> tuple[str, float]:
    """The unit in which a time in seconds is a handy number, and its length in seconds."""
    return next(((name, length) for name, length in UNITS if most >= 2 * length), UNITS[-1])


def list_spendings(data: ReportData) -> dict[str, Spending]:
    """The spending on calibration, on the final run, on both, and on training every candidate once."""
    return {
        "calibration": compute_calibration_spending(data),
        "final run" if data.final is not None else "final run (to come)": compute_final_spending(data),
        "total": compute_total_spending(data),
        f"every {data.candidate_noun}": compute_grid_spending(data),
    }


def _write_caption(data: ReportData, total: Spending, grid: Spending) -> str:
    candidates, cost = pluralise(data.num_candidates, data.candidate_noun), format_run_count(total.runs)
    if total.runs >= grid.runs:
        return f"The search cost {cost} full runs, no less than training all {candidates}."
    ratio = format_number(grid.runs / max(total.runs, 1e-9))
    return (
        f"A full run trains on {data.full_examples:,} examples. The search cost {cost} full runs; "
        f"training all {candidates} once would cost {ratio} times as much."
    )


def _draw_bars(
    name: str,
    title: str,
    unit: str,
    bars: dict[str, Spending],
    labels: Sequence[str],
    values: Sequence[float | None],
    caption: str,
) -> Chart:
    top = max(value or 0.0 for value in values)
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": list(reversed(values)),
        "y": list(reversed(bars)),
        "text": list(reversed(labels)),
        "textposition": "outside",
        "cliponaxis": False,
        "textfont": {"size": 12},
        "marker": {"color": list(reversed(COLOURS))},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }
    layout = make_layout(
        make_axis(unit, range=[0, top * 1.25 or 1.0], nticks=6),
        make_axis("", showgrid=False),
        showlegend=False,
        bargap=0.4,
    )
    return Chart(name=name, title=title, traces=[trace], layout=layout, caption=caption, height=230)
