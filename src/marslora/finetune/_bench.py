"""Scores of a model on the run's splits, and what a run costs."""

from __future__ import annotations

import resource
import sys
from typing import Literal

import torch
from peft import PeftModel

from marslora.core.runs import Cost
from marslora.core.spec import TrainingSpec
from marslora.finetune._evaluate import Score, evaluate
from marslora.finetune._rows import Rows

HALF = (torch.bfloat16, torch.float16)


class Bench:
    """Measures one model on one run's rows."""

    def __init__(self, model: PeftModel, rows: Rows, training: TrainingSpec, dtype: torch.dtype):
        self.model = model
        self.rows = rows
        self.batch_size = max(1, training.batch_size // training.accumulation)
        self.autocast = dtype if dtype in HALF else None

    def score(self, split: Literal["validation", "test"]) -> Score:
        """The adapted model's score."""
        rows = self.rows.split(split)
        return evaluate(self.model, rows.batch, len(rows), self.batch_size, self.autocast)

    def base_score(self, split: Literal["validation", "test"]) -> Score:
        """The score of the model without its adapter."""
        with self.model.disable_adapter():
            return self.score(split)

    def cost(self, seconds: float, examples: int) -> Cost:
        """What the run cost, the memory of this process at its highest included."""
        return Cost(seconds=seconds, examples=examples, peak_bytes=peak_bytes())


def peak_bytes() -> int:
    """The most memory used so far: of the device where there is one, of this process otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
