"""A method's own share of every optimizer step: which parameters it moves, which ranks it allocates."""

from __future__ import annotations

from typing import Any

from torch.nn import Parameter
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from marslora.methods import AbstractChange, StepInfo
from marslora.optim import AbstractOptimizer


class MethodSteps(TrainerCallback):  # type: ignore[misc]
    """Calls `AbstractChange.before_step` and `after_step`, around the optimizer's."""

    def __init__(self, change: AbstractChange, optimizer: AbstractOptimizer):
        self.change, self.optimizer = change, optimizer

    def on_pre_optimizer_step(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """Gradients are complete and clipped."""
        self.change.before_step(self._moment(state))

    def on_optimizer_step(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """The optimizer has moved the parameters."""
        self.change.after_step(self._moment(state))

    def _moment(self, state: TrainerState) -> StepInfo:
        return StepInfo(state.global_step + 1, self._rate, self._forget)

    def _rate(self, parameter: Parameter) -> float:
        return float(next(g["lr"] for g in self.optimizer.param_groups if any(parameter is p for p in g["params"])))

    def _forget(self, parameter: Parameter) -> None:
        self.optimizer.load_member_state(parameter, 0, {})
