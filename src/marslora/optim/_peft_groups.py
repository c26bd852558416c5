"""Parameter groups of a PEFT model: the role of each tensor, so that each is moved by the rule meant for it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

ROLE_PATTERNS = (
    (r"\.lora_A\.[^.]+\.weight$|\.lora_A\.weight$", "A"),
    (r"\.lora_B\.[^.]+\.weight$|\.lora_B\.weight$", "B"),
    (r"lora_magnitude_vector", "magnitude"),
    (r"router|gate_network", "router"),
    (r"modules_to_save", "full"),
    (r"trainable_tokens_delta", "tokens"),
)
"""The first pattern that matches a parameter's name gives its role. Factors of embeddings, biases and the rest are
``other``."""
ADAMW_PATTERN = r"lora_embedding_|embed_tokens|lm_head|\bwte\b|\bwpe\b"
"""Embeddings and heads, whose rows are looked up one by one: orthogonal steps mean nothing there, AdamW moves them."""


def peft_groups(
    model: nn.Module | Iterable[tuple[str, nn.Parameter]],
    *,
    part_of: Callable[[str], str] = lambda _: "",
    **fields: Any,
) -> list[dict[str, Any]]:
    """One group per part, role and route of the trained parameters of a model, for any optimizer of this package.

    ``part_of`` names a parameter's part (for `describe`, and for learning rates that differ by part); ``fields``, such
    as ``weight_decay``, are put into every group::

        optimizer = MarsM(peft_groups(model), lr=5e-4)
        trainer = Trainer(model, ..., optimizers=(optimizer, None))
    """
    named = model.named_parameters() if isinstance(model, nn.Module) else model
    groups: dict[tuple[str, str, str], list[nn.Parameter]] = defaultdict(list)
    for name, param in named:
        if param.requires_grad:
            groups[part_of(name), role_of(name), _route_of(name)].append(param)
    return [
        {"params": params, "part": part, "role": role, "route": route, **fields}
        for (part, role, route), params in groups.items()
    ]


def role_of(name: str) -> str:
    """The role of a PEFT parameter, found by its name."""
    return next((role for pattern, role in ROLE_PATTERNS if re.search(pattern, name)), "other")


def _route_of(name: str) -> str:
    is_factor = role_of(name) in ("A", "B")
    return "adamw" if re.search(ADAMW_PATTERN, name) and not is_factor else "auto"
