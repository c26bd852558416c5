"""Means, Student's intervals, differences paired by seed."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from marslora.comparison.summary import average_costs, compute_student_interval, summarise_differences, summarise_seeds
from marslora.core.allocation import Allocation
from marslora.core.runs import Cost, FinalResult


def result(loss, test=None, **cost):
    return FinalResult(
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
