"""A tiny model that reads pictures and text, with a batch and a plan, on which adapters and methods are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

from marslora.core.allocation import Allocation
from marslora.methods import QUESTION, TASK, UNIT_TASK, AbstractMethod, AdapterPlan
from marslora.models.discovery import discover

WHOLE = "model.multi_modal_projector.linear_1"
"""A module of the model that may be trained whole."""
TASKS = ("a", "b")
"""The tasks of the plan. The two rows of the batch belong to one each."""
_SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_TEXT = {"model_type": "llama", "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 300, **_SIZES}
_VISION = {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, **_SIZES, "hidden_size": 32}
_PICTURE = 290
"""The token that stands for a part of a picture."""


class ToyModel(NamedTuple):
    """A frozen model and what a method needs to change it."""

    model: nn.Module
    batch: dict[str, Any]
    """Two rows of one picture each."""
    plan: AdapterPlan
    sizes: dict[str, tuple[int, int]]
    """(inputs, outputs) of every linear by path."""

    def batch_for(self, method: AbstractMethod) -> dict[str, Any]:
        """Return the batch with the labels that a method asks for: tasks, and which tokens a user wrote."""
        batch = dict(self.batch)
        if method.column is not None:
            batch |= {TASK: torch.tensor([0, 1]), UNIT_TASK: torch.tensor([0, 1])}
        if method.wants_questions:
            batch[QUESTION] = torch.zeros_like(batch["input_ids"])
            batch[QUESTION][:, -8:-4] = 1
        return batch


def build_toy_model(ranks: Mapping[str, int], full: tuple[str, ...] = ()) -> ToyModel:
    """Build a tiny LLaVA with seeded weights. ``ranks`` are by part, and ``full`` are modules to train whole."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlavaConfig(
            vision_config=_VISION, text_config=_TEXT, image_token_index=_PICTURE, vision_feature_layer=-2
        )
        model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
        pixels = torch.randn(2, 3, 28, 28)
    ids = torch.tensor([[5, 6, *[_PICTURE] * 4, *range(7, 15)]] * 2)
    labels = ids.masked_fill(ids == _PICTURE, -100)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels, "pixel_values": pixels}
    info = discover(model)
    modules, part_of = info.module_ranks(Allocation.of(ranks)), info.part_of()
    plan = AdapterPlan(
        ranks=modules,
        parts={path: part_of[path] for path in (*modules, *full)},
        full_modules=full,
        num_steps=20,
        tasks=TASKS,
    )
    sizes = {linear.name: (linear.inputs, linear.outputs) for part in info.parts for linear in part.linears}
    return ToyModel(model, batch, plan, sizes)
