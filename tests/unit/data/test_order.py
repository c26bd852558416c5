"""Subsets are nested, batches are resumable, epochs are fair."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marslora.core.errors import ConfigError
from marslora.data.order import WINDOW, iterate_batches, iterate_batches_of_like_lengths, nested_order


@given(n=st.integers(1, 500), seed=st.integers(0, 2**40))
def test_an_order_is_a_permutation_that_the_seed_decides(n, seed):
    order = nested_order(n, seed)
    assert sorted(order) == list(range(n))
    assert np.array_equal(order, nested_order(n, seed))


def test_other_seeds_give_other_orders():
    assert not np.array_equal(nested_order(100, 0), nested_order(100, 1))


@given(
    rows=st.integers(1, 60),
    size=st.integers(1, 20),
    seed=st.integers(0, 99),
    skipped=st.integers(0, 12),
    until=st.integers(1, 300),
)
def test_a_resumed_stream_goes_on_as_if_it_had_run_from_the_start(rows, size, seed, skipped, until):
    whole = list(iterate_batches(rows, size, seed, 0, until))
    resumed = list(iterate_batches(rows, size, seed, skipped * size, until))
    assert len(resumed) == max(0, len(whole) - skipped)
    assert all(np.array_equal(a, b) for a, b in zip(whole[skipped:], resumed, strict=True))


@given(rows=st.integers(1, 60), size=st.integers(1, 70), epochs=st.integers(1, 4))
def test_every_epoch_sees_every_row_once(rows, size, epochs):
    stream = np.concatenate(list(iterate_batches(rows, size, 3, 0, rows * epochs)))
    assert len(stream) == rows * epochs
    for epoch in range(epochs):
        assert sorted(stream[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_epochs_are_shuffled_anew():
    first, second = iterate_batches(50, 50, 0, 0, 100)
    assert not np.array_equal(first, second)


def test_a_longer_run_begins_as_a_shorter_one():
    short, long = iterate_batches(30, 8, 1, 0, 64), iterate_batches(30, 8, 1, 0, 640)
    assert all(np.array_equal(a, b) for a, b in zip(short, itertools.islice(long, 8), strict=True))


def test_the_last_batch_ends_where_asked():
    assert [len(batch) for batch in iterate_batches(10, 4, 0, 0, 10)] == [4, 4, 2]


def test_a_start_between_batches_is_refused():
    with pytest.raises(ConfigError, match=r"multiple of `batch_size` \(8\)"):
        next(iterate_batches(10, 8, 0, 5, 40))


def test_no_rows_are_refused():
    with pytest.raises(ConfigError, match="0 rows"):
        next(iterate_batches(0, 8, 0, 0, 40))


def draw_lengths(rows):
    return np.random.default_rng(0).integers(10, 500, rows)


@settings(deadline=None)
@given(rows=st.integers(1, 90), size=st.integers(1, 9), skipped=st.integers(0, 40), until=st.integers(1, 400))
def test_batches_of_like_lengths_are_resumed_as_if_they_had_run_from_the_start(rows, size, skipped, until):
    lengths = draw_lengths(rows)
    whole = list(iterate_batches_of_like_lengths(lengths, size, 3, 0, until))
    resumed = list(iterate_batches_of_like_lengths(lengths, size, 3, skipped * size, until))
    assert [len(batch) for batch in whole] == [len(batch) for batch in iterate_batches(rows, size, 3, 0, until)]
    assert len(resumed) == max(0, len(whole) - skipped)
    assert all(np.array_equal(a, b) for a, b in zip(whole[skipped:], resumed, strict=True))
    longer = iterate_batches_of_like_lengths(lengths, size, 3, 0, 10 * until)
    assert all(np.array_equal(a, b[: len(a)]) for a, b in zip(whole, longer, strict=False))


def test_a_window_has_its_rows_in_batches_of_like_lengths_in_no_order():
    lengths, size = draw_lengths(1000), 8
    plain = list(iterate_batches(1000, size, 5, 0, 2 * WINDOW * size))
    grouped = list(iterate_batches_of_like_lengths(lengths, size, 5, 0, 2 * WINDOW * size))
    for window in (slice(0, WINDOW), slice(WINDOW, 2 * WINDOW)):
        assert sorted(np.concatenate(plain[window])) == sorted(np.concatenate(grouped[window]))
    longest = [int(lengths[batch].max()) for batch in grouped[:WINDOW]]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)

    def padding(batches):
        return sum(int((lengths[batch].max() - lengths[batch]).sum()) for batch in batches)

    assert padding(grouped) < 0.1 * padding(plain)
