"""Self-contained HTML pages about a study, a comparison or a benchmark, and the verdict in words.

`page` writes ``report.html`` of a study, `comparison` writes ``compare.html`` and `benchmark` writes ``bench.html``.
A page needs no network. `data` gathers what a study left in its folder, `words` states the verdict in sentences (for
the page and the terminal), `sections`, `tables` and `checklist` build HTML, and `figures` draws the charts.

A chart is a function that takes the study's `data.ReportData` and returns a list of `Chart`, empty if there is nothing
to draw. Its colours are roles of the page, so it fits the light and the dark theme::

    from marslora.report.figures._style import ACCENT, Chart, axis, frame

    def draw_charts(data):
        losses = [run.last_loss for run in data.runs]
        trace = {"type": "histogram", "x": losses, "marker": {"color": ACCENT}}
        layout = frame(axis("validation loss (nats per answer token)"), axis("runs"))
        caption = f"{len(losses)} runs; the lowest ended at {min(losses):.3f}."
        return [Chart(name="last-losses", title="Where the runs ended", traces=[trace], layout=layout, caption=caption)]

Put it into a file in ``figures`` and name it in `page.SECTIONS`, in the section where it belongs.
"""
