"""Learning curves: validation and training loss against examples seen, a panel for each part and one for several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from marslora.core.decision import LawPoint
from marslora.core.runs import Run
from marslora.report.data import Points, ReportData
from marslora.report.figures._style import (
    DASHES,
    INK,
    Chart,
    Trace,
    escape_text,
    make_layout,
    make_log_axis,
    pick_ordered_colours,
)
from marslora.report.numbers import format_count, format_loss, format_percent, format_ranks, format_rates

JOINT = "parts together"
"""The panel of runs that adapt several parts."""
MANY = 8
"""With more settings than this, the legend would crowd the panel, so it lists the smallest and the largest."""
THIN = 0.8
"""Width of a line of training losses in pixels; a line of validation losses is 1.8 wide and has points."""


def draw_charts(data: ReportData) -> list[Chart]:
    """A panel for each part that was adapted alone, and one for runs of several parts."""
    groups = group_runs(data)
    return [_draw_panel(data, title, runs) for title, runs in groups.items() if runs]


def group_runs(data: ReportData) -> dict[str, list[Run]]:
    """The runs that have a curve, by panel: each part in order, then `JOINT`.

    A run of one part belongs to that part's panel; any other run to the part whose law is fitted to it, if any.
    """
    read_by = {
        point.run: law.subject
        for part in data.info.parts
        if (law := data.convergence_law(part.name))
        for point in law.points
    }
    groups: dict[str, list[Run]] = {part.name: [] for part in data.info.parts}
    groups[JOINT] = []
    for run in data.runs:
        if not any(map(math.isfinite, run.validation_loss)):
            continue
        active = run.member.allocation.active
        group = active[0] if len(active) == 1 else read_by.get(run.member.id, JOINT)
        groups.setdefault(group, []).append(run)
    return groups


def _draw_panel(data: ReportData, title: str, runs: Sequence[Run]) -> Chart:
    points = {point.run: point for law in data.decision.laws if law.subject == title for point in law.points}
    starts = [run.examples[1] for run in runs if len(run.examples) > 1 and run.examples[0] == 0]
    starts += [run.train_examples[0] for run in runs if run.train_examples]
    origin = min(starts, default=1) / 2
    labels = list(
        dict.fromkeys(_make_label(run, title, data) for run in sorted(runs, key=lambda run: _sort_key(run, title)))
    )
    sizes = sorted({run.member.data_examples for run in runs}, reverse=True)
    colours = dict(zip(labels, pick_ordered_colours(len(labels)), strict=True))
    traces: list[Trace] = []
    shown: set[str] = set()
    for run in sorted(runs, key=lambda run: _sort_key(run, title)):
        label = _make_label(run, title, data)
        dash = DASHES[min(sizes.index(run.member.data_examples), len(DASHES) - 1)]
        named = label not in shown and (len(labels) <= MANY or label in (labels[0], labels[-1]))
        shown.add(label)
        accuracies = dict(data.accuracies.get(run.member.id, ()))
        traces.append(_draw_curve(run, label, colours[label], dash, origin, named, accuracies))
        if train_losses := data.train_losses.get(run.member.id):
            traces.append(_draw_training_curve(train_losses, label, colours[label], dash))
    traces += _draw_marks(runs, points, {run.member.id: colours[_make_label(run, title, data)] for run in runs}, origin)
    trained_at = [float(t) for run in runs for t, _ in data.train_losses.get(run.member.id, ())]
    x = [origin, *(float(each) for run in runs for each in run.examples if each > 0), *trained_at]
    across = make_log_axis("examples seen", x, start=origin)
    trained = [value for run in runs for _, value in data.train_losses.get(run.member.id, ())]
    up = make_log_axis("loss (nats per answer token)", [*(v for run in runs for v in run.validation_loss), *trained])
    heading = f"{title} alone" if title != JOINT else "Several parts together"
    traces += _draw_legend(bool(trained), sizes)
    return Chart(
        name=f"curves-{_make_slug(title)}",
        title=heading,
        traces=traces,
        layout=make_layout(across, up),
        caption=_write_caption(data, runs, points, title, len(labels)),
        height=360,
        wide=title == JOINT,
    )


def _draw_legend(any_trained: bool, sizes: Sequence[int]) -> list[Trace]:
    """Entries of the legend without a curve: what points, thin lines and dashes mean."""
    entries = [("validation loss", "lines+markers", 1.8, "solid"), ("training loss", "lines", THIN, "solid")]
    shown = entries if any_trained else []
    if len(sizes) > 1:
        shown = [
            *shown,
            *((f"{format_count(size)} rows", "lines", 1.8, dash) for size, dash in zip(sizes, DASHES, strict=False)),
        ]
    return [
        {
            "type": "scatter",
            "mode": mode,
            "x": [None],
            "y": [None],
            "name": name,
            "line": {"color": INK, "width": width, "dash": dash},
            "marker": {"size": 4, "color": INK},
            "hoverinfo": "skip",
        }
        for name, mode, width, dash in shown
    ]


def _draw_training_curve(points: Points, label: str, colour: str, dash: str) -> Trace:
    """The training loss of a run, shown and hidden together with its validation loss."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [float(examples) for examples, _ in points],
        "y": [value for _, value in points],
        "name": escape_text(label),
        "legendgroup": escape_text(label),
        "showlegend": False,
        "line": {"color": colour, "width": THIN, "dash": dash},
        "opacity": 0.7,
        "hovertemplate": f"{escape_text(label)}<br>training loss<br>%{{x:,.0f}} examples: %{{y:.4f}}<extra></extra>",
    }


def _draw_curve(
    run: Run, label: str, colour: str, dash: str, origin: float, named: bool, accuracies: Mapping[int, float]
) -> Trace:
    """The validation loss of a run; hovering also shows the accuracy."""
    x = [float(max(each, 0)) or origin for each in run.examples]
    name = escape_text(label)
    hover = f"{name}<br>{format_count(run.member.data_examples)} rows, seed {run.member.seed}, {run.status}"
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "marker": {"size": 4, "color": colour},
        "x": x,
        "y": list(run.validation_loss),
        "name": name,
        "legendgroup": name,
        "showlegend": named,
        "line": {"color": colour, "width": 1.8, "dash": dash},
        "opacity": 0.45 if run.status in ("diverged", "failed") else 0.95,
        "customdata": [f", {format_percent(accuracies[t])} right" if t in accuracies else "" for t in run.examples],
        "hovertemplate": hover + "<br>%{x:,.0f} examples: %{y:.4f}%{customdata}<extra></extra>",
    }


def _draw_marks(
    runs: Sequence[Run], points: Mapping[str, LawPoint], colours: Mapping[str, str], origin: float
) -> list[Trace]:
    """Dots where a curve converged, arrows where it had not by its end."""
    traces = []
    for censored, symbol, name in ((False, "circle", "converged"), (True, "triangle-right", "not yet converged")):
        marked = [run for run in runs if run.member.id in points and points[run.member.id].censored is censored]
        if not marked:
            continue
        x = [points[run.member.id].measured for run in marked]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": x,
                "y": [interpolate_loss(run, each, origin) for run, each in zip(marked, x, strict=True)],
                "name": name,
                "marker": {
                    "symbol": symbol,
                    "size": 11 if censored else 9,
                    "color": [colours[run.member.id] for run in marked],
                    "line": {"color": "@ink", "width": 1.2},
                },
                "hovertemplate": ("more than " if censored else "") + "%{x:,.0f} examples<extra>" + name + "</extra>",
            }
        )
    return traces


def interpolate_loss(run: Run, examples: float, origin: float) -> float:
    """The run's loss at ``examples``, on the straight line between its points in log examples."""
    x = np.log([float(each) or origin for each in run.examples])
    return float(np.interp(np.log(max(examples, origin)), x, run.validation_loss))


def _write_caption(
    data: ReportData,
    runs: Sequence[Run],
    points: Mapping[str, LawPoint],
    title: str,
    num_labels: int,
) -> str:
    ended = [run for run in runs if math.isfinite(run.last_measured)]
    sentences = []
    if ended:
        best = min(ended, key=lambda run: run.last_measured)
        who = _make_label(best, title, data)
        sentences.append(
            f"{len(runs)} runs; {who} ended lowest, at {format_loss(best.last_measured)} after "
            f"{format_count(best.last_examples)} examples."
        )
    if points:
        done = sum(not point.censored for point in points.values())
        words = f"{done} of {len(points)} runs converged (dots)"
        sentences.append(words + ("; arrows mark those that had not when they ended." if done < len(points) else "."))
    if num_labels > MANY:
        sentences.append(
            "Colours go from the smallest ranks to the largest, of which the legend names these two; point at a line "
            "to see its own."
        )
    bad = [run for run in runs if run.status in ("diverged", "failed")]
    if bad:
        sentences.append(f"{len(bad)} {'run' if len(bad) == 1 else 'runs'} diverged or failed (faint).")
    stopped = sum(run.status == "stopped" for run in runs)
    if stopped:
        sentences.append(f"{format_percent(stopped / len(runs))} of the runs were stopped early.")
    return " ".join(sentences)


def _make_label(run: Run, title: str, data: ReportData) -> str:
    setting = run.member.setting
    parts = tuple(part for part in data.searched if part in setting.allocation.parts)
    named = f"rank {setting.allocation.get(title)}" if title != JOINT else format_ranks(setting.allocation, parts)
    return ", ".join([named, *(format_rates(setting) if data.searches_rates else ())])


def _sort_key(run: Run, title: str) -> tuple[float, ...]:
    allocation, rate = run.member.allocation, run.member.learning_rate or 0.0
    if title != JOINT:
        return (allocation.get(title), rate, -run.member.data_examples)
    return (sum(rank for _, rank in allocation.ranks), *(rank for _, rank in allocation.ranks), rate)


def _make_slug(title: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in title)
