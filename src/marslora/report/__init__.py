"""Self-contained HTML pages about a study, a comparison or a benchmark, and the verdict in words.

`page` writes a study's ``report.html``, `comparison` writes ``compare.html`` and `benchmark` writes ``bench.html``.
A page needs no network. `data` gathers a study's results from its folder, `words` states the verdict in sentences (for
the page and the terminal), `numbers` formats numbers, `markup` makes HTML elements, `sections`, `tables` and
`checklist` build the page from them, and `figures` draws the charts.

A chart is a function that takes the study's `data.ReportData` and returns a list of `Chart`, empty if there is nothing
to draw. Its colours are named by role (such as the accent), so it fits the light and the dark theme::

    from marslora.report.figures._style import ACCENT, Chart, make_axis, make_layout

    def draw_charts(data):
        losses = [run.last_loss for run in data.runs]
        trace = {"type": "histogram", "x": losses, "marker": {"color": ACCENT}}
        layout = make_layout(make_axis("validation loss (nats per answer token)"), make_axis("runs"))
        caption = f"{len(losses)} runs; the lowest ended at {min(losses):.3f}."
        return [Chart(name="last-losses", title="Where the runs ended", traces=[trace], layout=layout, caption=caption)]

Put it into a file in ``figures`` and add it to its section in `page.SECTIONS`.
"""
