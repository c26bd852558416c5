"""Allocations of ranks to the parts of a model, and the space of allocations that a search may choose from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from pydantic import model_serializer, model_validator

from marslora.core.errors import ConfigError
from marslora.core.record import Record

MAX_RANK = 4096
"""The largest rank that is accepted. A guard against typing errors: a matrix of a larger rank is hardly low-rank."""
RANK_OF_ZERO = 0.5
"""The value that replaces rank 0 in logarithms and powers of ranks: half of the smallest rank that can learn."""


class Allocation(Record):
    """One rank per part of the model, e.g. ``vision=8 language=16``; rank 0 leaves a part as it is.

    Hashable, ordered as the space lists its parts, and written to JSON as a plain object.
    """

    ranks: tuple[tuple[str, int], ...]

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, values: object) -> object:
        if isinstance(values, Mapping) and set(values) != {"ranks"}:
            return {"ranks": tuple((str(part), rank) for part, rank in values.items())}
        return values

    @model_validator(mode="after")
    def _check(self) -> Allocation:
        for part, rank in self.ranks:
            if not 0 <= rank <= MAX_RANK:
                raise ValueError(f"the rank of `{part}` must be between 0 and {MAX_RANK}, found {rank}: correct it")
        return self

    @model_serializer
    def _to_mapping(self) -> dict[str, int]:
        return dict(self.ranks)

    @classmethod
    def of(cls, ranks: Mapping[str, int] | None = None, /, **more: int) -> Allocation:
        """``Allocation.of(vision=8, language=16)``, or the same from a mapping."""
        return cls(ranks=tuple({**(ranks or {}), **more}.items()))

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts, in order."""
        return tuple(part for part, _ in self.ranks)

    @property
    def active(self) -> tuple[str, ...]:
        """The parts with a rank above 0."""
        return tuple(part for part, rank in self.ranks if rank > 0)

    def __getitem__(self, part: str) -> int:
        return dict(self.ranks)[part]

    def get(self, part: str, default: int = 0) -> int:
        """The rank of ``part``, or ``default`` if the allocation does not name it."""
        return dict(self.ranks).get(part, default)

    def keep_only(self, *parts: str) -> Allocation:
        """The same allocation with rank 0 for every other part."""
        return Allocation(ranks=tuple((part, rank if part in parts else 0) for part, rank in self.ranks))

    def replace(self, **ranks: int) -> Allocation:
        """The same allocation with some ranks changed."""
        return Allocation.of({**dict(self.ranks), **ranks})

    def as_dict(self) -> dict[str, int]:
        """The ranks as ``{part: rank}``."""
        return dict(self.ranks)

    def __str__(self) -> str:
        return " ".join(f"{part}={rank}" for part, rank in self.ranks)


def _read_ladder(part: object, ladder: object) -> tuple[object, ...]:
    if not isinstance(ladder, Sequence) or not all(isinstance(rank, int) for rank in ladder):
        raise ValueError(
            f"the ladder of `{part}` must be a list of whole numbers such as [4, 16, 64], found {ladder!r}"
        )
    return tuple(ladder)


class Space(Record):
    """The ranks each part may get: a ladder per part. A ladder of one rank fixes the part.

    Written to JSON as ``{"vision": [2, 8, 32], "projector": [16], "language": [2, 8, 32]}``.
    """

    ladders: tuple[tuple[str, tuple[int, ...]], ...]

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, values: object) -> object:
        if isinstance(values, Mapping) and set(values) != {"ladders"}:
            return {"ladders": tuple((str(part), _read_ladder(part, ladder)) for part, ladder in values.items())}
        return values

    @model_validator(mode="after")
    def _check(self) -> Space:
        if not self.ladders:
            raise ValueError(f"at least one part must have a ladder such as [4, 16, 64], found {self.ladders!r}")
        for part, ladder in self.ladders:
            if not ladder or list(ladder) != sorted(set(ladder)):
                raise ValueError(
                    f"the ladder of `{part}` must hold increasing ranks without repeats, found {list(ladder)}"
                )
            if ladder[0] < 0 or ladder[-1] > MAX_RANK:
                raise ValueError(f"the ranks of `{part}` must be between 0 and {MAX_RANK}, found {list(ladder)}")
        return self

    @model_serializer
    def _to_mapping(self) -> dict[str, list[int]]:
        return {part: list(ladder) for part, ladder in self.ladders}

    @classmethod
    def of(cls, ladders: Mapping[str, tuple[int, ...]]) -> Space:
        """The space with these ladders, by part."""
        return cls(ladders=tuple((part, tuple(ladder)) for part, ladder in ladders.items()))

    @property
    def parts(self) -> tuple[str, ...]:
        """Every part, searched or fixed."""
        return tuple(part for part, _ in self.ladders)

    @property
    def searched(self) -> tuple[str, ...]:
        """The parts whose ladder has more than one rank."""
        return tuple(part for part, ladder in self.ladders if len(ladder) > 1)

    def ladder(self, part: str) -> tuple[int, ...]:
        """The ranks that ``part`` may get, in increasing order. Raises `ConfigError` for an unknown part."""
        ladders = dict(self.ladders)
        if part not in ladders:
            raise ConfigError(f"`{part}` is not a part of this search space. Name one of {list(ladders)}.")
        return ladders[part]

    def __len__(self) -> int:
        size = 1
        for _, ladder in self.ladders:
            size *= len(ladder)
        return size

    @property
    def has_choice(self) -> bool:
        """Whether more than one allocation trains something, so that there is something to measure."""
        return sum(bool(allocation.active) for allocation in self.allocations()) > 1

    def allocations(self) -> Iterator[Allocation]:
        """Every allocation of the space, the last part varying fastest."""
        for ranks in itertools.product(*(ladder for _, ladder in self.ladders)):
            yield Allocation(ranks=tuple(zip(self.parts, ranks, strict=True)))


def list_allocations(
    space: Space, count_parameters: Callable[[Allocation], int], most: int | None
) -> tuple[Allocation, ...]:
    """The allocations with at most ``most`` trainable parameters, in the order of the space, without the one that
    trains nothing. Raises `ConfigError` if there is none."""
    active = [allocation for allocation in space.allocations() if allocation.active]
    if not active:
        ladders = {part: list(ladder) for part, ladder in space.ladders}
        raise ConfigError(
            f"`ranks` must let at least one part train, found only rank 0: {ladders}. Add a rank above 0."
        )
    if most is None:
        return tuple(active)
    counts = [count_parameters(allocation) for allocation in active]
    if min(counts) > most:
        raise ConfigError(
            f"No allocation has at most {most} trainable parameters (`max_parameters`, or `max_memory` at 16 bytes "
            f"each): the smallest has {min(counts)}. Raise the limit or add smaller ranks."
        )
    return tuple(allocation for allocation, count in zip(active, counts, strict=True) if count <= most)
