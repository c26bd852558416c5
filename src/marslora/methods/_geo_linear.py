"""One linear of GeoLoRA's, and a model of them with its rounds of growing and cutting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from marslora.adapters import factor_dtype, member_generator
from marslora.core.errors import ConfigError
from marslora.methods import _geometry
from marslora.methods._base import AdapterPlan, LowRank, StepInfo
from marslora.methods._context import BatchContext
from marslora.methods._geometry import Factors
from marslora.methods._layers import AbstractAdapterLayer, AdaptedModel, sizes
from marslora.methods._mixture import cast_like


class Rounds(NamedTuple):
    """GeoLoRA's settings."""

    tau: float
    room: float
    cycles: int
    smallest: int
    keep_budget: bool


class GeoLinear(AbstractAdapterLayer):
    """One linear. The optimizer moves S (M, M), of which (r, r) is in use; U and V turn when the change says so."""

    def __init__(self, base: nn.Module, path: str, context: BatchContext, plan: AdapterPlan, room: float):
        super().__init__(base, path, context)
        inputs, outputs = sizes(base)
        self.rank, self.scale = plan.ranks[path], plan.scale
        self.largest = min(max(self.rank, round(room * self.rank)), inputs, outputs)
        if self.rank > self.largest:
            raise ConfigError(f"`{path}` is {outputs} x {inputs}: it has no {self.rank} directions. Lower its rank.")
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
        """What is in use of U, S and V."""
        r, U_IM, V_OM = self.rank, self.get_buffer("U_IM"), self.get_buffer("V_OM")
        return Factors(U_IM[:, :r], self.S_MM.detach()[:r, :r], V_OM[:, :r])

    def forward(self, x: Tensor) -> Tensor:
        """``W x + s V S^T U^T x``. K and L are zero; where they are looked at, their gradients are G V and G^T U."""
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
        """S."""
        yield "S", "other", self.S_MM

    def low_rank(self, task: str | None = None) -> LowRank:  # noqa: ARG002
        """A = (U S)^T, B = V."""
        U_IR, S_RR, V_OR = self.factors()
        return LowRank((U_IR @ S_RR).T, V_OR, self.scale)

    def look(self, wanted: bool) -> None:
        """Whether the next backward passes give the gradients that growing needs."""
        for one in (self.K_IM, self.L_OM):
            one.requires_grad_(wanted)
            one.grad = None

    @torch.no_grad()
    def put(self, factors: Factors) -> None:
        """Use these from now on."""
        r = self.rank = factors.rank
        self.get_buffer("U_IM")[:, :r] = factors.U_IR
        self.get_buffer("V_OM")[:, :r] = factors.V_OR
        self.S_MM.zero_()[:r, :r] = factors.S_RR

    @torch.no_grad()
    def grow(self, rate: float) -> None:
        """One step along the gradients that were looked at; nothing where none arrived."""
        if self.K_IM.grad is None or self.L_OM.grad is None or self.S_MM.grad is None:
            return
        r = self.rank
        gradients = self.K_IM.grad[:, :r], self.L_OM.grad[:, :r], self.S_MM.grad[:r, :r]
        self.put(_geometry.grow(self.factors(), *gradients, rate, self.largest))


class GeoModel(AdaptedModel):
    """A model with `GeoLinear`s, and where it stands in its rounds."""

    def __init__(self, base: nn.Module, plan: AdapterPlan, settings: Rounds):
        super().__init__(base, plan, BatchContext(base))
        self.settings = settings
        self.cycle = max(2, plan.num_steps // settings.cycles)
        """Steps of a round."""
        self.step = 0
        for path in plan.ranks:
            self.insert_layer(path, lambda base, at, context: GeoLinear(base, at, context, plan, settings.room))
        self.inject_whole_modules()
        self._look(1)

    def linears(self) -> list[GeoLinear]:
        """Every graft but those of modules trained whole."""
        return [layer for layer in self.layers.values() if isinstance(layer, GeoLinear)]

    def ranks(self) -> dict[str, int]:
        """By path: the rank in use."""
        return {linear.path: linear.rank for linear in self.linears()}

    def num_trainable(self) -> int:
        """With U and V, of the ranks in use: they are trained, though not by the optimizer."""
        whole = sum(one.parameter.numel() for one in self.trainables() if one.role == "full")
        return whole + sum(one.rank * (sum(sizes(one.base)) + one.rank) for one in self.linears())

    def grows_at(self, step: int) -> bool:
        """Whether a step (from 1) is the first of a round, and not of the last."""
        return (step - 1) % self.cycle == 0 and step + self.cycle <= self.plan.num_steps

    def cuts_at(self, step: int) -> bool:
        """Whether three quarters of a round are over after a step (from 1)."""
        return (step - 1) % self.cycle == 3 * self.cycle // 4

    def before_step(self, moment: StepInfo) -> None:
        """At the first step of a round: turn and grow. The optimizer then has nothing to do for S."""
        if self.grows_at(moment.step):
            for linear in self.linears():
                linear.grow(moment.rate(linear.S_MM))
                linear.S_MM.grad = None
                moment.forget(linear.S_MM)

    def after_step(self, moment: StepInfo) -> None:
        """After three quarters of a round: cut."""
        if self.cuts_at(moment.step):
            self.cut()
            for linear in self.linears():
                moment.forget(linear.S_MM)
        self.step = moment.step
        self._look(self.step + 1)

    @torch.no_grad()
    def cut(self) -> None:
        """Cut what is below ``tau``, and what is over the budget."""
        settings, linears = self.settings, self.linears()
        found = [_geometry.diagonal(linear.factors()) for linear in linears]
        d = [factors.S_RR.diagonal() for factors in found]
        ranks = [_geometry.rank_within(one, settings.tau, settings.smallest) for one in d]
        if settings.keep_budget:
            ranks = _geometry.ranks_within(d, ranks, sum(self.plan.ranks.values()), settings.smallest)
        for linear, factors, rank in zip(linears, found, ranks, strict=True):
            linear.put(_geometry.shorten(factors, rank))

    def save(self, folder: Path) -> None:
        """A plain LoRA folder of PEFT's, with the ranks in use."""
        self.save_plain(folder)

    def extra_state(self) -> dict[str, Tensor]:
        """The directions, the ranks in use and the step."""
        state = {"step": torch.tensor(self.step)}
        for linear in self.linears():
            state[f"{linear.path}.rank"] = torch.tensor(linear.rank)
            state |= {f"{linear.path}.{name}": linear.get_buffer(name) for name in ("U_IM", "V_OM")}
        return state

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `extra_state`."""
        self.step = int(state["step"])
        for linear in self.linears():
            linear.rank = int(state[f"{linear.path}.rank"])
            for name in ("U_IM", "V_OM"):
                linear.get_buffer(name).copy_(state[f"{linear.path}.{name}"])
        self._look(self.step + 1)

    def _look(self, step: int) -> None:
        """Ask every linear for the gradients that growing needs, if a step grows."""
        for linear in self.linears():
            linear.look(self.grows_at(step))
