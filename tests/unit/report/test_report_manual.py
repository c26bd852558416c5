"""The example in the manual of the report draws a chart."""

from marslora import report
from marslora.report.page import render_chart
from tests.helpers.manuals import run_examples
from tests.unit.report.plotly_figures import parse_figure


def test_the_example_draws_a_chart(clear):
    (chart,) = run_examples(report)["draw_charts"](clear)
    assert len(parse_figure(chart.figure()).data[0].x) == len(clear.runs)
    assert "Where the runs ended" in render_chart(chart)
