"""Let a method act in every optimizer step, e.g. to move parameters itself or to reallocate ranks."""

from __future__ import annotations

from typing import Any

from torch.nn import Parameter
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from marslora.methods import AbstractChange, StepInfo
from marslora.optim import AbstractOptimizer


class MethodSteps(TrainerCallback):  # type: ignore[misc]
    """Calls `AbstractChange.begin_step`, and `before_step` and `after_step` around the optimizer's.

    ``first_step`` is the number of steps that the continued calibration run has taken, ``num_passes`` the number of
    passes of a micro-batch through the model.
    """

    def __init__(self, change: AbstractChange, optimizer: AbstractOptimizer, first_step: int, num_passes: int):
        self.change, self.optimizer = change, optimizer
        self.first_step, self.num_passes = first_step, num_passes

    def on_step_begin(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Tell the change which step begins."""
        self.change.begin_step(self.first_step + state.global_step, self.num_passes)

    def on_pre_optimizer_step(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """Call the change's ``before_step``: gradients are complete and clipped."""
        self.change.before_step(self._make_info(state))

    def on_optimizer_step(
        self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        """Call the change's ``after_step``: the optimizer has moved the parameters."""
        self.change.after_step(self._make_info(state))

    def _make_info(self, state: TrainerState) -> StepInfo:
        return StepInfo(state.global_step + 1, self._rate, self._forget)

    def _rate(self, parameter: Parameter) -> float:
        return float(next(g["lr"] for g in self.optimizer.param_groups if any(parameter is p for p in g["params"])))

    def _forget(self, parameter: Parameter) -> None:
        self.optimizer.load_member_state(parameter, 0, {})
