"""What a model is made of, as plain data: its parts and the linear layers in them that LoRA can adapt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from marslora.core.allocation import Allocation
from marslora.core.errors import ConfigError
from marslora.core.record import Record


class LinearInfo(Record):
    """One adaptable linear layer, or the layers of all experts that are stacked in one parameter."""

    name: str
    """Its module path in the model, as `model.named_modules()` says it; of stacked experts the parameter's."""
    inputs: int
    outputs: int
    experts: int = 1
    """How many matrices are stacked; each of them gets an adapter of its own."""
    dead: bool = False
    """A probe backward did not reach it: adapting it would waste parameters."""

    def num_trainable(self, rank: int, *, use_dora: bool = False) -> int:
        """Parameters of a LoRA of this rank: A is rank x inputs, B is outputs x rank; of DoRA a length per output."""
        return self.experts * rank * (self.inputs + self.outputs) + (self.outputs if use_dora and rank else 0)

    @property
    def module(self) -> str:
        """The path of the module that an adapter takes the place of."""
        return self.name if self.experts == 1 else self.name.rpartition(".")[0]


class PartInfo(Record):
    """One part of a multimodal model: vision, audio, projector or language (any other name is allowed)."""

    name: str
    paths: tuple[str, ...]
    """The module paths under which the part lives."""
    num_parameters: int
    linears: tuple[LinearInfo, ...]
    gradient_norm: float | None = None
    """Norm of the gradient of the part's weights in a probe, None where none was made: of its linears, or of all its
    parameters where it has no linear."""
    frozen: bool | None = None
    """Whether a probe found every parameter of the part frozen, as LoRA wants them."""
    member_bytes: int | None = None
    """Memory that a run takes beside the base if it adapts this part alone, measured in a probe."""

    @property
    def alive(self) -> tuple[LinearInfo, ...]:
        """The linears that a gradient reaches: those that are adapted."""
        return tuple(linear for linear in self.linears if not linear.dead)

    def num_trainable(self, rank: int, *, use_dora: bool = False) -> int:
        """Parameters of LoRA of this rank on every linear that is alive."""
        return sum(linear.num_trainable(rank, use_dora=use_dora) for linear in self.alive)

    @property
    def whole(self) -> tuple[str, ...]:
        """The module paths that are trained if the part is trained whole: its linears, or where it has none (Gemma 3's
        projector is a bare parameter) everything in it."""
        return tuple(linear.name for linear in self.alive) if self.linears else self.paths


class ModelInfo(Record):
    """The parts of one model."""

    architecture: str
    modalities: tuple[str, ...]
    num_parameters: int
    parts: tuple[PartInfo, ...]
    unlabelled: tuple[str, ...] = ()
    """Linears that belong to no part and are left alone (heads, generators, unknown)."""
    member_bytes: int | None = None
    """Memory that a run takes beside the base if it adapts every part, measured in a probe."""
    warnings: tuple[str, ...] = ()
    """What a user should know, in words, with the way out."""

    def part(self, name: str) -> PartInfo:
        """The part called ``name``; `ConfigError` with the known names otherwise."""
        for part in self.parts:
            if part.name == name:
                return part
        raise ConfigError(f"`{name}` is no part of {self.architecture}. Its parts are {[p.name for p in self.parts]}.")

    def module_ranks(self, allocation: Allocation) -> dict[str, int]:
        """``{module path: rank}`` of every linear that the allocation adapts."""
        return {linear.name: rank for part, rank in allocation.ranks if rank > 0 for linear in self.part(part).alive}

    def stacked(self, allocation: Allocation) -> tuple[str, ...]:
        """The parameters of stacked experts that the allocation adapts: PEFT's ``target_parameters``."""
        return tuple(each.name for part in allocation.active for each in self.part(part).alive if each.experts > 1)

    def full_modules(self, full: Iterable[str]) -> tuple[str, ...]:
        """The paths of the modules that are trained whole if the parts in ``full`` are."""
        return tuple(path for part in full for path in self.part(part).whole)

    def num_trainable(self, allocation: Allocation, full: tuple[str, ...] = (), *, use_dora: bool = False) -> int:
        """Trainable parameters of an allocation; parts in ``full`` are trained whole."""
        count = sum(self.part(name).num_parameters for name in full)
        for name, rank in allocation.ranks:
            if name not in full:
                count += self.part(name).num_trainable(rank, use_dora=use_dora)
        return count

    def part_of(self) -> Mapping[str, str]:
        """``{path: part name}`` of every linear, of modules of experts, of the modules of parts without a linear."""
        linears = {name: part.name for part in self.parts for each in part.linears for name in (each.name, each.module)}
        return linears | {path: part.name for part in self.parts if not part.linears for path in part.paths}
