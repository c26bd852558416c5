"""Write `report.html`: one self-contained page. It needs no network, and JavaScript only for its charts."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from marslora.core.files import write_text
from marslora.report import sections
from marslora.report.data import ReportData, gather_data
from marslora.report.figures import allocations, chances, convergence, costs, curves, final, fits, objectives, rates
from marslora.report.figures._style import Chart
from marslora.report.markup import Markup, join, tag
from marslora.report.words import write_headline
from marslora.store.study import Study

NAME = "report.html"
"""The page's file in a study folder."""
CHART_SCRIPT = "assets/plotly-cartesian.min.js"
"""The part of plotly.js that draws lines, bars and maps, a third of the whole; NOTICES says where it is from."""


@dataclass(frozen=True)
class Section:
    """One section of the page. It is left out, with its link, if ``render`` returns nothing."""

    anchor: str
    """Its id, to which links lead."""
    link: str
    """Its name in the navigation at the top."""
    render: Callable[[ReportData, Markup], Markup]
    """Returns the section, given the study and the charts as HTML."""
    charts: Sequence[Callable[[ReportData], list[Chart]]] = ()
    """Draw the section's charts; each returns an empty list if the study has nothing to draw."""


SECTIONS = (
    Section("use", "Use it", sections.render_use),
    Section("parts", "Parts", sections.render_parts),
    Section("curves", "Curves", sections.render_curves, [curves.draw_charts]),
    Section("laws", "Convergence", sections.render_convergence, [convergence.draw_charts]),
    Section(
        "map",
        "Ranks and rates",
        sections.render_allocations,
        [allocations.draw_charts, rates.draw_charts, chances.draw_charts],
    ),
    Section("final", "Final run", sections.render_final_run, [final.draw_charts, objectives.draw_charts]),
    Section("cost", "Cost", sections.render_cost, [costs.draw_charts]),
    Section("candidates", "Candidates", sections.render_candidates),
    Section("checklist", "Laws in detail", sections.render_laws_in_detail, [fits.draw_charts]),
    Section("next", "Assumptions", sections.render_assumptions),
    Section("details", "Details", sections.render_details),
)
"""The page in reading order. A new chart is a function in `figures` that is named here."""


def write_page(data: ReportData, path: Path) -> Path:
    """Write the page to ``path`` and return that path."""
    write_text(path, render_page(data))
    return path


def write_report(study: Study, path: Path | None = None) -> ReportData:
    """Write the page of a study to ``path``, by default into its folder, and return what it shows.

    Raises `StudyError` if the study has no decision yet, and `WriteError`.
    """
    data = gather_data(study)
    write_page(data, path or study.path(NAME))
    return data


def render_page(data: ReportData) -> str:
    """Return the whole page as HTML."""
    return render_document(f"{write_headline(data)} - marslora", render_body(data))


def render_document(title: str, body: Markup) -> str:
    """Return a self-contained page: styles, the body, plotly, and the script that draws the charts."""
    return Template(_read_file("page.html")).substitute(
        title=html.escape(title),
        css=_read_file("page.css"),
        body=body,
        plotly=_read_file(CHART_SCRIPT),
        script=_read_file("page.js"),
    )


def render_body(data: ReportData) -> Markup:
    """Everything between the page's head and its scripts, in reading order."""
    rendered = [(each, _render_section(each, data)) for each in SECTIONS]
    links = (tag("a", each.link, href=f"#{each.anchor}") for each, content in rendered if content)
    head = tag("header", sections.render_verdict(data), tag("nav", join(links), aria_label="Sections"))
    main = tag("main", *(content for _, content in rendered))
    return join([head, main, sections.render_footer(data)])


def _render_section(described: Section, data: ReportData) -> Markup:
    charts = [chart for draw_charts in described.charts for chart in draw_charts(data)]
    return described.render(data, render_charts(charts))


def render_charts(charts: Sequence[Chart]) -> Markup:
    """Charts side by side, each with its caption; empty if there are none."""
    return tag("div", *map(render_chart, charts), class_="figures") if charts else Markup("")


def render_chart(chart: Chart) -> Markup:
    """One chart: a title, a place for the drawing, the caption below, and the drawing itself as JSON."""
    values = json.dumps(chart.figure(), allow_nan=False, separators=(",", ":"))
    source = Markup(values.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
    anchor = f"plot-{chart.name}"
    place = tag("div", id=anchor, class_="plot", role="img", aria_label=f"{chart.title}. {chart.caption}")
    return tag(
        "figure",
        tag("h3", chart.title),
        place,
        tag("figcaption", chart.caption),
        tag("script", source, type="application/json", data_figure=anchor),
        class_="wide" if chart.wide else None,
    )


def _read_file(name: str) -> str:
    return resources.files(__package__).joinpath(*name.split("/")).read_text(encoding="utf-8")
