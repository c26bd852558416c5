"""Budgets are planned in full runs and limited in seconds and operations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marslora.core.budget import Budget, Limit
from marslora.core.errors import ConfigError
from marslora.core.runs import Cost


@pytest.mark.parametrize(
    ("words", "runs", "seconds", "flops"),
    [
        (None, None, None, None),
        (0.5, 0.5, None, None),
        ("0.5", 0.5, None, None),
        ("1e-1", 0.1, None, None),
        ("90s", None, 90, None),
        ("30m", None, 1800, None),
        ("1.5H", None, 5400, None),
        ("1e15flops", None, None, 1e15),
        ("0.5, 2h,3e12FLOPs", 0.5, 7200, 3e12),
    ],
)
def test_words(words, runs, seconds, flops):
    assert Budget.read(words) == Budget(runs, Limit(seconds, flops))


@pytest.mark.parametrize("words", ["", "much", "30d", "0", "-1h", "inf", "nan", "h", "1,,2"])
def test_what_is_no_budget_is_said(words):
    with pytest.raises(ConfigError, match="`budget` must be a number above 0 such as"):
        Budget.read(words)


def test_a_unit_twice_is_refused():
    with pytest.raises(ConfigError, match="names seconds twice in '30m,2h'"):
        Budget.read("30m,2h")


@given(
    seconds=st.floats(0.1, 1e6), spent=st.floats(0.1, 1e6), examples=st.integers(1, 10_000), new=st.integers(0, 10_000)
)
def test_a_round_begins_if_its_price_fits(seconds, spent, examples, new):
    reason = Limit(seconds=seconds).describe_excess(Cost(seconds=spent, examples=examples), new)
    assert (reason is None) == (spent * (1 + new / examples) <= seconds)


def test_operations_are_limited_too_and_the_first_round_always_begins():
    spent = Cost(seconds=1.0, examples=100, flops=1e9)
    assert Limit(flops=2e9).describe_excess(spent, 100) is None
    assert "1e+09 operations and the next round would take about 2e+09 more" in Limit(flops=2e9).describe_excess(
        spent, 200
    )
    assert Limit(seconds=1e-9, flops=1.0).describe_excess(Cost(), 100) is None
