"""Say in words what the final run gained: over the untrained model, over the prediction, over uniform ranks."""

from __future__ import annotations

from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate
from marslora.core.promise import check_promise
from marslora.core.runs import FinalResult, MetricResult
from marslora.report.candidates import (
    sort_by_loss,
)
from marslora.report.data import (
    ReportData,
)
from marslora.report.numbers import (
    abbreviate_count,
    format_accuracy,
    format_count,
    format_duration,
    format_loss,
    format_number,
    format_percent,
)


def describe_outcome(data: ReportData) -> list[str]:
    """What was predicted and what came, and one rank for every part beside it, one sentence each; empty if unknown."""
    promised = [] if data.final is None else _describe_promise(data, data.final)
    return [*promised, *_describe_gain_over_uniform(data)]


def describe_gain(data: ReportData) -> list[str]:
    """Sentences about the gain over the untrained model, or what is expected of it; empty if unknown."""
    final = data.final
    if final is not None:
        losses = (
            f"{format_loss(final.base_validation_loss)} before and {format_loss(final.validation_loss)} after training"
        )
        right = f"{format_accuracy(final.base_validation_accuracy)} of answer tokens were right before and "
        right += f"{format_accuracy(final.validation_accuracy)} after"
        sentence = f"The validation loss was {losses}; {right}."
        return [sentence, *_describe_kept_point(final), *_describe_test(final), *_describe_metric(final.metric)]
    predicted, base = data.chosen.predicted_loss, data.base_loss
    if predicted is None or base is None:
        return []
    bounds = f"{format_loss(predicted.low)} to {format_loss(predicted.high)}"
    reached = f"{format_loss(predicted.value)} ({bounds})"
    return [f"The validation loss is {format_loss(base)} now and is expected to reach {reached}."]


def _describe_promise(data: ReportData, final: FinalResult) -> list[str]:
    """Whether the final run ended where the search had predicted."""
    promise = check_promise(data.decision, final)
    if promise is None:
        return []
    bounds = f"{format_loss(promise.predicted.low)} to {format_loss(promise.predicted.high)}"
    away = f"{format_loss(abs(promise.excess))} nats {'above' if promise.excess > 0 else 'below'} the interval"
    verdict = "inside the interval" if promise.is_kept else away
    said = f"The search had predicted {bounds} ({format_percent(promise.predicted.level)} interval)"
    return [f"{said}; the run ended at {format_loss(promise.ended)}, {verdict}."]


def _describe_kept_point(final: FinalResult) -> list[str]:
    if final.kept_examples is None:
        return []
    kept, end = format_count(final.kept_examples), format_count(final.examples[-1])
    best = "the loss was lowest" if final.metric is None else f"{final.metric.name} was highest"
    return [f"The adapter was saved after {kept} examples, where {best}; the run ended after {end}."]


def _describe_metric(metric: MetricResult | None) -> list[str]:
    """What a metric of generated answers said, how the loss went with it, and what it cost; nothing without one."""
    if metric is None:
        return []
    before, after = format_number(metric.base_validation), format_number(metric.validation)
    told = f"On generated answers, {metric.name} was {before} before and {after} after training"
    if metric.test is not None and metric.base_test is not None:
        told += f", on the test rows {format_number(metric.base_test)} before and {format_number(metric.test)} after"
    cost = f"Generating {format_count(metric.num_answers)} answers took {format_duration(metric.seconds)} of the run."
    return [f"{told}. {_describe_loss_link(metric)}{cost}"]


def _describe_loss_link(metric: MetricResult) -> str:
    """How well the loss stood for the metric in the final run, with a space at the end; empty if it cannot be said."""
    if metric.at_lowest_loss is None or metric.loss_correlation is None:
        return ""
    return (
        f"At the point of the lowest loss it was {format_number(metric.at_lowest_loss)}; over the "
        f"{len(metric.curve)} points of the run its rank correlation with the loss was {metric.loss_correlation:.2f}. "
    )


def _describe_test(final: FinalResult) -> list[str]:
    if final.test_loss is None:
        return []
    before = "" if final.base_test_loss is None else f"{format_loss(final.base_test_loss)} before and "
    right = "" if final.test_accuracy is None else f" ({format_accuracy(final.test_accuracy)} of answer tokens right)"
    after = f"{before}{format_loss(final.test_loss)} after training{right}"
    return [f"On the test rows, which the search never used, the loss was {after}."]


def _describe_gain_over_uniform(data: ReportData) -> list[str]:
    final, uniform = data.final, data.uniform
    if final is not None and uniform is not None:
        difference = uniform.validation_loss - final.validation_loss
        rank = f"uniform rank {uniform.allocation.get(data.searched[0])}"
        rank += f" at learning rate {data.uniform_rate:.2g}" if data.uniform_rate else ""
        ended = "lower" if difference > 0 else "no lower"
        costs = f"{abbreviate_count(uniform.num_trainable)} parameters"
        values = f"{format_loss(final.validation_loss)} against {format_loss(uniform.validation_loss)}"
        return [f"It ended {ended} than {rank} ({costs}), in one run of one seed each: {values}."]
    if len(data.searched) > 1 and _is_uniform(data.decision.chosen, data):
        return ["The chosen ranks are already uniform."]
    even = _find_uniform_candidate(data)
    if even is None or even.predicted_loss is None or data.chosen.predicted_loss is None:
        return []
    difference = even.predicted_loss.value - data.chosen.predicted_loss.value
    name = f"Uniform rank {even.allocation.get(data.searched[0])}"
    if abs(difference) < 5e-4:
        return [f"{name} is expected to end equally low."]
    return [f"{name} is expected to end {format_loss(abs(difference))} nats {'higher' if difference > 0 else 'lower'}."]


def _find_uniform_candidate(data: ReportData) -> Candidate | None:
    """The candidate with one rank for every searched part whose trainable parameters are nearest to the choice's.

    It has its best learning rate. None if there is none, or if the choice itself is uniform.
    """
    if _is_uniform(data.decision.chosen, data):
        return None
    wanted = data.num_trainable(data.decision.chosen)
    even = [
        candidate
        for candidate in data.decision.candidates
        if _is_uniform(candidate.allocation, data) and candidate.status != "chosen"
    ]
    nearest = min((abs(data.num_trainable(each.allocation) - wanted) for each in even), default=None)
    best = sort_by_loss([each for each in even if abs(data.num_trainable(each.allocation) - wanted) == nearest])
    return best[0] if best else None


def _is_uniform(allocation: Allocation, data: ReportData) -> bool:
    return len({allocation.get(part) for part in data.searched}) == 1
