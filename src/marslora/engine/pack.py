"""K members on one frozen model: their adapters in place of its linears, and their optimizer.

Every trained tensor holds K members along its first dimension, so that one forward and backward on a batch repeated K
times gives each member exactly the gradient it would have alone. Between packs a member is a `Member`: its tensors in
PEFT's shapes on the CPU, which any later pack can take in.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from marslora import adapters
from marslora.adapters import (
    AbstractAdapter,
    ExpertLora,
    Factor,
    MemberSettings,
    TrainingPosition,
    build_token_adapters,
    build_whole_module,
)
from marslora.core import patterns, plugins
from marslora.core.errors import ConfigError
from marslora.core.parts import TOKENS_PART, ModelInfo
from marslora.core.schedule import rate_factor
from marslora.core.spec import MemberSpec, TrainingSpec
from marslora.engine.images import separate_images
from marslora.engine.outliers import separate_members
from marslora.models.answers import AnswerHead, Batch, answer_logits, token_nats
from marslora.models.precision import mixed_precision
from marslora.optim import AbstractOptimizer, AbstractRecursion, as_two_point, create_optimizer


@dataclass
class Base:
    """A frozen model and what its packs have in common."""

    model: Any
    info: ModelInfo
    training: TrainingSpec
    device: torch.device
    dtype: torch.dtype
    head: AnswerHead | None = None
    """Answer-only logits; None: the plain path."""

    def mixed_precision(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast if the model is in half precision, else nothing."""
        return mixed_precision(self.device, self.dtype)

    def batch(self, collated: Mapping[str, Any]) -> Batch:
        """The collated batch on the model's device."""
        return Batch.of(collated, self.device, is_encoder_decoder=self.model.config.is_encoder_decoder)

    def modules(self, members: Sequence[MemberSpec]) -> dict[str, str]:
        """``{module path: part}`` of each linear that a member adapts and each module trained whole, in fixed order."""
        parts: dict[str, str] = {}
        for part in self.info.parts:
            if part.name in self.training.full:
                parts |= dict.fromkeys(part.whole, part.name)
            elif any(member.allocation.get(part.name) for member in members):
                parts |= {linear.module: part.name for linear in part.alive}
        if self.token_indices and self.info.tokens:
            parts |= dict.fromkeys(filter(None, (*self.token_indices, self.info.tokens.tied_head)), TOKENS_PART)
        return parts

    @property
    def token_indices(self) -> dict[str, tuple[int, ...]]:
        """The tokens whose rows are trained, by the path of the embedding or head."""
        return self.info.token_indices(self.training.trainable_token_indices)

    def member_settings(self, member: MemberSpec, part: str) -> MemberSettings:
        """A member's rank, scale, dropout and seed for the linears of ``part``."""
        rank, alpha_over_rank, dropout = member.allocation.get(part), *self._scale_and_dropout(member)
        rslora = self.training.lora_variant.get("use_rslora", False)
        return MemberSettings(rank, patterns.scale(rank, alpha_over_rank, use_rslora=rslora), dropout, member.seed)

    @cached_property
    def adapter_class(self) -> type[AbstractAdapter]:
        """The class of the adapters. Raises `ConfigError` if it does not train packed or does not take the options."""
        adapter = self.training.adapter
        adapter_class = plugins.load(adapters, adapter.name, AbstractAdapter)
        adapter_class.Config.of(adapter.options, adapter_class.__name__)
        return adapter_class

    def lora_settings(self, member: MemberSpec) -> dict[str, Any] | None:
        """Keyword arguments of `peft.LoraConfig` for a member; None if PEFT has no form for its adapter."""
        if not self.adapter_class.peft_format:
            return None
        full = self.training.full
        lora_only = member.allocation.replace(**{part: 0 for part in full if part in member.allocation.parts})
        whole_modules = [path for part in self.info.parts if part.name in full for path in part.whole]
        alpha_over_rank, dropout = self._scale_and_dropout(member)
        return patterns.lora_config_dict(
            self.info.module_ranks(lora_only),
            alpha_over_rank,
            whole_modules,
            dropout,
            stacked=self.info.stacked(lora_only),
            tokens=self.token_indices,
            **self.training.lora_variant,
        )

    def _scale_and_dropout(self, member: MemberSpec) -> tuple[float, float]:
        training = self.training
        return (
            training.alpha_over_rank if member.alpha_over_rank is None else member.alpha_over_rank,
            training.dropout if member.dropout is None else member.dropout,
        )


@dataclass
class Member:
    """One run between packs: its tensors as a checkpoint holds them, on the CPU and never changed."""

    spec: MemberSpec
    weights: dict[str, Tensor] = field(default_factory=dict)
    """By module path and PEFT key; empty before the first step, when a pack draws them from the member's seed."""
    moments: dict[str, Tensor] = field(default_factory=dict)
    """The optimizer's state, by module path, factor and name."""
    step: int = 0
    """Optimizer steps taken."""


class Pack:
    """K members on a model. A context manager: inside, adapters replace linears; afterwards the model is as before."""

    def __init__(self, base: Base, members: Sequence[Member], *, trains: bool = True):
        """Without ``trains`` there is no optimizer, and moments are not read: the pack can only be scored."""
        self.base, self.members, self.trains = base, tuple(members), trains
        self.position = TrainingPosition()
        self.parts = base.modules([member.spec for member in members])
        tokens = self._token_adapters()
        self.adapters = {path: tokens.get(path) or self._adapter(path, part) for path, part in self.parts.items()}
        self.optimizer = self._build_optimizer() if trains else None
        self._context = contextlib.ExitStack()
        self._load_members()

    def _token_adapters(self) -> dict[str, AbstractAdapter]:
        """The adapters that train rows of single tokens, by the path of the embedding or head."""
        base, table = self.base, self.base.info.tokens
        settings = [base.member_settings(member.spec, TOKENS_PART) for member in self.members]
        tied_head = table.tied_head if table else None
        return build_token_adapters(base.model, base.token_indices, tied_head, settings, self.position)

    def _adapter(self, path: str, part: str) -> AbstractAdapter:
        """The adapter that takes the place of the module at ``path``."""
        base, module = self.base, self.base.model.get_submodule(path)
        settings = [base.member_settings(member.spec, part) for member in self.members]
        if part in base.training.full:
            return build_whole_module(module, path, settings, self.position)
        if stacked := [linear.name for linear in base.info.part(part).alive if linear.module == path != linear.name]:
            return ExpertLora(
                module, path, [name.removeprefix(f"{path}.") for name in stacked], settings, self.position
            )
        return base.adapter_class(module, path, settings, self.position, **base.training.adapter.options)

    def __enter__(self) -> Pack:
        self._context.enter_context(separate_members(self.base.model, self.num_members))
        for path, adapter in self.adapters.items():
            self.base.model.set_submodule(path, adapter)
        self._context.enter_context(separate_images(self.base.model, self.num_members))
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()
        for path, adapter in self.adapters.items():
            self.base.model.set_submodule(path, adapter.base)

    @property
    def num_members(self) -> int:
        """The number of members K."""
        return len(self.members)

    @property
    def two_point_optimizer(self) -> AbstractRecursion | None:
        """The optimizer if each of its steps also needs gradients at the previous point, else None."""
        return as_two_point(self.optimizer)

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for packs that do the same amount of work for the same batch."""
        return (self.num_members, *((part, max(a.ranks)) for part, a in self._first_of_each_part()))

    def _first_of_each_part(self) -> Iterator[tuple[str, AbstractAdapter]]:
        first: dict[str, AbstractAdapter] = {}
        for path, part in self.parts.items():
            first.setdefault(part, self.adapters[path])
        yield from first.items()

    def factors(self) -> Iterator[tuple[str, AbstractAdapter, Factor]]:
        """Yield (part, adapter, factor) for every trained tensor."""
        for path, adapter in self.adapters.items():
            for factor in adapter.factors():
                yield self.parts[path], adapter, factor

    def nats(self, batch: Batch) -> Tensor:
        """(K,) nats of every member, summed over the answer tokens of ``batch``."""
        with self.base.mixed_precision():
            logits_KNV = answer_logits(self.base.model, self.base.head, batch, self.num_members)
        return token_nats(logits_KNV, batch.answers()[2]).sum(-1)

    def set_rates(self, step: int, total_steps: int) -> None:
        """Set the learning rates of optimizer step ``step`` (from 0) of a full run of ``total_steps``."""
        training = self.base.training
        factor_K = [rate_factor(step, total_steps, training, decays=member.spec.decays) for member in self.members]
        if self.optimizer:
            for group in self.optimizer.param_groups:
                group["lr"] = self._rates(group["part"]) * torch.tensor(factor_K, dtype=torch.float64)

    def copy_some(self, indices: Sequence[int], step: int) -> Pack:
        """A pack of copies of some members after ``step`` steps, to score them alone. Call it outside of the context,
        since a model holds one pack at a time."""
        some = [Member(self.members[index].spec, self._weights(index), step=step) for index in indices]
        return Pack(self.base, some, trains=False)

    def copy_members(self, step: int) -> list[Member]:
        """Copies of the members on the CPU, after ``step`` optimizer steps."""
        return [
            Member(member.spec, self._weights(index), self._moments(index), step)
            for index, member in enumerate(self.members)
        ]

    def _rates(self, part: str) -> Tensor:
        """(K,) learning rates of a part; a member's own rate keeps the ratios of the parts."""
        training = self.base.training
        return torch.tensor([member.spec.rate_of(part, training) for member in self.members]).double()

    def _build_optimizer(self) -> AbstractOptimizer | None:
        training = self.base.training
        if unknown := set(training.part_learning_rates) - {part.name for part in self.base.info.parts}:
            info = self.base.info
            known = [part.name for part in info.parts]
            raise ConfigError(
                f"`part_learning_rates` must name parts of {info.architecture}, which are {known}; "
                f"found {sorted(unknown)}. Rename or remove these."
            )
        groups: dict[tuple[str, str, tuple[int, ...] | None], list[nn.Parameter]] = defaultdict(list)
        for part, adapter, factor in self.factors():
            ranks = adapter.ranks if factor.role in ("A", "B") else None
            groups[part, factor.role, ranks].append(factor.parameter)
        if not groups:
            return None
        return create_optimizer(
            training,
            [
                {
                    "params": parameters,
                    "members": self.num_members,
                    "ranks": ranks,
                    "role": role,
                    "part": part,
                    "lr": self._rates(part),
                }
                for (part, role, ranks), parameters in groups.items()
            ],
        )

    def _load_members(self) -> None:
        for index, member in enumerate(self.members):
            if not member.step:
                continue
            for adapter in self.adapters.values():
                adapter.load_member(index, member.weights)
            if not self.trains:
                continue
            for _, adapter, factor in self.factors():
                self._load_moments(member, index, adapter, factor)

    def _load_moments(self, member: Member, index: int, adapter: AbstractAdapter, factor: Factor) -> None:
        assert self.optimizer is not None
        buffers, key = self.optimizer.buffers(factor.parameter), f"{adapter.path}.{factor.name}"
        if not adapter.owns(index):  # nothing of its own, but it counts steps like the others
            nothing = adapter.member_view(factor, index)
            state = dict.fromkeys(buffers, nothing) | {"step": torch.tensor(float(member.step))}
        else:
            state = {name: self._moment(member, f"{key}.{name}") for name in ("step", *buffers)}
            state |= {name: adapter.from_peft(factor, state[name]) for name in buffers}
        self.optimizer.load_member_state(factor.parameter, index, state)

    def _moment(self, member: Member, key: str) -> Tensor:
        if key not in member.moments:
            raise ConfigError(
                f"The checkpoint of {member.spec.id} must hold the optimizer state `{key}`, but does not: its "
                f"optimizer was not `{self.base.training.optimizer.name}`. Use the same optimizer, or another "
                "checkpoint folder."
            )
        return member.moments[key]

    def _owned(self, index: int) -> Iterator[tuple[str, AbstractAdapter, Factor]]:
        """Yield (part, adapter, factor) for the factors in which the member has anything of its own."""
        for part, adapter, factor in self.factors():
            if adapter.owns(index):
                yield part, adapter, factor

    def _weights(self, index: int) -> dict[str, Tensor]:
        return {
            f"{adapter.path}.{factor.key}": _copy_to_cpu(adapter.to_peft(factor, adapter.member_view(factor, index)))
            for _, adapter, factor in self._owned(index)
        }

    def _moments(self, index: int) -> dict[str, Tensor]:
        moments = {}
        for _, adapter, factor in self._owned(index):
            assert self.optimizer is not None
            state = self.optimizer.member_state(factor.parameter, index)
            if not state:  # there was never a gradient: the same as before the first update
                view = adapter.member_view(factor, index)
                state = dict.fromkeys(self.optimizer.buffers(factor.parameter), torch.zeros_like(view)) | {
                    "step": torch.zeros(())
                }
            for name, tensor in state.items():
                shaped = tensor if name == "step" else adapter.to_peft(factor, tensor)
                moments[f"{adapter.path}.{factor.name}.{name}"] = _copy_to_cpu(shaped)
        return moments


def _copy_to_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
