"""LoRA as B E A with a diagonal E, whose least important entries are cut while it trains (AdaLoRA)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import Parameter

from marslora.core.errors import ConfigError
from marslora.core.patterns import lora_config_dict
from marslora.core.seeds import derive
from marslora.methods import _plain_folder
from marslora.methods._base import AbstractMethod, AdapterPlan, Batch, LowRank, StepInfo
from marslora.methods._peft_change import ADAPTER, PeftChange

_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


class AdaLora(AbstractMethod):
    """AdaLoRA (Zhang et al. 2023, arXiv 2303.10512), PEFT's, with its two traps closed.

    Nothing of it happens unless somebody calls its allocator after every optimizer step, which Trainer does not; and
    its orthogonality loss is only there for a model that computes its own loss. Here both happen.

    The allocation's ranks are its budget: their sum is the sum of the ranks that are left at the end. Every linear
    begins with ``init_factor`` times their mean, whatever its part. The cut begins after ``warm_share`` of the steps
    and is over ``final_share`` before the end; it happens every ``interval`` steps (None: 50 times in all).
    """

    merges = "yes"
    serves = "any server of LoRA (vLLM up to rank 512); merged, any server"

    def __init__(
        self,
        *,
        init_factor: float = 1.5,
        warm_share: float = 0.1,
        final_share: float = 0.3,
        interval: int | None = None,
        beta1: float = 0.85,
        beta2: float = 0.85,
        orth_reg_weight: float = 0.5,
    ):
        if not (init_factor > 1 and warm_share >= 0 and final_share >= 0 and warm_share + final_share < 1):
            raise ConfigError(
                "The adapter's `init_factor` must be above 1, and `warm_share` and `final_share` must leave some steps "
                f"between them; found {init_factor}, {warm_share}, {final_share}."
            )
        if not (0 < beta1 < 1 and 0 < beta2 < 1 and orth_reg_weight >= 0 and (interval is None or interval > 0)):
            raise ConfigError(
                "The adapter's `beta1` and `beta2` must be in (0, 1), `orth_reg_weight` at least 0, `interval` above "
                f"0; found {beta1}, {beta2}, {orth_reg_weight}, {interval}."
            )
        self.init_factor, self.warm_share, self.final_share = init_factor, warm_share, final_share
        self.interval = interval
        self.own = {"beta1": beta1, "beta2": beta2, "orth_reg_weight": orth_reg_weight}

    def apply(self, model: nn.Module, plan: AdapterPlan, batches: Sequence[Batch] = ()) -> AdaLoraChange:  # noqa: ARG002
        """PEFT's model; its budget is the sum of the plan's ranks."""
        init_r, steps = self.init_rank(plan), plan.num_steps
        config = AdaLoraConfig(
            init_r=init_r,
            target_r=max(1, init_r - 1),
            total_step=steps,
            tinit=int(self.warm_share * steps),
            tfinal=int(self.final_share * steps),
            deltaT=self.interval or max(1, steps // 50),
            lora_alpha=plan.scale * init_r,
            lora_dropout=plan.dropout,
            target_modules=lora_config_dict(plan.ranks, plan.scale)["target_modules"],
            modules_to_save=list(plan.full_modules) or None,
            **self.own,
        )
        return AdaLoraChange(model, plan, config)

    def init_rank(self, plan: AdapterPlan) -> int:
        """What every linear begins with."""
        return math.ceil(self.init_factor * sum(plan.ranks.values()) / len(plan.ranks))

    def count(self, sizes: Mapping[str, tuple[int, int]], plan: AdapterPlan) -> int:
        """``r (I + O + 1)`` a linear, r being the first rank: what is trained, not what is left."""
        return sum(self.init_rank(plan) * (sum(sizes[path]) + 1) for path in plan.ranks)


class AdaLoraChange(PeftChange):
    """PEFT's AdaLoRA on one model."""

    def __init__(self, base: Any, plan: AdapterPlan, config: AdaLoraConfig):
        whole = {path: base.get_submodule(path) for path in plan.full_modules}
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for `is_gradient_checkpointing` by its old name
            torch.manual_seed(derive(plan.seed, "adalora"))
            super().__init__(base, get_peft_model(base, config), whole)
        self.plan, self.config = plan, config
        self.allocator = self.model.base_model.rankallocator
        self.allocator.target_bgt = sum(plan.ranks.values())  # PEFT knows but a whole mean rank

    def extra_loss(self) -> Tensor:
        """How far the rows of every A and the columns of every B are from orthonormal (equation 4 of the paper)."""
        losses = []
        for one in self.trainables():
            if one.role in ("A", "B"):
                gram_RR = one.parameter @ one.parameter.T if one.role == "A" else one.parameter.T @ one.parameter
                losses.append((gram_RR - torch.eye(len(gram_RR), device=gram_RR.device)).norm())
        total: Tensor = self.config.orth_reg_weight * torch.stack(losses).mean()
        return total

    def after_step(self, moment: StepInfo) -> None:
        """Score every direction; from time to time cut the least important ones."""
        for one in self.trainables():
            if one.role != "full" and one.parameter.grad is None:  # no gradient reaches it: of no importance
                one.parameter.grad = torch.zeros_like(one.parameter)
        self.model.base_model.update_and_allocate(moment.step)

    def masks(self) -> dict[str, Tensor]:
        """By path: which of the first directions are left."""
        pattern = self.config.rank_pattern or {}
        return {
            path: torch.as_tensor(pattern.get(name, [True] * len(E_R1)), dtype=torch.bool, device=E_R1.device)
            for path, (name, E_R1) in self._diagonals().items()
        }

    def ranks(self) -> dict[str, int]:
        """By path: how many directions are left."""
        return {path: int(mask.sum()) for path, mask in self.masks().items()}

    def save(self, folder: Path) -> None:
        """A plain LoRA folder of PEFT's: E goes into A, and what was cut is left out."""
        low_ranks = {}
        for path, mask_R in self.masks().items():
            layer: Any = self.base.get_submodule(path)
            A_RI = (layer.lora_A[ADAPTER] * layer.lora_E[ADAPTER]).detach()[mask_R]
            B_OR = layer.lora_B[ADAPTER].detach()[:, mask_R]
            scale = layer.scaling[ADAPTER] / (float(layer.ranknum[ADAPTER]) + 1e-5)  # as PEFT's forward has it
            low_ranks[path] = LowRank(A_RI, B_OR, scale)
        whole = {one.name: one.parameter.detach() for one in self.trainables() if one.role == "full"}
        _plain_folder.write(folder, low_ranks, self.plan, whole, self.base)

    def extra_state(self) -> dict[str, Tensor]:
        """The allocator's running scores, and what it has cut."""
        state = {f"mask.{path}": mask.to(torch.uint8) for path, mask in self.masks().items()}
        state["has_cut"] = torch.tensor(self.config.rank_pattern is not None)
        for kind in _SCORES:
            state |= {f"{kind}/{name}": tensor for name, tensor in getattr(self.allocator, kind).items()}
        return state

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `extra_state`."""
        left = {name: state[f"mask.{path}"].bool().tolist() for path, (name, _) in self._diagonals().items()}
        self.config.rank_pattern = left if bool(state["has_cut"]) else None
        devices = {name: one.device for name, one in self._named()}
        for kind in _SCORES:
            found = {key.partition("/")[2]: tensor for key, tensor in state.items() if key.startswith(f"{kind}/")}
            setattr(self.allocator, kind, {name: one.to(devices[name]) for name, one in found.items()})

    def _named(self) -> list[tuple[str, Parameter]]:
        """Parameters under the names that the allocator knows them by."""
        return list(self.model.base_model.model.named_parameters())

    def _diagonals(self) -> dict[str, tuple[str, Parameter]]:
        """By path: the diagonal E, with its name."""
        tail = f".lora_E.{ADAPTER}"
        return {name.removesuffix(tail): (name, one) for name, one in self._named() if name.endswith(tail)}
