"""The predictions of Law-P against the measurements: near the diagonal they agree."""

from __future__ import annotations

import numpy as np

from marslora.core.decision import LawFit
from marslora.report.data import CONVERGENCE, ReportData
from marslora.report.figures._style import INK, MUTED, Chart, escape_text, fade, make_axis, make_layout
from marslora.report.numbers import format_count, format_percent


def draw_charts(data: ReportData) -> list[Chart]:
    """Draw a panel for each law except convergence laws, which are drawn against rank."""
    laws = [law for law in data.decision.laws if law.law != CONVERGENCE and law.status != "failed" and law.points]
    return [_draw_panel(law, index) for index, law in enumerate(laws)]


def _draw_panel(law: LawFit, index: int) -> Chart:
    points = [p for p in law.points if np.isfinite([p.measured, p.predicted]).all()]
    values = [value for point in points for value in (point.measured, point.predicted)]
    ends = [min(values, default=0.0), max(values, default=1.0)]
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": ends,
            "y": ends,
            "line": {"color": MUTED, "width": 1, "dash": "dash"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": [point.measured for point in points],
            "y": [point.predicted for point in points],
            "marker": {"size": 7, "color": fade("@r4", 0.7), "line": {"color": INK, "width": 0.5}},
            "customdata": [
                ", ".join(f"{escape_text(name)} {value:,.5g}" for name, value in point.inputs.items())
                for point in points
            ],
            "hovertemplate": "%{customdata}<br>measured %{x:.4f}, law %{y:.4f}<extra></extra>",
        },
    ]
    error = format_percent(law.held_out_error) if np.isfinite(law.held_out_error) else "an unknown share"
    return Chart(
        name=f"fit-{index}",
        title=f"{law.law.capitalize()} law of {law.subject}: predicted against measured",
        traces=traces,
        layout=make_layout(
            make_axis("measured (nats per answer token)"),
            make_axis("predicted (nats per answer token)"),
            showlegend=False,
        ),
        caption=(
            f"{format_count(len(points))} measurements; on the dashed diagonal the law is exact. For ranks that it was "
            f"not fitted to, it is off by {error} (root mean square)."
        ),
        wide=True,
    )
