"""Hold out validation rows so that no picture or sound is on both sides."""

from __future__ import annotations

import hashlib

from marslora.core.errors import DataError
from marslora.data._example import Example


def hold_out(examples: list[Example], share: float, limit: int, seed: int) -> tuple[list[Example], list[Example]]:
    """(kept, held out): about ``share`` of the rows, at most ``limit``, chosen by content and ``seed``.

    Rows that share a picture or sound (or, without any, all their text) stay together. If they form groups so large
    that none fits into the held-out share, rows are held out one by one. Raises `DataError` for fewer than 2 rows.
    """
    num_wanted = min(max(1, round(share * len(examples))), limit)
    if len(examples) < 2:
        raise DataError(
            f"There must be at least 2 training rows to hold some out for validation, found {len(examples)}. Give more "
            "rows, or name a validation file."
        )
    one_by_one = [[index] for index in range(len(examples))]
    chosen = _choose_groups(examples, _group_by_content(examples), num_wanted, seed)
    chosen = chosen or _choose_groups(examples, one_by_one, num_wanted, seed)
    kept = [example for index, example in enumerate(examples) if index not in chosen]
    return kept, [examples[index] for index in sorted(chosen)]


def _choose_groups(examples: list[Example], groups: list[list[int]], num_wanted: int, seed: int) -> set[int]:
    """The rows of whole groups, as many as fit into ``num_wanted``, in an order given by their contents and a seed."""

    def key(group: list[int]) -> bytes:
        return hashlib.sha256(f"{seed}/{examples[group[0]].digest}".encode()).digest()

    chosen: set[int] = set()
    for group in sorted(groups, key=key):
        if len(chosen) + len(group) <= num_wanted:
            chosen.update(group)
        if len(chosen) == num_wanted:
            break
    return chosen


def _group_by_content(examples: list[Example]) -> list[list[int]]:
    """Indices of rows that are connected by shared contents, directly or through others (union-find)."""
    parent = list(range(len(examples)))

    def find_root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first_with: dict[str, int] = {}
    for index, example in enumerate(examples):
        for key in example.media_digests or (example.digest,):
            other = find_root(first_with.setdefault(key, index))
            mine = find_root(index)
            parent[max(mine, other)] = min(mine, other)
    groups: dict[int, list[int]] = {}
    for index in range(len(examples)):
        groups.setdefault(find_root(index), []).append(index)
    return list(groups.values())
