"""The cost of the search, compared with training every allocation once."""

from __future__ import annotations

from collections.abc import Sequence

from marslora.report.data import (
    ReportData,
    Spending,
    calibration_spending,
    final_spending,
    grid_spending,
    total_spending,
)
from marslora.report.figures._style import ACCENT, Chart, axis, fade, frame
from marslora.report.numbers import duration, shares, short

COLOURS = (fade(ACCENT, 0.45), fade(ACCENT, 0.7), ACCENT, fade("@muted", 0.7))


def draw_charts(data: ReportData) -> list[Chart]:
    """Two bar charts: full runs, and seconds if they are known."""
    bars = list_spendings(data)
    total, grid = bars["total"], bars["every allocation"]
    found = [_bars("cost-runs", "In full runs", "full runs", bars, [shares(each.runs) for each in bars.values()],
                   [each.runs for each in bars.values()], _run_words(data, total, grid))]  # fmt: skip
    times = [each.seconds for each in bars.values()]
    if all(each is not None for each in times) and total.seconds and grid.seconds:
        said = f"{duration(total.seconds)} in all; training every allocation would take about {duration(grid.seconds)}"
        said += " (estimated as the time of one full run times the number of allocations)."
        shown = [duration(each) for each in times]
        found.append(_bars("cost-seconds", "In time", "seconds of wall time", bars, shown, times, said))
    return found


def list_spendings(data: ReportData) -> dict[str, Spending]:
    """The spending on calibration, on the final run, on both, and on training every allocation once."""
    return {
        "calibration": calibration_spending(data),
        "final run" if data.final is not None else "final run (to come)": final_spending(data),
        "total": total_spending(data),
        "every allocation": grid_spending(data),
    }


def _run_words(data: ReportData, total: Spending, grid: Spending) -> str:
    cells = data.num_allocations
    if total.runs >= grid.runs:
        return f"The search cost {shares(total.runs)} full runs, no less than training each of the {cells} allocations."
    ratio = short(grid.runs / max(total.runs, 1e-9))
    return (
        f"A full run trains on {data.full_examples:,} examples. The search cost {shares(total.runs)} full runs; "
        f"training each of the {cells} allocations once would cost {ratio} times as much."
    )


def _bars(
    name: str, title: str, unit: str, bars: dict[str, Spending], shown: Sequence[str], values: Sequence[float | None],
    said: str,
) -> Chart:  # fmt: skip
    top = max(value or 0.0 for value in values)
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": list(reversed(values)),
        "y": list(reversed(bars)),
        "text": list(reversed(shown)),
        "textposition": "outside",
        "cliponaxis": False,
        "textfont": {"size": 12},
        "marker": {"color": list(reversed(COLOURS))},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }
    layout = frame(
        axis(unit, range=[0, top * 1.25 or 1.0], nticks=6), axis("", showgrid=False), showlegend=False, bargap=0.4
    )
    return Chart(name=name, title=title, traces=[trace], layout=layout, caption=said, height=230)
