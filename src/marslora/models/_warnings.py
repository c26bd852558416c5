"""Warnings of a probe about a batch and about how a model is set up, each with a remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from marslora.core.labels import IGNORED
from marslora.models.tokens import vocabulary_of_model

_INPUTS = {
    "image": ("pixel_values", "image_pixel_values"),
    "audio": ("input_features", "audio_input_features"),
    "video": ("pixel_values_videos",),
}
"""The keys of a batch that hold a modality's input, by the name its tokens have in configurations."""
_MISMATCH = re.compile("do not match|shape mismatch|masked_scatter")
"""What models of `transformers` raise if a row has more or fewer tokens for its pictures or sounds than they take."""


def check_batch(model: Any, batch: Mapping[str, Tensor], loss: Tensor) -> Iterator[str]:
    """Yield warnings about masked labels, a loss that is not finite or has no gradient, and inputs without a token."""
    labels = batch.get("labels")
    num_masked = 0 if labels is None else int((labels == IGNORED).all(-1).sum())
    if labels is not None and num_masked == len(labels):
        yield "Every label is masked: no token counts as an answer. Check that rows end in an assistant's turn."
    elif not torch.isfinite(loss):
        yield f"The loss of the untouched model is {loss.item()}. Try float32, or check its weights for damage."
    elif not loss.requires_grad:
        yield "The loss has no gradient: the model computes it under `torch.no_grad()`."
    elif num_masked:
        yield (
            f"{num_masked} of {len(batch['labels'])} rows have no answer token: all their labels are masked, so they "
            "teach nothing. Check that rows end in an assistant's turn, and that `max_length` does not cut answers off."
        )
    for kind, token_id in _placeholders(model, batch):
        if not (batch["input_ids"] == token_id).any():
            yield (
                f"The batch has {kind} input but no {kind} token ({token_id}) in `input_ids`: the model never reads "
                "it. Check the chat template, and `max_length` or a truncation that cut the tokens off."
            )


def check_recomputation(model: nn.Module, batch: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield a warning about layers that are recomputed with reentrant checkpointing and would get no gradient.

    Reentrant checkpointing gives an output a gradient only if a positional input has one, and the inputs of a frozen
    model's first layers have none. Newer `transformers` let the outputs of embeddings have one, which helps the layers
    that these reach.
    """
    lost: list[str] = []

    def look(name: str) -> Any:
        def note(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            if not any(isinstance(value, Tensor) and value.requires_grad for value in arguments):
                lost.append(name)

        return note

    reentrant = {name: module for name, module in model.named_modules() if _is_reentrant(module)}
    if not reentrant:
        return
    handles = [module.register_forward_pre_hook(look(name)) for name, module in reentrant.items()]
    try:
        with torch.enable_grad():
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    if lost:
        yield (
            f"{len(lost)} layers are recomputed with reentrant checkpointing although nothing before them needs a "
            f"gradient: no adapter in them can learn ({', '.join(lost[:3])}{', ...' if lost[3:] else ''}). Enable it "
            'with {"use_reentrant": False}, as `gradient_checkpointing` of a study does.'
        )


def _is_reentrant(module: nn.Module) -> bool:
    if not (isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing):
        return False
    settings: dict[str, Any] = getattr(module._gradient_checkpointing_func, "keywords", {})
    return bool(settings.get("use_reentrant", True))


def explain_failure(model: Any, batch: Mapping[str, Tensor], error: Exception) -> str:
    """Why a model cannot run a batch, as far as the batch itself shows it; empty if it does not."""
    vocabulary = vocabulary_of_model(model)
    if vocabulary and (beyond := vocabulary.find_beyond(set(batch["input_ids"].flatten().tolist()))):
        return (
            f" The batch has tokens that its embedding of {vocabulary.num_rows} rows does not have: ids {beyond[:5]}. "
            "Save the model after `model.resize_token_embeddings(len(tokenizer))`, or use its own tokenizer."
        )
    kinds = [(kind, (batch["input_ids"] == token_id).sum(-1)) for kind, token_id in _placeholders(model, batch)]
    if not _MISMATCH.search(str(error)):
        return ""
    return "".join(
        f" Its rows of {batch['input_ids'].shape[-1]} tokens hold {counts.tolist()} {kind} tokens, which do not fit "
        f"the {kind}s: a `max_length` or a truncation cut some off, or another processor made them. Allow longer rows, "
        "or leave long rows out."
        for kind, counts in kinds
    )


def _placeholders(model: Any, batch: Mapping[str, Tensor]) -> Iterator[tuple[str, int]]:
    """Yield (modality, token id) for each modality that the batch has input for."""
    config = model.config.to_dict()
    for kind, inputs in _INPUTS.items():
        for key in (f"{kind}_token_id", f"{kind}_token_index"):
            if isinstance(config.get(key), int) and any(name in batch for name in inputs):
                yield kind, config[key]
                break
