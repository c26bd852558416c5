"""`report.html`: one page that needs nothing else, neither a network nor, for its words and tables, JavaScript."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from marslora.core.files import write_text
from marslora.report import sections
from marslora.report.data import ReportData, gather
from marslora.report.figures import allocations, chances, convergence, costs, curves, final, fits, objectives
from marslora.report.figures._style import Chart
from marslora.report.markup import Markup, join, tag
from marslora.report.words import headline, summary_lines
from marslora.store.study import Study

NAME = "report.html"
NAVIGATION = (
    ("use", "Use it"),
    ("parts", "Parts"),
    ("curves", "Curves"),
    ("laws", "Convergence"),
    ("map", "Allocations"),
    ("final", "Final run"),
    ("cost", "Cost"),
    ("candidates", "Candidates"),
    ("checklist", "Laws in detail"),
    ("next", "Assumptions"),
    ("details", "Details"),
)


def write(data: ReportData, path: Path) -> Path:
    """Write the page to ``path`` and return that path."""
    write_text(path, render(data))
    return path


def write_study(study: Study) -> Path:
    """Write the page of a study into its folder. Raises `StudyError` if the study has no decision yet."""
    return write(gather(study), study.path(NAME))


def summary(folder: Path) -> list[str]:
    """Return the verdict of a finished study in a few lines of text."""
    with Study.open(folder) as study:
        return summary_lines(gather(study, runs=()))


def render(data: ReportData) -> str:
    """Return the whole page as HTML."""
    return document(f"{headline(data)} - marslora", body(data))


def document(title: str, body: Markup) -> str:
    """A whole page that needs nothing else: styles, the body, plotly, and the script that draws the figures."""
    return Template(_file("page.html")).substitute(
        title=html.escape(title),
        css=_file("page.css"),
        body=body,
        plotly=get_plotlyjs(),
        script=_file("page.js"),
    )


def body(data: ReportData) -> Markup:
    """Everything between the page's head and its scripts, in reading order."""
    found: list[tuple[str, Markup]] = [
        ("use", sections.use(data)),
        ("parts", sections.parts(data)),
        ("curves", sections.curves(data, drawn(curves.pictures(data)))),
        ("laws", sections.convergence(data, drawn(convergence.pictures(data)))),
        ("map", sections.allocations(drawn([*allocations.pictures(data), *chances.pictures(data)]))),
        ("final", sections.final(data, drawn([*final.pictures(data), *objectives.pictures(data)]))),
        ("cost", sections.cost(data, drawn(costs.pictures(data)))),
        ("candidates", sections.candidates(data)),
        ("checklist", sections.checklist(data, drawn(fits.pictures(data)))),
        ("next", sections.assumptions(data)),
        ("details", sections.details(data)),
    ]
    present = {anchor for anchor, content in found if content}
    links = (tag("a", title, href=f"#{anchor}") for anchor, title in NAVIGATION if anchor in present)
    head = tag("header", sections.verdict(data), tag("nav", join(links), aria_label="Sections"))
    main = tag("main", *(content for _, content in found))
    return join([head, main, sections.footer(data)])


def drawn(pictures: Sequence[Chart]) -> Markup:
    """Figures side by side, each with its sentence; empty where there are none."""
    return tag("div", *map(figure, pictures), class_="figures") if pictures else Markup("")


def figure(picture: Chart) -> Markup:
    """One figure: a title, a place for the drawing, the sentence below, and the drawing itself as JSON."""
    values = json.dumps(picture.figure(), allow_nan=False, separators=(",", ":"))
    source = Markup(values.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
    anchor = f"plot-{picture.name}"
    place = tag("div", id=anchor, class_="plot", role="img", aria_label=f"{picture.title}. {picture.caption}")
    return tag(
        "figure",
        tag("h3", picture.title),
        place,
        tag("figcaption", picture.caption),
        tag("script", source, type="application/json", data_figure=anchor),
        class_="wide" if picture.wide else None,
    )


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
