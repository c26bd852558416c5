"""Write ranks per module as settings of `peft.LoraConfig`, with regular expressions that mean the same in any order.

PEFT looks a module's rank up with ``re.match(rf"(.*\\.)?({key})$", name)``, takes the first key that matches, and
saves the keys sorted: keys that overlap change their meaning on reload. Here every module is matched by at most one
key, so order cannot matter.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Any

from marslora.core.errors import ConfigError

_Tree = dict[str, "_Tree"]
"""Module paths by their components; a leaf is empty."""


RSLORA_RANK = 16
"""The rank at which rsLoRA has the scale that LoRA has at every rank: our convention, see `scale`."""


def scale(rank: int, alpha_over_rank: float, *, use_rslora: bool = False) -> float:
    """The factor on an adapter of this rank: ``alpha_over_rank``, or ``alpha / sqrt(rank)`` with rsLoRA."""
    return alpha_over_rank * math.sqrt(RSLORA_RANK / rank) if use_rslora and rank else alpha_over_rank


def lora_config_dict(
    module_ranks: Mapping[str, int],
    alpha_over_rank: float,
    full_modules: Sequence[str] = (),
    dropout: float = 0.0,
    *,
    stacked: Collection[str] = (),
    tokens: Mapping[str, Sequence[int]] = MappingProxyType({}),
    use_rslora: bool = False,
    use_dora: bool = False,
) -> dict[str, Any]:
    """Keyword arguments of `peft.LoraConfig`, JSON-ready, for these ranks by module path.

    Modules of rank 0 are left out, as are those in ``full_modules``, which are trained whole (``modules_to_save``).
    ``alpha`` is ``alpha_over_rank`` times the rank, so that every adapter has the same scale. With rsLoRA it is one
    number for all ranks, so that scales fall with the square root of the rank: ``alpha_over_rank`` is that of rank 16.
    Names in ``stacked`` are parameters that hold the weights of several experts (``target_parameters``); ``tokens`` are
    those whose rows are trained, by the path of the embedding or head (``trainable_token_indices``).
    """
    ranks = {name: rank for name, rank in module_ranks.items() if rank > 0 and name not in set(full_modules)}
    default = Counter(ranks.values()).most_common(1)[0][0] if ranks else 1
    patterns = exclusive_keys(ranks, default)
    modules, parameters = [name for name in ranks if name not in stacked], [name for name in ranks if name in stacked]
    return {
        "r": default,
        "lora_alpha": _alpha(alpha_over_rank, math.sqrt(RSLORA_RANK) if use_rslora else default),
        "lora_dropout": dropout,
        "target_modules": _targets(modules) if modules else [],
        **({"target_parameters": parameters} if parameters else {}),
        "rank_pattern": patterns,
        "alpha_pattern": {} if use_rslora else {key: _alpha(alpha_over_rank, rank) for key, rank in patterns.items()},
        "modules_to_save": list(full_modules) or None,
        "bias": "none",
        **({"trainable_token_indices": {path: list(ids) for path, ids in tokens.items()}} if tokens else {}),
        **({"use_rslora": True} if use_rslora else {}),
        **({"use_dora": True} if use_dora else {}),
    }


def exclusive_keys(ranks: Mapping[str, int], default: int) -> dict[str, int]:
    """``{key: rank}`` such that every module whose rank is not ``default`` matches exactly one key, all others none.

    A key stands for the largest subtree of modules with one rank, and is as short as possible while it stays exclusive.
    """
    names = tuple(ranks)
    keys: dict[str, int] = {}
    for path, leaves in _uniform_subtrees(_tree(names), (), ranks):
        if ranks[leaves[0]] != default:
            keys[_shortest_key(path, leaves, names)] = ranks[leaves[0]]
    return keys


def matches(key: str, name: str) -> bool:
    """Whether PEFT applies the ``key`` of a pattern to the module called ``name``."""
    return re.match(rf"(.*\.)?({key})$", name) is not None


def exact_regex(names: Iterable[str]) -> str:
    """A regular expression that fully matches these module paths and no other string."""
    return _alternatives(_tree(names))


def _targets(names: Sequence[str]) -> str:
    """The regular expression of the adapted modules."""
    regex = exact_regex(names)
    return _headless(regex) if all(name.startswith("model.") for name in names) else regex


def _headless(regex: str) -> str:
    """The expression with a leading ``model.`` made optional: the same model loaded without its head (`AutoModel`) has
    paths without it, and so had some models of older releases of `transformers`."""
    return r"(model\.)?" + regex.removeprefix(r"model\.") if regex.startswith(r"model\.") else regex


def _alpha(alpha_over_rank: float, rank: float) -> float | int:
    alpha = alpha_over_rank * rank
    return int(alpha) if alpha == int(alpha) else alpha


def _tree(names: Iterable[str]) -> _Tree:
    tree: _Tree = {}
    for name in names:
        node = tree
        for step in name.split("."):
            node = node.setdefault(step, {})
        node[""] = {}
    return tree


def _leaves(tree: _Tree, path: tuple[str, ...]) -> Iterator[str]:
    for step, below in tree.items():
        if step == "":
            yield ".".join(path)
        else:
            yield from _leaves(below, (*path, step))


def _uniform_subtrees(
    tree: _Tree, path: tuple[str, ...], ranks: Mapping[str, int]
) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(path, module paths below it) of the largest subtrees whose modules share one rank; () is never one of them."""
    for step, below in tree.items():
        if step == "":
            yield path, [".".join(path)]
            continue
        leaves = list(_leaves(below, (*path, step)))
        if len({ranks[leaf] for leaf in leaves}) == 1:
            yield (*path, step), leaves
        else:
            yield from _uniform_subtrees(below, (*path, step), ranks)


def _shortest_key(path: tuple[str, ...], leaves: list[str], names: tuple[str, ...]) -> str:
    """The shortest tail of ``path`` that matches exactly ``leaves`` among ``names``; the anchored path at worst."""
    below = r"(\..*)?" if ".".join(path) in leaves and len(leaves) > 1 else r"\..*"
    below = "" if leaves == [".".join(path)] else below
    wanted = set(leaves)
    for start in range(len(path) - 1, -1, -1):
        if path[start].isdigit() or (start, path[0]) == (0, "model"):
            continue
        key = r"\.".join(map(re.escape, path[start:])) + below
        if {name for name in names if matches(key, name)} == wanted:
            return key
    anchored = r"\.".join(map(re.escape, path)) + below
    for key in (f"^{_headless(anchored)}", f"^{anchored}"):
        if {name for name in names if matches(key, name)} == wanted:
            return key
    raise ConfigError(
        f"no pattern of PEFT distinguishes `{'.'.join(path)}` from the other adapted modules. Give its part one rank "
        "(`ranks`) or leave the module out (`targets`)."
    )


def _alternatives(tree: _Tree) -> str:
    """The expression of a tree's paths; steps with equal subtrees are written together."""
    steps_of: dict[str, list[str]] = {}
    for step, below in tree.items():
        if step != "":
            tail = _alternatives(below)
            steps_of.setdefault(tail, []).append(step)
    branches = []
    for tail, steps in steps_of.items():
        separator = "" if tail == "" else tail if tail.startswith("(?:\\.") else rf"\.{tail}"
        branches.append(_one_of(steps) + separator)
    joined = branches[0] if len(branches) == 1 else f"({'|'.join(branches)})" if branches else ""
    return rf"(?:\.{joined})?" if "" in tree and branches else joined


def _one_of(steps: list[str]) -> str:
    numbers = sorted(int(step) for step in steps if step.isdigit() and str(int(step)) == step)
    words = [re.escape(step) for step in steps if not (step.isdigit() and str(int(step)) == step)]
    pieces = [*words, *(piece for first, last in _runs(numbers) for piece in _range(first, last))]
    return pieces[0] if len(pieces) == 1 else f"({'|'.join(pieces)})"


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        yield members[0], members[-1]


def _range(first: int, last: int) -> Iterator[str]:
    """Expressions of all numbers from ``first`` to ``last``, one for each that share all digits but the last."""
    for tens, group in groupby(range(first, last + 1), key=lambda number: number // 10):
        ones = [number % 10 for number in group]
        head = str(tens) if tens else ""
        digits = str(ones[0]) if len(ones) == 1 else "[0-9]" if len(ones) == 10 else f"[{ones[0]}-{ones[-1]}]"
        yield head + digits
