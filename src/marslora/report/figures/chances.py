"""The chart of P(best), the probability that a candidate ends with the lowest loss."""

from __future__ import annotations

from marslora.core.decision import Candidate
from marslora.report.candidates import name_candidate
from marslora.report.data import ReportData
from marslora.report.figures._style import ACCENT, Chart, escape_text, fade, make_axis, make_layout
from marslora.report.numbers import format_loss, format_percent

MANY = 12
"""The most bars drawn: what fits on a screen beside the map; the table has all candidates."""


def draw_charts(data: ReportData) -> list[Chart]:
    """Draw a bar for each of the most probable candidates; an empty list if no probability is known."""
    known = [candidate for candidate in data.decision.candidates if candidate.p_best is not None]
    if not known:
        return []
    ordered = sorted(known, key=lambda candidate: -(candidate.p_best or 0.0))[:MANY]
    if data.chosen.p_best is not None and data.chosen not in ordered:
        ordered[-1] = data.chosen
    rows = list(reversed(ordered))
    names = [_break_name(escape_text(name_candidate(candidate, data))) for candidate in rows]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [candidate.p_best for candidate in rows],
        "y": list(range(len(rows))),
        "text": [format_percent(candidate.p_best).replace("<", "&lt;").replace(">", "&gt;") for candidate in rows],
        "textposition": "outside",
        "cliponaxis": False,
        "textfont": {"size": 11},
        "marker": {"color": [_choose_colour(candidate, data) for candidate in rows]},
        "customdata": [escape_text(candidate.reason) for candidate in rows],
        "hovertemplate": "P(best) %{x:.3f}<extra></extra>",
    }
    top = max(candidate.p_best or 0.0 for candidate in rows)
    x = make_axis("probability of being best", tickformat=".0%", nticks=5, range=[0, min(1.0, top) * 1.18 or 1.0])
    y = make_axis("", tickvals=list(range(len(rows))), ticktext=names, showgrid=False)
    return [
        Chart(
            name="chances",
            title="How sure: P(best)",
            traces=[trace],
            layout=make_layout(x, y, showlegend=False, bargap=0.35),
            caption=_write_caption(data, known),
            height=30 * len(rows) + 80,
            wide=True,
        )
    ]


def _break_name(name: str) -> str:
    """The name in two lines if it has rates: in one, it would leave no room for the bars on a narrow screen."""
    return name.replace(", learning rate", ",<br>learning rate", 1)


def _choose_colour(candidate: Candidate, data: ReportData) -> str:
    if candidate.status == "chosen":
        return ACCENT
    return "@r3" if candidate.setting in data.decision.plausible else fade("@muted", 0.55)


def _write_caption(data: ReportData, known: list[Candidate]) -> str:
    chosen, plausible = data.chosen, data.decision.plausible
    sentences = []
    if plausible:
        noun = data.candidate_noun
        many = f"One {noun} holds" if len(plausible) == 1 else f"{len(plausible)} of {len(known)} {noun}s hold"
        sentences.append(f"{many} 90 % of the probability (blue; the choice in orange).")
    if chosen.p_best is not None:
        sentences.append(f"The chosen one is best with probability {format_percent(chosen.p_best)}")
        regret = chosen.expected_regret
        sentences[-1] += (
            "."
            if regret is None
            else f"; the best, whichever it is, is expected to end {format_loss(regret)} nats lower."
        )
    return " ".join(sentences)
