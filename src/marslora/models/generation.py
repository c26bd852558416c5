"""Greedy answers of a model: at every position the likeliest token, until the answer ends."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from marslora.models.precision import mixed_precision

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size")
"""Settings of a model's own `generation_config` that would change greedy answers, or warn that they do not."""


@torch.no_grad()
def generate_greedily(
    model: nn.Module,
    inputs: Mapping[str, Any],
    *,
    max_tokens: int,
    end_tokens: Sequence[int],
    pad_token: int,
    dtype: torch.dtype,
) -> list[list[int]]:
    """The answers to a batch of prompts, each without its end token; prompts of unequal length are padded on the left.

    An answer that has not ended after ``max_tokens`` tokens is cut there. ``dtype`` is the model's; one in half
    precision runs in mixed precision. The model is left in evaluation mode.
    """
    model.eval()
    device = next(model.parameters()).device
    moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
    config = _make_config(model, max_tokens, end_tokens, pad_token)
    with mixed_precision(device, dtype):
        tokens_BT = model.generate(**moved, generation_config=config)  # type: ignore[operator]
    is_encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))  # it answers from its start token on
    given = 1 if is_encoder_decoder else moved["input_ids"].shape[1]
    return [_cut(row, end_tokens) for row in tokens_BT[:, given:].tolist()]


def _make_config(model: nn.Module, max_tokens: int, end_tokens: Sequence[int], pad_token: int) -> Any:
    """The model's own tokens without its sampling, and no other limit than ``max_tokens``."""
    config: Any = copy.deepcopy(model.generation_config)
    own = config.eos_token_id
    ends = [*end_tokens, *(own if isinstance(own, list) else [] if own is None else [own])]
    for name in SAMPLING:
        setattr(config, name, None)
    config.do_sample, config.num_beams, config.use_cache = False, 1, True
    config.max_new_tokens, config.max_length, config.min_length = max_tokens, None, 0
    config.eos_token_id, config.pad_token_id = list(dict.fromkeys(ends)), pad_token
    return config


def _cut(tokens: list[int], end_tokens: Sequence[int]) -> list[int]:
    ends = [tokens.index(token) for token in end_tokens if token in tokens]
    return tokens[: min(ends, default=len(tokens))]
