"""A linear adapted by GeoLoRA, and a model of such linears with its cycles of growing and cutting ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import Parameter

from marslora.adapters import factor_dtype, member_generator
from marslora.core.errors import ConfigError
from marslora.core.linears import read_linear_sizes
from marslora.methods import _geometry
from marslora.methods._base import AbstractMethod, AdapterPlan, LowRank, StepInfo
from marslora.methods._context import BatchContext
from marslora.methods._geometry import Factors
from marslora.methods._layers import AbstractAdapterLayer, AdaptedModel
from marslora.methods._mixture import cast_like


@dataclass(frozen=True, kw_only=True)
class GeoConfig(AbstractMethod.Config):
    """The options of GeoLoRA."""

    tau: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Singular values whose norm is below this share of the whole matrix's are cut."""
    room: Annotated[float, Field(ge=1)] = 2.0
    """The largest rank as a multiple of the allocation's rank."""
    cycles: Annotated[int, Field(gt=1)] = 10
    """The number of cycles of growing and cutting in a run."""
    smallest: Annotated[int, Field(gt=0)] = 2
    """No linear is cut below this rank."""
    keep_budget: bool = True
    """Whether the ranks after a cut add up to at most the allocation's."""


class GeoLinear(AbstractAdapterLayer):
    """One linear. The optimizer moves S (M, M), of which (r, r) is in use. U and V change when `grow` is called."""

    def __init__(self, base: nn.Module, path: str, context: BatchContext, plan: AdapterPlan, room: float):
        super().__init__(base, path, context)
        inputs, outputs = read_linear_sizes(base)
        self.rank, self.scale = plan.ranks[path], plan.scale
        self.largest = min(max(self.rank, round(room * self.rank)), inputs, outputs)
        if self.rank > self.largest:
            raise ConfigError(
                f"`{path}` is {outputs} x {inputs}, so its rank must be at most {self.largest}, found {self.rank}. "
                "Lower the rank of its part."
            )
        device, dtype = next(base.parameters()).device, factor_dtype(base)
        self.register_buffer("U_IM", self._directions(inputs, plan.seed, "U").to(device, dtype))
        self.register_buffer("V_OM", self._directions(outputs, plan.seed, "V").to(device, dtype))
        self.S_MM = Parameter(torch.zeros(self.largest, self.largest, device=device, dtype=dtype))
        self.K_IM = Parameter(torch.zeros(inputs, self.largest, device=device, dtype=dtype), requires_grad=False)
        self.L_OM = Parameter(torch.zeros(outputs, self.largest, device=device, dtype=dtype), requires_grad=False)
        self.lora_dropout = nn.Dropout(plan.dropout)

    def _directions(self, size: int, seed: int, name: str) -> Tensor:
        draw: Tensor = torch.linalg.qr(
            torch.randn(size, self.largest, generator=member_generator(seed, self.path, name))
        ).Q
        return draw

    def factors(self) -> Factors:
        """Return the parts of U, S and V that are in use."""
        r, U_IM, V_OM = self.rank, self.get_buffer("U_IM"), self.get_buffer("V_OM")
        return Factors(U_IM[:, :r], self.S_MM.detach()[:r, :r], V_OM[:, :r])

    def forward(self, x: Tensor) -> Tensor:
        """Return ``W x + s V S^T U^T x``. K and L are zero; only their gradients, ``G V`` and ``G^T U``, are used."""
        y: Tensor = self.base(x)
        if not self.context.enabled:
            return y
        r, (U_IR, _, V_OR) = self.rank, self.factors()
        x = self.lora_dropout(cast_like(x, U_IR))
        h = x @ U_IR
        inner = h @ self.S_MM[:r, :r]
        if self.K_IM.requires_grad:
            inner = inner + x @ self.K_IM[:, :r]
        added = inner @ V_OR.T
        if self.L_OM.requires_grad:
            added = added + h @ self.L_OM[:, :r].T
        return y + (self.scale * added).to(y.dtype)

    def roles(self) -> Iterator[tuple[str, str, Parameter]]:
        """Return S, the only trained parameter."""
        yield "S", "other", self.S_MM

    def low_rank(self, task: str | None = None) -> LowRank:  # noqa: ARG002
        """Return the change with A = (U S)^T and B = V."""
        U_IR, S_RR, V_OR = self.factors()
        return LowRank((U_IR @ S_RR).T, V_OR, self.scale)

    def request_gradients(self, wanted: bool) -> None:
        """Choose whether the next backward passes compute the gradients that growing needs."""
        for parameter in (self.K_IM, self.L_OM):
            parameter.requires_grad_(wanted)
            parameter.grad = None

    @torch.no_grad()
    def set_factors(self, factors: Factors) -> None:
        """Replace U, S and V, and with them the rank in use."""
        r = self.rank = factors.rank
        self.get_buffer("U_IM")[:, :r] = factors.U_IR
        self.get_buffer("V_OM")[:, :r] = factors.V_OR
        self.S_MM.zero_()[:r, :r] = factors.S_RR

    @torch.no_grad()
    def grow(self, rate: float) -> None:
        """Take one step along the requested gradients, which changes the rank. Without gradients, do nothing."""
        if self.K_IM.grad is None or self.L_OM.grad is None or self.S_MM.grad is None:
            return
        r = self.rank
        gradients = self.K_IM.grad[:, :r], self.L_OM.grad[:, :r], self.S_MM.grad[:r, :r]
        self.set_factors(_geometry.grow(self.factors(), *gradients, rate, self.largest))


class GeoModel(AdaptedModel):
    """A model with `GeoLinear` layers and the current step of its cycles."""

    def __init__(self, base: nn.Module, plan: AdapterPlan, config: GeoConfig):
        super().__init__(base, plan, BatchContext(base))
        self.config = config
        self.cycle_length = max(2, plan.num_steps // config.cycles)
        """The number of steps in a cycle."""
        self.step = 0
        for path in plan.ranks:
            self.insert_layer(path, lambda base, at, context: GeoLinear(base, at, context, plan, config.room))
        self.inject_whole_modules()
        self._request_gradients(1)

    def linears(self) -> list[GeoLinear]:
        """Return every layer except those of modules trained whole."""
        return [layer for layer in self.layers.values() if isinstance(layer, GeoLinear)]

    def ranks(self) -> dict[str, int]:
        """Return the rank in use by path."""
        return {linear.path: linear.rank for linear in self.linears()}

    def num_trainable(self) -> int:
        """Count the trained numbers at the ranks in use, including U and V, which the optimizer does not train."""
        whole = sum(each.parameter.numel() for each in self.trainables() if each.role == "full")
        return whole + sum(each.rank * (sum(read_linear_sizes(each.base)) + each.rank) for each in self.linears())

    def grows_at(self, step: int) -> bool:
        """Whether a step (from 1) is the first of a cycle other than the last."""
        return (step - 1) % self.cycle_length == 0 and step + self.cycle_length <= self.plan.num_steps

    def cuts_at(self, step: int) -> bool:
        """Whether a step (from 1) completes three quarters of a cycle."""
        return (step - 1) % self.cycle_length == 3 * self.cycle_length // 4

    def before_step(self, info: StepInfo) -> None:
        """Turn and grow at the first step of a cycle. The optimizer does not move S at this step."""
        if self.grows_at(info.step):
            for linear in self.linears():
                linear.grow(info.rate(linear.S_MM))
                linear.S_MM.grad = None
                info.forget(linear.S_MM)

    def after_step(self, info: StepInfo) -> None:
        """Cut the ranks after three quarters of a cycle."""
        if self.cuts_at(info.step):
            self.cut()
            for linear in self.linears():
                info.forget(linear.S_MM)
        self.step = info.step
        self._request_gradients(self.step + 1)

    @torch.no_grad()
    def cut(self) -> None:
        """Cut the singular values below ``tau``, and the smallest ones that exceed the budget."""
        config, linears = self.config, self.linears()
        diagonal = [_geometry.diagonalise(linear.factors()) for linear in linears]
        d = [factors.S_RR.diagonal() for factors in diagonal]
        ranks = [_geometry.rank_within(values, config.tau, config.smallest) for values in d]
        if config.keep_budget:
            ranks = _geometry.ranks_within(d, ranks, sum(self.plan.ranks.values()), config.smallest)
        for linear, factors, rank in zip(linears, diagonal, ranks, strict=True):
            linear.set_factors(_geometry.shorten(factors, rank))

    def save(self, folder: Path) -> None:
        """Write a plain LoRA folder for PEFT, with the ranks in use."""
        self.save_plain(folder)

    def extra_state(self) -> dict[str, Tensor]:
        """Return the directions, the ranks in use and the step."""
        state = {"step": torch.tensor(self.step)}
        for linear in self.linears():
            state[f"{linear.path}.rank"] = torch.tensor(linear.rank)
            state |= {f"{linear.path}.{name}": linear.get_buffer(name) for name in ("U_IM", "V_OM")}
        return state

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `extra_state` returned."""
        self.step = int(state["step"])
        for linear in self.linears():
            linear.rank = int(state[f"{linear.path}.rank"])
            for name in ("U_IM", "V_OM"):
                linear.get_buffer(name).copy_(state[f"{linear.path}.{name}"])
        self._request_gradients(self.step + 1)

    def _request_gradients(self, step: int) -> None:
        """Make every linear compute the gradients that growing needs, if a step grows."""
        for linear in self.linears():
            linear.request_gradients(self.grows_at(step))
