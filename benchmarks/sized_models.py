"""Models of the sizes and shapes of real ones, with random weights, and rows to train them on: no download."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration

IMAGE = 4
"""The token that stands for a piece of a picture."""
SIDE = 112
"""Pixels of a picture's side: 8 x 8 patches, which become 16 tokens."""


@dataclass(frozen=True)
class Shape:
    """The language model (Llama) and the tower (a ViT with patches of 14 pixels) of an InternVL."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tower_hidden: int
    tower_layers: int
    tower_heads: int


SHAPES = {
    "0.15b": Shape(576, 1536, 30, 9, 3, 49152, 384, 12, 6),
    "0.5b": Shape(896, 4864, 24, 14, 2, 151936, 768, 12, 12),
    "tiny": Shape(64, 128, 2, 4, 2, 300, 32, 2, 2),
}
"""Those of SmolLM2-135M with DINOv2-small and of Qwen2.5-0.5B with DINOv2-base, and one for dry runs."""


def make_config(name: str) -> InternVLConfig:
    """The configuration of the model called ``name``."""
    shape = SHAPES[name]
    vision = {
        "hidden_size": shape.tower_hidden,
        "intermediate_size": 4 * shape.tower_hidden,
        "num_hidden_layers": shape.tower_layers,
        "num_attention_heads": shape.tower_heads,
        "attention_bias": True,
        "image_size": [SIDE, SIDE],
        "patch_size": [14, 14],
    }
    text = {
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": True,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return InternVLConfig(vision_config=vision, text_config=text, image_token_id=IMAGE, tie_word_embeddings=True)


def build(name: str, dtype: torch.dtype, device: str = "cpu", seed: int = 0) -> InternVLForConditionalGeneration:
    """The frozen model called ``name``, its weights drawn from ``seed``."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = InternVLForConditionalGeneration(make_config(name))
    return model.to(dtype).requires_grad_(False).eval()


def draw_batch(name: str, rows: int, dtype: torch.dtype, seed: int = 0, *, words: int = 24) -> dict[str, Any]:
    """Rows of a picture (16 tokens) and ``words`` tokens, of which the last ten are the answer, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(5, SHAPES[name].vocabulary, (rows, words), generator=generator)
    input_ids = torch.cat([torch.full((rows, 16), IMAGE), text], 1)
    labels = input_ids.clone()
    labels[:, :-10] = -100
    pixels = torch.randn(rows, 3, SIDE, SIDE, generator=generator).to(dtype)
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "labels": labels,
        "pixel_values": pixels,
    }
