"""Which token ids a model can read, and which rows of its embedding were never trained."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from marslora.core.linears import is_quantized
from marslora.core.parts import TokenTable
from marslora.core.vocabulary import Vocabulary

NEAR_MEAN = 0.01
"""A row nearer to the mean of all rows than this share of the usual distance is fresh: `resize_token_embeddings` draws
new rows around the mean with a deviation of 3e-5 of the usual one, and no trained row is so near."""
DEVIATIONS = 4.0
"""A row is as it was drawn if its mean, deviation and kurtosis are within this many standard errors of those of the
normal distribution that the configuration names; a row that was not has them so with a probability below 0.001."""
_PLACEHOLDER = re.compile(r".*(image|audio|video|vision)\w*_token_(id|index)")
"""A key of a configuration that names the token for a picture or a sound."""


def read_vocabulary_of(config: Any) -> Vocabulary | None:
    """The vocabulary that a configuration describes; None if it does not say how many tokens there are."""
    text = config.get_text_config(decoder=True)
    sizes = [getattr(each, "vocab_size", None) for each in (text, config)]
    size = next((size for size in sizes if isinstance(size, int)), None)
    return (
        None if size is None else Vocabulary(num_rows=size, placeholders=tuple(sorted(_placeholders(config.to_dict()))))
    )


def vocabulary_of_model(model: Any) -> Vocabulary | None:
    """The vocabulary of a model that is loaded: that of its embedding."""
    embedding = model.get_input_embeddings()
    rows = getattr(embedding, "num_embeddings", None)
    if not isinstance(rows, int):
        return read_vocabulary_of(model.config)
    return Vocabulary(num_rows=rows, placeholders=_list_placeholders(model.config))


def find_token_table(model: Any) -> TokenTable | None:
    """Where rows of single tokens can be trained, in packs and by PEFT alike; None if they cannot.

    That takes a decoder with one embedding and one linear head without bias.
    """
    config = getattr(model, "config", None)
    if config is None or getattr(config, "is_encoder_decoder", True) or not hasattr(model, "get_output_embeddings"):
        return None
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    paths = {id(module): name for name, module in model.named_modules()}
    if not isinstance(embedding, nn.Embedding) or not isinstance(head, nn.Linear) or head.bias is not None:
        return None
    if id(embedding) not in paths or id(head) not in paths or is_quantized(head):
        return None
    return TokenTable(
        embedding=paths[id(embedding)],
        head=paths[id(head)],
        is_tied=bool(getattr(config, "tie_word_embeddings", False)) and _is_tied_by_class(model, paths[id(head)]),
        rows=min(embedding.num_embeddings, head.out_features),
        width=embedding.embedding_dim,
    )


def _is_tied_by_class(model: nn.Module, head: str) -> bool:
    """Whether a class of the model declares the head's weight as tied, which is what PEFT goes by."""
    for name, module in model.named_modules():
        declared = getattr(module, "_tied_weights_keys", None) or {}
        prefix = f"{name}." if name else ""
        if any(f"{prefix}{key}" == f"{head}.weight" for key in declared):
            return True
    return False


def find_fresh_rows(model: Any, ids: Collection[int], added: Collection[int]) -> list[int]:
    """Those of ``ids`` whose rows of the embedding were never trained, in increasing order.

    A row is fresh if it is zero, or the mean of all rows as `resize_token_embeddings` draws it. A row of a token that
    was ``added`` to the tokenizer is also fresh if it looks drawn from the configuration's ``initializer_range``,
    while most rows of the model do not.
    """
    weight_VD = getattr(model.get_input_embeddings(), "weight", None)
    padding = getattr(model.get_input_embeddings(), "padding_idx", None)  # zero on purpose
    known = sorted(each for each in ids if weight_VD is not None and each < len(weight_VD) and each != padding)
    if weight_VD is None or not known or not weight_VD.is_floating_point():
        return []
    weight_VD = weight_VD.detach()
    rows_ND = weight_VD[torch.tensor(known, device=weight_VD.device)].float()
    mean_D = weight_VD.mean(0, dtype=torch.float32)
    usual = _median_distance(weight_VD, mean_D)
    is_fresh_N = ((rows_ND - mean_D).norm(dim=-1) < NEAR_MEAN * usual) | (rows_ND == 0).all(-1)
    sigma = getattr(model.config.get_text_config(decoder=True), "initializer_range", None)
    if isinstance(sigma, float) and _share_drawn(weight_VD, sigma) < 0.5:
        is_added_N = torch.tensor([each in added for each in known], device=rows_ND.device)
        is_fresh_N |= is_added_N & _looks_drawn(rows_ND, sigma)
    return [each for each, fresh in zip(known, is_fresh_N.tolist(), strict=True) if fresh]


def _median_distance(weight_VD: Tensor, mean_D: Tensor) -> float:
    sample_VD = weight_VD[:: max(1, len(weight_VD) // 4096)].float()
    return float((sample_VD - mean_D).norm(dim=-1).median())


def _share_drawn(weight_VD: Tensor, sigma: float) -> float:
    """The share of all rows that look drawn: large in a model that was never trained, of which nothing can be said."""
    return float(_looks_drawn(weight_VD[:: max(1, len(weight_VD) // 4096)].float(), sigma).float().mean())


def _looks_drawn(rows_ND: Tensor, sigma: float) -> Tensor:
    """(N,) whether the numbers of each row look drawn from a normal distribution of deviation ``sigma`` around 0."""
    size = rows_ND.shape[-1]
    scaled_ND = rows_ND / sigma
    errors_N = [
        scaled_ND.mean(-1).abs() * math.sqrt(size),
        (scaled_ND.square().mean(-1) - 1).abs() * math.sqrt(size / 2),
        (scaled_ND.pow(4).mean(-1) - 3).abs() * math.sqrt(size / 96),
    ]
    return torch.stack(errors_N).amax(0) < DEVIATIONS


def _list_placeholders(config: Any) -> tuple[int, ...]:
    return tuple(sorted(set(_placeholders(config.to_dict()))))


def _placeholders(values: Mapping[str, Any]) -> Iterator[int]:
    """The ids of tokens for pictures, sounds and videos in a configuration, sub-configurations included."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _placeholders(value)
        elif _PLACEHOLDER.fullmatch(str(key)) and isinstance(value, int) and value >= 0:
            yield value
