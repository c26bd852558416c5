"""Means, Student's intervals, differences paired by seed."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from marslora.comparison.summary import (
    average_costs,
    compute_student_interval,
    correlate_with_loss,
    summarise_differences,
    summarise_methods,
    summarise_seeds,
)
from marslora.core.allocation import Allocation
from marslora.core.comparison import MethodRun, MethodSummary
from marslora.core.runs import Cost, FinalResult, MetricResult


def result(loss, test=None, metric=None, **cost):
    return FinalResult(
        metric=metric and MetricResult(name="f1", base_validation=0.0, validation=metric, test=test and metric),
        id="a",
        allocation=Allocation.of(vision=16),
        adapter_folder="a",
        num_trainable=1,
        base_validation_loss=2.0,
        base_validation_accuracy=0.0,
        validation_loss=loss,
        validation_accuracy=0.5,
        test_loss=test,
        cost=Cost(**cost),
    )


def test_the_interval_is_students():
    values = [1.0, 1.2, 1.1, 0.9]
    expected = ttest_1samp(values, 0).confidence_interval(0.9)
    found = compute_student_interval(values)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), expected.low, expected.high))


def test_one_seed_has_no_interval():
    found = compute_student_interval([1.5])
    assert found.value == 1.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_differences_are_of_the_seeds_that_both_have():
    mine = {0: result(1.0), 1: result(2.0), 3: result(9.0)}
    theirs = {0: result(0.5), 1: result(1.5), 2: result(0.0)}
    found = summarise_differences(mine, theirs, "validation_loss")
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert summarise_differences({5: result(1.0)}, theirs, "validation_loss") is None


def test_a_metric_that_nobody_has_has_no_mean():
    assert summarise_seeds({0: result(1.0)}, "test_loss") is None
    assert summarise_seeds({0: result(1.0, test=2.0)}, "test_loss").value == 2.0


def test_costs_are_means_and_peaks_the_largest():
    found = average_costs([result(1, seconds=1, flops=4, peak_bytes=7), result(1, seconds=3, flops=2, peak_bytes=5)])
    assert (found.seconds, found.flops, found.peak_bytes) == (2.0, 3.0, 7)
    assert average_costs([]) is None


def test_a_metric_of_answers_is_averaged_and_compared_like_the_loss():
    runs = [{0: result(1.0, metric=0.5), 1: result(1.0, metric=0.7)}, {0: result(0.9, metric=0.8), 1: result(0.9)}]
    methods = [
        MethodSummary(name=name, recipe="r", runs=tuple(MethodRun(seed=s, result=each) for s, each in own.items()))
        for name, own in zip("ab", runs, strict=True)
    ]
    first, second = summarise_methods(methods, "validation_loss")
    assert first.answer_metric.value == pytest.approx(0.6) and first.answer_metric_difference is None
    assert second.answer_metric.value == pytest.approx(0.8)
    assert second.answer_metric_difference.value == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(1.0, 0.1), (0.5, 0.4), (0.2, 0.9)], -1.0),
        ([(1.0, 0.9), (0.5, 0.4), (0.2, 0.1)], 1.0),
        ([(1.0, 0.9), (0.5, 0.4)], None),
        ([(1.0, 0.9), (0.5, 0.9), (0.2, 0.9)], None),
        ([(1.0, None), (0.5, None), (0.2, None)], None),
    ],
)
def test_how_well_the_loss_stands_for_the_metric(pairs, expected):
    results = [result(loss, metric=metric) for loss, metric in pairs]
    assert correlate_with_loss(results, "validation_loss") == (expected and pytest.approx(expected))
