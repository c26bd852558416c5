"""The structure of a model as plain data: its parts, and the linear layers in them that LoRA can adapt."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from marslora.core.allocation import Allocation, Space
from marslora.core.errors import ConfigError
from marslora.core.record import Record

TOKENS_PART = "language"
"""The part whose learning rate the rows of single tokens have."""
TOWERS = ("vision", "audio")
"""The parts that turn pictures and sounds into embeddings."""
PACK_MEMBERS = 4
"""Runs in the pack whose memory a probe estimates: as many as a search typically trains at once."""
LANGUAGE = "language"
"""The part that reads embeddings and writes text."""


class LinearInfo(Record):
    """One linear layer that can be adapted, or those of several experts whose weights are stacked in one parameter."""

    name: str
    """Its path in `model.named_modules()`; for stacked experts the path of the parameter."""
    inputs: int
    outputs: int
    experts: int = 1
    """Number of matrices that are stacked; each of them gets its own adapter."""
    dead: bool = False
    """Whether no gradient reached it in a probe, so that adapting it would waste parameters."""

    def num_trainable(self, rank: int, *, use_dora: bool = False) -> int:
        """Parameters of LoRA at this rank: A is rank x inputs, B is outputs x rank. DoRA adds one length per output."""
        return self.experts * rank * (self.inputs + self.outputs) + (self.outputs if use_dora and rank else 0)

    @property
    def module(self) -> str:
        """The path of the module that an adapter replaces."""
        return self.name if self.experts == 1 else self.name.rpartition(".")[0]


class PartInfo(Record):
    """One part of a multimodal model: vision, audio, projector, language, or any other name."""

    name: str
    paths: tuple[str, ...]
    """The paths of the modules that make up the part."""
    num_parameters: int
    linears: tuple[LinearInfo, ...]
    gradient_norm: float | None = None
    """Norm of the gradient of its linears in a probe, or of all its parameters if it has no linear; None without a
    probe."""
    frozen: bool | None = None
    """Whether a probe found every parameter of the part frozen, as LoRA expects; None without a probe."""
    reached: bool | None = None
    """Whether a gradient reached any weight of the part in a probe, however small it was; None without a probe. A part
    that none reaches is not trained and is no choice of a search."""
    member_bytes: int | None = None
    """Memory in bytes of a run that adapts this part alone, without the base model, measured in a probe."""

    @property
    def alive(self) -> tuple[LinearInfo, ...]:
        """The linears that a gradient reaches; only these are adapted."""
        return tuple(linear for linear in self.linears if not linear.dead)

    def num_trainable(self, rank: int, *, use_dora: bool = False) -> int:
        """Parameters of LoRA at this rank on every linear that a gradient reaches."""
        return sum(linear.num_trainable(rank, use_dora=use_dora) for linear in self.alive)

    @property
    def whole(self) -> tuple[str, ...]:
        """The paths of the modules that are trained if the part is trained whole: its linears, or all its modules if it
        has no linear (like Gemma 3's projector, which is a bare parameter); none if no gradient reaches it."""
        if self.linears:
            return tuple(linear.name for linear in self.alive)
        return () if self.reached is False else self.paths


class TokenTable(Record):
    """The rows of single tokens: where a model looks them up, and where it scores them."""

    embedding: str
    """The path of the embedding."""
    head: str
    """The path of the head."""
    is_tied: bool
    """Whether the head's rows are those of the embedding."""
    rows: int
    """The number of tokens."""
    width: int
    """The length of a row."""

    @property
    def tied_head(self) -> str | None:
        """The path of the head if its rows are those of the embedding."""
        return self.head if self.is_tied else None

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the modules that have rows of their own."""
        return (self.embedding,) if self.is_tied else (self.embedding, self.head)


class ModelInfo(Record):
    """The parts of one model, with the results of a probe if there was one."""

    architecture: str
    modalities: tuple[str, ...]
    num_parameters: int
    parts: tuple[PartInfo, ...]
    tokens: TokenTable | None = None
    """Where the rows of single tokens can be trained; None if they cannot, as in models with an encoder for text."""
    width: int | None = None
    """Hidden size of the language model; None if the model's configuration does not say."""
    unlabelled: tuple[str, ...] = ()
    """Linears that belong to no part and are not adapted: heads, generators, unknown modules."""
    base_bytes: int | None = None
    """Memory in bytes of the base model's weights; None without a probe."""
    member_bytes: int | None = None
    """Memory in bytes of a run that adapts every part, without the base model, measured in a probe."""
    pack_bytes: int | None = None
    """The same of `PACK_MEMBERS` runs that train at once, as those of a search do."""
    warnings: tuple[str, ...] = ()
    """What a user should know; each warning says how to fix it."""

    def __repr__(self) -> str:
        parts = ", ".join(f"{part.name} with {len(part.linears)} linear layers" for part in self.parts)
        return f"ModelInfo({self.architecture}, {self.num_parameters:,} parameters: {parts})"

    def part(self, name: str) -> PartInfo:
        """The part called ``name``. Raises `ConfigError`, which lists the known names, if there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise ConfigError(
            f"`{name}` is not a part of {self.architecture}. Name one of its parts, "
            f"{[part.name for part in self.parts]}."
        )

    @property
    def unreached(self) -> tuple[str, ...]:
        """The parts that no gradient reached in a probe."""
        return tuple(part.name for part in self.parts if part.reached is False)

    def leave_unreached(self, space: Space) -> Space:
        """The same space with rank 0 alone for the parts that no gradient reaches.

        Raises `ConfigError` if that leaves nothing to train.
        """
        kept = Space.of({part: (0,) if part in self.unreached else ladder for part, ladder in space.ladders})
        if any(map(any, dict(space.ladders).values())) and not any(map(any, dict(kept.ladders).values())):
            raise ConfigError(
                f"No gradient reaches {', '.join(self.unreached)}, so nothing is left to train. "
                f"{' '.join(self.warnings[:2])} Name ranks (`ranks`) for parts that the rows use."
            )
        return kept

    def describe_unreached(self, parts: Collection[str]) -> str:
        """Say which of ``parts`` no gradient reaches, and what that means; empty if there is none."""
        unreached = [part for part in self.unreached if part in parts]
        if not unreached:
            return ""
        it, are = ("it", "is") if len(unreached) == 1 else ("they", "are")
        return (
            f"No gradient reaches {' and '.join(unreached)} on these rows, so {it} {are} neither searched nor trained."
        )

    def module_ranks(self, allocation: Allocation) -> dict[str, int]:
        """The rank of every linear that the allocation adapts, by module path."""
        return {linear.name: rank for part, rank in allocation.ranks if rank > 0 for linear in self.part(part).alive}

    def stacked(self, allocation: Allocation) -> tuple[str, ...]:
        """The parameters of stacked experts that the allocation adapts, as PEFT's ``target_parameters``."""
        return tuple(each.name for part in allocation.active for each in self.part(part).alive if each.experts > 1)

    def full_modules(self, full: Iterable[str]) -> tuple[str, ...]:
        """The paths of the modules that are trained if the parts in ``full`` are trained whole."""
        return tuple(path for part in full for path in self.part(part).whole)

    def token_indices(self, ids: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The tokens whose rows are trained, by the path of the module that has the rows, the embedding first.

        Raises `ConfigError` for ids that the model does not have, and for a model whose rows cannot be trained.
        """
        if not ids:
            return {}
        if self.tokens is None:
            raise ConfigError(
                f"`trainable_token_indices` cannot be trained in {self.architecture}, found {list(ids[:5])}: it takes "
                "one embedding of a decoder and a head without bias. Leave them out."
            )
        if beyond := [each for each in ids if each >= self.tokens.rows]:
            raise ConfigError(
                f"`trainable_token_indices` must be below {self.tokens.rows}, the rows of `{self.tokens.embedding}`, "
                f"found {beyond[:5]}. Save the model after `model.resize_token_embeddings(len(tokenizer))`, or leave "
                "them out."
            )
        return dict.fromkeys(self.tokens.paths, tuple(ids))

    def num_trainable(
        self, allocation: Allocation, full: tuple[str, ...] = (), *, use_dora: bool = False, ids: Sequence[int] = ()
    ) -> int:
        """Trainable parameters of an allocation; parts in ``full`` and rows of tokens in ``ids`` are trained whole."""
        count = sum(len(own) * self.tokens.width for own in self.token_indices(ids).values() if self.tokens)
        count += sum(self.part(name).num_parameters for name in full if name not in self.unreached)
        for name, rank in allocation.ranks:
            if name not in full:
                count += self.part(name).num_trainable(rank, use_dora=use_dora)
        return count

    def part_of(self) -> Mapping[str, str]:
        """The part of every linear and every module of stacked experts, by path; for a part without a linear, that of
        its modules. The rows of tokens belong to the language model."""
        linears = {name: part.name for part in self.parts for each in part.linears for name in (each.name, each.module)}
        tokens = dict.fromkeys(self.tokens.paths, TOKENS_PART) if self.tokens else {}
        return tokens | linears | {path: part.name for part in self.parts if not part.linears for path in part.paths}
