"""Read the ranks that each part may get, and build the search space of a model from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from marslora.core.allocation import Space
from marslora.core.errors import ConfigError
from marslora.core.parts import TOWERS, ModelInfo
from marslora.core.words import read_numbers, read_pairs

DEFAULT_RANKS = (4, 16, 64)
"""The default ladder of a searched part: each rank is four times the one before, and the usual 16 is among them."""
TOWER_RANKS = (0, *DEFAULT_RANKS)
"""The default ladder of a tower. Rank 0 leaves it as it is: whether to train it at all is the first question."""

RankLadders = int | Sequence[int] | Mapping[str, int | Sequence[int]]
"""One rank or ladder for every part, or ``{part: rank or ladder}``. One rank fixes a part."""
EXAMPLE = "ranks such as 4,16,64 or vision=4,16,64"


def read_ladders(value: object) -> RankLadders:
    """Read ranks from numbers, a mapping, or texts such as ``"4,16,64"`` and ``["vision=4,16", "language=64"]``.

    Raises `ValueError`, which gives an example, for anything else.
    """
    if isinstance(value, str):
        return read_ladders([value])
    if isinstance(value, Mapping):
        return {str(part): _read_ladder(ladder, f" for {part}") for part, ladder in value.items()}
    if isinstance(value, Sequence) and value and all(isinstance(word, str) for word in value):
        if len(value) == 1 and "=" not in value[0]:
            return _read_ladder(value[0])
        return {part: _read_ladder(text, f" for {part}") for part, text in read_pairs(value, "vision=4,16,64").items()}
    return _read_ladder(value)


def _read_ladder(value: object, where: str = "") -> tuple[int, ...]:
    if isinstance(value, str):
        return read_numbers(value, f"{EXAMPLE}{where}")
    ladder = (value,) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if not ladder or not all(isinstance(rank, int) and not isinstance(rank, bool) for rank in ladder):
        raise ValueError(f"must be {EXAMPLE}{where}, found {value!r}")
    return ladder


def build_space(
    info: ModelInfo, ranks: RankLadders | None, full: Sequence[str] = (), max_rank: int | None = None
) -> Space:
    """Build the search space of ``ranks`` up to ``max_rank`` for the parts of a model that are not trained whole.

    A part that ``ranks`` does not name gets `DEFAULT_RANKS`, a tower `TOWER_RANKS`. A projector that is not named gets
    the middle rank of the ladder and is not searched. Raises `ConfigError` for an unknown part, for wrong ranks, and if
    nothing is left to search.
    """
    parts = [part.name for part in info.parts if part.linears and part.name not in full]
    if not parts:
        raise ConfigError(
            f"`full` names every part of {info.architecture} ({', '.join(full)}), so no part is left that could get a "
            "rank. Omit at least one of them."
        )
    try:
        ladders = {} if ranks is None else read_ladders(ranks)
    except ValueError as error:
        raise ConfigError(f"`ranks` {error}.") from None
    named = ladders if isinstance(ladders, Mapping) else {}
    for part in named:
        info.part(part)
    if whole := [part for part in named if part in full]:
        raise ConfigError(
            f"`ranks` and `full` both name {', '.join(whole)}, which is trained with a rank or whole. Name it in one."
        )
    is_common = not isinstance(ladders, Mapping)
    common = _cut_ladder(_read_ladder(ladders) if is_common else DEFAULT_RANKS, max_rank, "every part")
    unnamed = {
        "projector": (common[len(common) // 2],),
        **({} if is_common else dict.fromkeys(TOWERS, TOWER_RANKS)),
    }
    chosen = {part: _read_ladder(named.get(part, unnamed.get(part, common))) for part in parts}
    return Space.parse({part: _cut_ladder(ladder, max_rank, part) for part, ladder in chosen.items()}, "`ranks`")


def _cut_ladder(ladder: tuple[int, ...], max_rank: int | None, part: str) -> tuple[int, ...]:
    kept = tuple(rank for rank in ladder if max_rank is None or rank <= max_rank)
    if not kept:
        raise ConfigError(
            f"`max_rank` {max_rank} excludes all ranks of {part}, which are {list(ladder)}. Raise it, or give smaller "
            "ranks."
        )
    return kept
