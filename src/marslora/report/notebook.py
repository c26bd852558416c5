"""Render a decision for a notebook: the verdict, the likeliest candidates, and a picture of their losses.

The picture is SVG without a script, so that it is drawn by every notebook, also by one that is not trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from marslora.core.decision import LEVEL, Candidate
from marslora.report.candidates import find_expected_loss, name_candidate, sort_by_loss
from marslora.report.data import ReportData
from marslora.report.markup import Markup, escape, join, paragraphs, tag
from marslora.report.numbers import abbreviate_count, format_interval, format_loss, format_percent
from marslora.report.plots import make_colour
from marslora.report.words import write_headline, write_summary_lines

MANY = 10
"""The most candidates shown: those that are likeliest the best, and the choice."""
WIDTH, LEFT, ROW, FOOT = 720, 300, 22, 36
"""Sizes of the picture in pixels: its width, where its axis begins, the height of a row, and that of the axis."""


def render_decision(data: ReportData, folder: Path) -> str:
    """The view of a decision as HTML that needs neither a script nor a style sheet."""
    shown = select_candidates(data)
    title = tag("p", tag("strong", write_headline(data) + "."), style="font-size: 1.15em")
    more = write_summary_lines(data)[1 + len(data.decision.problems) :]
    problems = tag("p", tag("strong", " ".join(data.decision.problems))) if data.decision.problems else ""
    footer = tag("p", "Everything else: ", tag("code", folder / "report.html"))
    return str(
        tag(
            "div",
            *(problems, title, paragraphs(more), render_table(data, shown), render_picture(data, shown), footer),
            style="max-width: 760px",
        )
    )


def select_candidates(data: ReportData) -> list[Candidate]:
    """At most `MANY` candidates: the choice, then those that are likeliest the best (without probabilities: those with
    the lowest loss)."""
    ordered = sort_by_loss(data.decision.candidates)
    ordered.sort(key=lambda candidate: (candidate.status != "chosen", -(candidate.p_best or 0.0)))
    return ordered[:MANY]


def render_table(data: ReportData, candidates: Sequence[Candidate]) -> Markup:
    """A table of candidates: ranks and rate, trainable parameters, expected loss, probability of being the best."""
    heads = ("", data.candidate_noun, "trainable", f"expected loss ({LEVEL:.0%} interval)", "observed", "P(best)")
    rows = [
        tag(
            "tr",
            *(
                tag("td", content, style="text-align: left" if place == 1 else None)
                for place, content in enumerate(
                    (
                        "chosen" if candidate.status == "chosen" else "",
                        name_candidate(candidate, data),
                        abbreviate_count(data.num_trainable(candidate.allocation)),
                        format_interval(candidate.predicted_loss),
                        format_loss(candidate.observed_loss),
                        format_percent(candidate.p_best),
                    )
                )
            ),
            style="font-weight: 600" if candidate.status == "chosen" else None,
        )
        for candidate in candidates
    ]
    left = len(data.decision.candidates) - len(candidates)
    rest = tag("p", f"{left} more are in the report.") if left else Markup("")
    return join(
        [tag("table", tag("thead", tag("tr", *(tag("th", head) for head in heads))), tag("tbody", *rows)), rest]
    )


def render_picture(data: ReportData, candidates: Sequence[Candidate]) -> Markup:
    """The expected losses with their intervals as an SVG picture, lowest first; empty if no loss is known."""
    rows = [candidate for candidate in sort_by_loss(candidates) if find_expected_loss(candidate) is not None]
    if not rows:
        return Markup("")
    bounds = [_find_bounds(candidate) for candidate in rows]
    low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
    scale = (WIDTH - LEFT - 30) / max(high - low, 1e-9)
    height = ROW * len(rows) + FOOT

    def locate(loss: float) -> float:
        return round(LEFT + 10 + (loss - low) * scale, 1)

    drawn = [
        _draw_row(name_candidate(candidate, data), candidate, locate, ROW * (place + 0.5))
        for place, candidate in enumerate(rows)
    ]
    ends = [_write(f"{value:.3g}", locate(value), height - 20, "middle") for value in (low, (low + high) / 2, high)]
    title = _write("expected validation loss, nats per answer token", LEFT + (WIDTH - LEFT) / 2, height - 4, "middle")
    line = _draw_line(LEFT, WIDTH - 10, height - FOOT + 2, "currentColor", 0.5)
    return tag(
        "svg",
        *(*drawn, line, *ends, title),
        viewBox=f"0 0 {WIDTH} {height}",
        width=WIDTH,
        style="max-width: 100%; height: auto; font: 12px system-ui, sans-serif",
        role="img",
        aria_label=f"Expected losses of {len(rows)} candidates; the choice is orange.",
    )


def _find_bounds(candidate: Candidate) -> tuple[float, float]:
    expected = find_expected_loss(candidate) or 0.0
    interval = candidate.predicted_loss
    return (interval.low, interval.high) if interval else (expected, expected)


def _draw_row(name: str, candidate: Candidate, locate: Callable[[float], float], y: float) -> Markup:
    """A row of the picture: the candidate's name, its interval as a line, its expected loss as a point."""
    is_chosen = candidate.status == "chosen"
    colour = make_colour("accent") if is_chosen else "currentColor"
    low, high = _find_bounds(candidate)
    point = tag("circle", cx=locate(find_expected_loss(candidate) or 0.0), cy=y, r=6 if is_chosen else 4, fill=colour)
    label = _write(f"{name} (chosen)" if is_chosen else name, LEFT - 8, y + 4, "end", colour)
    return join([label, _draw_line(locate(low), locate(high), y, colour, 1.5), point])


def _draw_line(start: float, end: float, y: float, colour: str, width: float) -> Markup:
    return tag("line", x1=start, x2=end, y1=y, y2=y, stroke=colour, stroke_width=width)


def _write(text: str, x: float, y: float, anchor: str, colour: str = "currentColor") -> Markup:
    return tag("text", escape(text), x=x, y=y, text_anchor=anchor, fill=colour)
