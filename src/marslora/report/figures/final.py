"""The chart of the final run: the loss before training, the continued calibration run, the loss until the end."""

from __future__ import annotations

from marslora.core.runs import FinalResult, Run
from marslora.report.data import ReportData
from marslora.report.figures._style import ACCENT, INK, MUTED, Chart, Trace, make_layout, make_log_axis
from marslora.report.numbers import format_count, format_loss, format_percent


def draw_charts(data: ReportData) -> list[Chart]:
    """Draw the curve of the final run; an empty list if there was none."""
    final = data.final
    if final is None or not final.examples:
        return []
    run = find_continued_run(data)
    origin = _choose_origin(final, run)
    traces = [_draw_level(final, origin)]
    if run is not None:
        traces.append(_draw_line(run.examples, run.validation_loss, origin, "calibration, continued", INK, "dot"))
    traces.append(_draw_line(final.examples, final.validation_curve, origin, "final run", ACCENT, "solid"))
    sizes = [9 if examples == final.kept_examples else 5 for examples in final.examples]
    traces[-1] = {**traces[-1], "mode": "lines+markers", "marker": {"size": sizes, "color": ACCENT}}
    if final.train_examples:
        training = _draw_line(final.train_examples, final.train_curve, origin, "training loss", ACCENT, "solid")
        traces.append({**training, "line": {**training["line"], "width": 1}, "opacity": 0.6})
    if data.uniform is not None and data.uniform.examples:
        traces.append(
            _draw_line(data.uniform.examples, data.uniform.validation_curve, origin, "uniform rank", "@warn", "dash")
        )
    x = [value for trace in traces for value in trace["x"]]
    across = make_log_axis("examples seen", x, start=origin)
    up = make_log_axis("loss (nats per answer token)", [y for trace in traces for y in trace["y"]])
    return [
        Chart(
            name="final",
            title="Loss during the final run",
            traces=traces,
            layout=make_layout(across, up),
            caption=_write_caption(data, final, run),
            height=360,
            wide=True,
        )
    ]


def find_continued_run(data: ReportData) -> Run | None:
    """The calibration run that the final run continued; None if it started from scratch."""
    if data.final is None or data.final.started_at_examples <= 0:
        return None
    return next((run for run in data.runs if run.member.id == data.decision.continue_run), None)


def _choose_origin(final: FinalResult, run: Run | None) -> float:
    seen = [each for each in (*final.examples, *(run.examples if run else ())) if each > 0]
    return min(seen, default=1) / 2


def _draw_level(final: FinalResult, origin: float) -> Trace:
    return _draw_line(
        (0, final.examples[-1]), (final.base_validation_loss,) * 2, origin, "before training", MUTED, "dash"
    )


def _draw_line(x: tuple[int, ...], y: tuple[float, ...], origin: float, name: str, colour: str, dash: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [float(each) or origin for each in x],
        "y": list(y),
        "name": name,
        "line": {"color": colour, "width": 2, "dash": dash},
        "hovertemplate": "%{x:,.0f} examples: %{y:.4f}<extra>" + name + "</extra>",
    }


def _write_caption(data: ReportData, final: FinalResult, run: Run | None) -> str:
    fell = final.base_validation_loss - final.validation_loss
    share = fell / final.base_validation_loss if final.base_validation_loss > 0 else float("nan")
    sentences = [
        f"Validation loss went from {format_loss(final.base_validation_loss)} to {format_loss(final.validation_loss)}"
        + (f", {format_percent(abs(share))} {'lower' if fell > 0 else 'higher'}." if share == share else ".")
    ]
    if run is not None:
        saved = final.started_at_examples / data.full_examples
        sentences.append(
            f"It continued a calibration run from {format_count(final.started_at_examples)} examples on, "
            f"which saved {format_percent(saved)} of a full run."
        )
    if final.train_examples:
        sentences.append("The thin line is the training loss; the others are validation losses.")
    end = final.validation_curve[-1]
    if final.kept_examples is not None:
        where = "the lowest point" if final.metric is None else f"the point of the highest {final.metric.name}"
        sentences.append(
            f"The adapter was saved at {where}, after {format_count(final.kept_examples)} examples; "
            f"the run ended at {format_loss(end)}."
        )
    elif min(final.validation_curve) < end * 0.995:
        sentences.append(
            f"The lowest point on the way was {format_loss(min(final.validation_curve))}: it trained too long."
        )
    return " ".join(sentences)
