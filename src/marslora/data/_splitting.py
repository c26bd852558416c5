"""Hold rows out so that a picture or sound stands on one side only."""

from __future__ import annotations

import hashlib

from marslora.core.errors import DataError
from marslora.data._example import Example


def hold_out(examples: list[Example], share: float, limit: int, seed: int) -> tuple[list[Example], list[Example]]:
    """(kept, held out): about ``share`` of the rows, at most ``limit``, chosen by content and ``seed``.

    Rows that share a picture or sound (or, without any, all their text) stay together. Where they hang together so much
    that no group fits into the held-out share, rows are held out one by one.
    """
    wanted = min(max(1, round(share * len(examples))), limit)
    if len(examples) < 2:
        raise DataError(f"{len(examples)} training rows cannot be split. Give at least 2, or a validation file.")
    one_by_one = [[index] for index in range(len(examples))]
    chosen = _choose(examples, _groups(examples), wanted, seed) or _choose(examples, one_by_one, wanted, seed)
    kept = [example for index, example in enumerate(examples) if index not in chosen]
    return kept, [examples[index] for index in sorted(chosen)]


def _choose(examples: list[Example], groups: list[list[int]], wanted: int, seed: int) -> set[int]:
    """Whole groups, as many as fit into ``wanted`` rows, in an order that their first row's content and a seed give."""

    def key(group: list[int]) -> bytes:
        return hashlib.sha256(f"{seed}/{examples[group[0]].digest}".encode()).digest()

    chosen: set[int] = set()
    for group in sorted(groups, key=key):
        if len(chosen) + len(group) <= wanted:
            chosen.update(group)
        if len(chosen) == wanted:
            break
    return chosen


def _groups(examples: list[Example]) -> list[list[int]]:
    """Row indices that hang together through shared contents (union-find)."""
    parent = list(range(len(examples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first_with: dict[str, int] = {}
    for index, example in enumerate(examples):
        for key in example.media or (example.digest,):
            other = root(first_with.setdefault(key, index))
            mine = root(index)
            parent[max(mine, other)] = min(mine, other)
    groups: dict[int, list[int]] = {}
    for index in range(len(examples)):
        groups.setdefault(root(index), []).append(index)
    return list(groups.values())
