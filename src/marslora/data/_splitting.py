"""Hold out validation rows so that no picture, sound or video is on both sides."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from marslora.core.errors import DataError
from marslora.data._example_store import ExampleColumns


def hold_out(examples: ExampleColumns, share: float, limit: int, seed: int) -> NDArray[np.bool_]:
    """(N,) whether each row is held out: about ``share`` of them, at most ``limit``, chosen by content and ``seed``.

    Rows that share a medium (or, without any, all their text) stay together. If they form groups so large
    that none fits into the held-out share, rows are held out one by one. Raises `DataError` for fewer than 2 rows.
    """
    num_rows = len(examples.digest_N)
    num_wanted = min(max(1, round(share * num_rows)), limit, num_rows - 1)
    if num_rows < 2:
        raise DataError(
            f"There must be at least 2 training rows to hold some out for validation, found {num_rows}. Give more "
            "rows, or name a validation file."
        )
    chosen_N = _choose_groups(examples, _group_by_content(examples), num_wanted, seed)
    return chosen_N if chosen_N.any() else _choose_groups(examples, np.arange(num_rows), num_wanted, seed)


def _choose_groups(
    examples: ExampleColumns, group_N: NDArray[np.int64], num_wanted: int, seed: int
) -> NDArray[np.bool_]:
    """The rows of whole groups, as many as fit into ``num_wanted``, in an order given by their contents and a seed.

    A group has the number of its first row.
    """
    first_G, size_G = np.unique(group_N, return_counts=True)
    salt = hashlib.sha256(f"{seed}/".encode())
    key_G = np.empty(len(first_G), ">u8")
    for place, digest in enumerate(examples.digest_N[first_G]):
        hashed = salt.copy()
        hashed.update(digest.tobytes().hex().encode())
        key_G[place] = int.from_bytes(hashed.digest()[:8])
    chosen: list[int] = []
    count = 0
    for group in np.argsort(key_G, kind="stable"):
        if count + size_G[group] <= num_wanted:
            chosen.append(int(first_G[group]))
            count += int(size_G[group])
        if count == num_wanted:
            break
    return np.isin(group_N, chosen)


def _group_by_content(examples: ExampleColumns) -> NDArray[np.int64]:
    """(N,) the first row of those to which each row is connected by shared contents, directly or through others.

    Contents of a single row connect nothing, so memory grows with what is shared.
    """
    num_rows = len(examples.digest_N)
    bare_B = np.flatnonzero(examples.num_media_N == 0)
    rows = np.concatenate([examples.example_M, bare_B])
    contents = np.concatenate([examples.media_M, examples.digest_N[bare_B]]).view("S16")
    by_content = np.argsort(contents, kind="stable")
    contents = contents[by_content]
    equals_last = np.zeros(len(rows) + 1, dtype=bool)
    equals_last[1:-1] = contents[1:] == contents[:-1]
    is_shared = equals_last[:-1] | equals_last[1:]
    shared, content = by_content[is_shared], np.cumsum(~equals_last[:-1])[is_shared]
    del contents, by_content, equals_last
    if not len(shared):
        return np.arange(num_rows)
    own, row = np.unique(rows[shared], return_inverse=True)
    _, content = np.unique(content, return_inverse=True)
    num_nodes = len(own) + len(content)
    links = coo_array((np.ones(len(row), dtype=np.int8), (row, len(own) + content)), shape=(num_nodes, num_nodes))
    _, label = connected_components(links, directed=False)
    _, first, group = np.unique(label[: len(own)], return_index=True, return_inverse=True)
    group_N = np.arange(num_rows)
    group_N[own] = own[first[group]]
    return group_N
