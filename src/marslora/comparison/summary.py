"""From runs to a table: means over seeds, Student's intervals, differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t as student

from marslora.core.comparison import MethodSummary
from marslora.core.decision import Interval
from marslora.core.runs import Cost, FinalResult

LEVEL = 0.9


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean with Student's interval; bounds are NaN for a single value."""
    mean, number = float(np.mean(values)), len(values)
    half = math.nan
    if number > 1:
        half = float(student.ppf((1 + LEVEL) / 2, number - 1) * np.std(values, ddof=1) / math.sqrt(number))
    return Interval(value=mean, low=mean - half, high=mean + half, level=LEVEL)


def over_seeds(results: Mapping[int, FinalResult], metric: str) -> Interval | None:
    """The interval of one field of the results; None where no run has it."""
    values = [value for result in results.values() if (value := getattr(result, metric)) is not None]
    return mean_interval(values) if values else None


def paired(mine: Mapping[int, FinalResult], theirs: Mapping[int, FinalResult], metric: str) -> Interval | None:
    """The interval of the differences, mine minus theirs, over the seeds that both have; None where there are none."""
    values = [getattr(mine[seed], metric) - getattr(theirs[seed], metric) for seed in sorted(set(mine) & set(theirs))]
    return mean_interval(values) if values else None


def mean_cost(results: Sequence[FinalResult]) -> Cost | None:
    """What a run cost on average; the peak of memory is the largest."""
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


def summarised(methods: Sequence[MethodSummary], metric: str) -> tuple[MethodSummary, ...]:
    """The methods with their means, costs, and differences to the first."""
    first = methods[0].results
    return tuple(
        method.model_copy(
            update={
                "validation_loss": over_seeds(method.results, "validation_loss"),
                "validation_accuracy": over_seeds(method.results, "validation_accuracy"),
                "test_loss": over_seeds(method.results, "test_loss"),
                "test_accuracy": over_seeds(method.results, "test_accuracy"),
                "difference": paired(method.results, first, metric) if index else None,
                "cost": mean_cost(list(method.results.values())),
            }
        )
        for index, method in enumerate(methods)
    )
