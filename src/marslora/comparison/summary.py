"""Summarise the runs of a comparison: means over seeds with Student's intervals, and differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from scipy.stats import t as student

from marslora.core.comparison import MethodSummary
from marslora.core.decision import Interval
from marslora.core.runs import Cost, FinalResult

LEVEL = 0.9
"""Coverage of the intervals. 90 % by convention, as everywhere in this package."""


METRIC_OF = {"test_loss": "metric.test", "validation_loss": "metric.validation"}
"""The metric of generated answers on the same split as a loss."""


def compute_student_interval(values: Sequence[float]) -> Interval:
    """The mean of the values with its interval by Student's t; with a single value, the bounds are NaN."""
    mean, number = float(np.mean(values)), len(values)
    half = math.nan
    if number > 1:
        half = float(student.ppf((1 + LEVEL) / 2, number - 1) * np.std(values, ddof=1) / math.sqrt(number))
    return Interval(value=mean, low=mean - half, high=mean + half, level=LEVEL)


def summarise_seeds(results: Mapping[int, FinalResult], metric: str) -> Interval | None:
    """The mean of one field of the results over their seeds; None if no run has it. ``metric`` as in `read_value`."""
    values = [value for result in results.values() if (value := read_value(result, metric)) is not None]
    return compute_student_interval(values) if values else None


def summarise_differences(
    mine: Mapping[int, FinalResult], theirs: Mapping[int, FinalResult], metric: str
) -> Interval | None:
    """The mean difference, mine minus theirs, over the seeds that both have; None if there is no such seed."""
    both = sorted(set(mine) & set(theirs))
    pairs = [(read_value(mine[seed], metric), read_value(theirs[seed], metric)) for seed in both]
    values = [own - other for own, other in pairs if own is not None and other is not None]
    return compute_student_interval(values) if values else None


def read_value(result: FinalResult, name: str) -> float | None:
    """A field of a result, such as ``test_loss``, or of its metric, such as ``metric.test``; None if it has none."""
    value: Any = result
    for field in name.split("."):
        value = None if value is None else getattr(value, field)
    return None if value is None else float(value)


def correlate_with_loss(results: Sequence[FinalResult], loss: str) -> float | None:
    """`Comparison.loss_correlation` of the runs, on the split of ``loss``."""
    pairs = [(read_value(result, loss), read_value(result, METRIC_OF[loss])) for result in results]
    known = [(one, other) for one, other in pairs if one is not None and other is not None]
    losses, values = [one for one, _ in known], [other for _, other in known]
    if len(known) < 3 or len(set(losses)) == 1 or len(set(values)) == 1:
        return None
    return float(spearmanr(losses, values).statistic)


def average_costs(results: Sequence[FinalResult]) -> Cost | None:
    """The mean cost of a run; its peak memory is the largest of all runs. None without runs."""
    if not results:
        return None
    total = sum((result.cost for result in results), Cost())
    number = len(results)
    return total.model_copy(
        update={
            "seconds": total.seconds / number,
            "flops": total.flops / number,
            "examples": round(total.examples / number),
        }
    )


def summarise_methods(methods: Sequence[MethodSummary], metric: str) -> tuple[MethodSummary, ...]:
    """Fill in the means and costs of the methods, and their differences to the first one."""
    first, answers = methods[0].results, METRIC_OF[metric]
    return tuple(
        method.model_copy(
            update={
                "validation_loss": summarise_seeds(method.results, "validation_loss"),
                "validation_accuracy": summarise_seeds(method.results, "validation_accuracy"),
                "test_loss": summarise_seeds(method.results, "test_loss"),
                "test_accuracy": summarise_seeds(method.results, "test_accuracy"),
                "difference": summarise_differences(method.results, first, metric) if index else None,
                "answer_metric": summarise_seeds(method.results, answers),
                "answer_metric_difference": summarise_differences(method.results, first, answers) if index else None,
                "cost": average_costs(list(method.results.values())),
            }
        )
        for index, method in enumerate(methods)
    )
