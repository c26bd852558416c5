"""The order in which a run sees rows: nested subsets, and batches that can be resumed anywhere.

Runs on fewer rows see a subset of the rows of larger runs, in the same relative order of the same seed, so that scores
of different data sizes can be compared. The order has no state: a stopped run continues from its number of examples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from marslora.core.errors import ConfigError
from marslora.core.seeds import derive

WINDOW = 32
"""Batches within which rows are exchanged to be of like length. A convention: with fewer, batches are less alike; with
more, a short run sees less of its epoch."""


def nested_order(n: int, seed: int) -> NDArray[np.int64]:
    """A seeded order of ``n`` rows. Its first D entries are the subset of size D, which holds every smaller one."""
    return _shuffle(n, derive(seed, "nested order"))


def iterate_batches(
    data_examples: int, batch_size: int, seed: int, start_examples: int, until_examples: int
) -> Iterator[NDArray[np.int64]]:
    """Batches of positions below ``data_examples``: look them up in `nested_order` to get rows.

    The stream is a sequence of seeded shuffles of all positions, cut into batches of ``batch_size`` from
    ``start_examples`` on; the last batch ends at ``until_examples``. It has no state: a start at a multiple of
    ``batch_size`` continues exactly as a start at 0 would. Raises `ConfigError` for any other start.
    """
    if data_examples < 1 or batch_size < 1:
        raise ConfigError(
            f"Batches need at least 1 row and a `batch_size` of at least 1, found {data_examples} rows and a "
            f"`batch_size` of {batch_size}. Give more rows or a larger batch size."
        )
    if start_examples % batch_size:
        raise ConfigError(
            f"`start_examples` must be a multiple of `batch_size` ({batch_size}), found {start_examples}. Start at "
            f"{start_examples - start_examples % batch_size}."
        )
    epoch, shuffled = -1, np.empty(0, dtype=np.int64)
    for start in range(start_examples, until_examples, batch_size):
        pieces = []
        at, stop = start, min(start + batch_size, until_examples)
        while at < stop:
            if at // data_examples != epoch:
                epoch = at // data_examples
                shuffled = _shuffle(data_examples, derive(seed, "epoch", epoch))
            piece = shuffled[at % data_examples : at % data_examples + stop - at]
            pieces.append(piece)
            at += len(piece)
        yield np.concatenate(pieces)


def iterate_batches_of_like_lengths(
    lengths: NDArray[np.int64], batch_size: int, seed: int, start_examples: int, until_examples: int
) -> Iterator[NDArray[np.int64]]:
    """As `iterate_batches` with a row for each of ``lengths``, but rows of a batch are of like length.

    Each window of `WINDOW` batches has the same rows as there; in it they are sorted by length, cut into batches, and
    these are shuffled. It is as stateless: batches depend on neither start nor end, but the last may be shorter.
    """
    span = WINDOW * batch_size
    for window in range(start_examples // span, -(-until_examples // span)):
        low = window * span
        drawn = np.concatenate(list(iterate_batches(len(lengths), batch_size, seed, low, low + span)))
        batches = drawn[np.argsort(lengths[drawn], kind="stable")].reshape(WINDOW, batch_size)
        shuffled = batches[_shuffle(WINDOW, derive(seed, "window", window))]
        for place in range(max(0, (start_examples - low) // batch_size), WINDOW):
            if (left := until_examples - low - place * batch_size) <= 0:
                return
            yield shuffled[place][:left]


def split_evenly(rows: list[int], count: int) -> list[list[int]]:
    """``rows`` in ``count`` pieces of nearly equal size; some are empty if there are fewer rows than pieces."""
    bounds = [index * len(rows) // count for index in range(count + 1)]
    return [rows[low:high] for low, high in itertools.pairwise(bounds)]


def _shuffle(n: int, seed: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.PCG64(seed)).permutation(n)
