"""Which ranks every part may get: what a user writes becomes a space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from marslora.core.allocation import Space
from marslora.core.errors import ConfigError
from marslora.core.parts import ModelInfo

DEFAULT_RANKS = (1, 4, 16, 64)
"""The ladder of every searched part: a factor of four a rung, the habitual 16 among them."""

RankLadders = int | Sequence[int] | Mapping[str, int | Sequence[int]]


def space_of(info: ModelInfo, ranks: RankLadders, full: Sequence[str] = (), max_rank: int | None = None) -> Space:
    """The space that ``ranks`` up to ``max_rank`` mean for a model: a projector that is not named gets the ladder's
    middle rank."""
    parts = [part.name for part in info.parts if part.linears and part.name not in full]
    if not parts:
        raise ConfigError(f"`full` names every part of {info.architecture}: none is left to rank. Leave one out.")
    named: dict[str, tuple[int, ...]] = {}
    if isinstance(ranks, Mapping):
        for part, ladder in ranks.items():
            info.part(part)
            named[part] = _ladder(f"`ranks` of {part}", ladder)
    common = DEFAULT_RANKS if isinstance(ranks, Mapping) else _ladder("`ranks`", ranks)
    common = _up_to(max_rank, common, "every part")
    middle = (common[len(common) // 2],)
    ladders = {part: named.get(part, middle if part == "projector" else common) for part in parts}
    return Space.parse({part: _up_to(max_rank, ladder, part) for part, ladder in ladders.items()}, "`ranks`")


def _ladder(name: str, ladder: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(ladder, int):
        return (ladder,)
    if not ladder or not all(isinstance(rank, int) for rank in ladder):
        raise ConfigError(f"{name} must be whole numbers such as 4,16,64, found {ladder!r}.")
    return tuple(ladder)


def _up_to(max_rank: int | None, ladder: tuple[int, ...], part: str) -> tuple[int, ...]:
    kept = tuple(rank for rank in ladder if max_rank is None or rank <= max_rank)
    if not kept:
        raise ConfigError(f"`max_rank` = {max_rank} leaves no rank of {list(ladder)} for {part}. Name smaller ranks.")
    return kept
