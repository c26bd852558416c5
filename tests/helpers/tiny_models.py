"""Tiny random models of 22 multimodal architectures of `transformers`, each with a batch it can be trained on.

``build(name)`` returns the model (eval mode, seeded weights) and a batch of two rows with labels; ``TINY`` lists the
names; ``FEW`` are four that differ the most, for tests that must be fast.
"""

from __future__ import annotations

import torch

from tests.helpers import _tiny_audio, _tiny_vision
from tests.helpers._tiny_vision import Built

_BUILDERS = (
    _tiny_vision.llava,
    _tiny_vision.llava_next,
    _tiny_vision.llava_onevision,
    _tiny_vision.qwen2_vl,
    _tiny_vision.qwen2_5_vl,
    _tiny_vision.qwen3_vl,
    _tiny_vision.qwen3_vl_moe,
    _tiny_vision.qwen3_5,
    _tiny_vision.idefics3,
    _tiny_vision.smolvlm,
    _tiny_vision.paligemma,
    _tiny_vision.gemma3,
    _tiny_vision.gemma4,
    _tiny_vision.internvl,
    _tiny_vision.mllama,
    _tiny_vision.florence2,
    _tiny_vision.phi4_multimodal,
    _tiny_vision.mistral3,
    _tiny_audio.qwen2_audio,
    _tiny_audio.voxtral,
    _tiny_audio.audioflamingo3,
    _tiny_audio.qwen2_5_omni_thinker,
)
TINY = tuple(builder.__name__ for builder in _BUILDERS)
FEW = ("llava", "qwen2_5_vl", "phi4_multimodal", "qwen2_audio")


def build(name: str, seed: int = 0) -> Built:
    """The model and batch called ``name``; equal seeds give equal weights and pictures."""
    builder = next(builder for builder in _BUILDERS if builder.__name__ == name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, batch = builder()
    return model.eval(), batch
