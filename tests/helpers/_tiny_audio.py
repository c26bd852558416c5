"""Tiny models that hear, one of which also sees: one function an architecture."""

from __future__ import annotations

from typing import Any

import torch
import transformers as t

from tests.helpers._tiny_vision import (
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    IMAGE,
    NUM_ROWS,
    QWEN_WINDOWED_VISION,
    TEXT,
    VIDEO,
    VISION_END,
    VISION_START,
    WIDTH,
    Built,
    labelled,
    text,
    words,
)

TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_mel_bins": 16,
    "max_source_positions": 20,
}
WHISPER_TOWER: dict[str, Any] = {
    "d_model": 32,
    "encoder_ffn_dim": 64,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "num_mel_bins": 16,
}


def sound(num_frames: int = 40) -> torch.Tensor:
    return torch.randn(NUM_ROWS, 16, num_frames)


def ones(num_frames: int = 40) -> torch.Tensor:
    return torch.ones(NUM_ROWS, num_frames, dtype=torch.long)


def qwen2_audio() -> Built:
    config = t.Qwen2AudioConfig(
        audio_config={**WHISPER_TOWER, "max_source_positions": 20},
        text_config=text("qwen2"),
        audio_token_index=AUDIO,
    )
    batch = {**words(10, AUDIO), "input_features": sound(), "feature_attention_mask": ones()}
    return t.Qwen2AudioForConditionalGeneration(config), batch


def voxtral() -> Built:
    tower = {**TOWER, "intermediate_size": 128}
    config = t.VoxtralConfig(audio_config=tower, text_config=text("llama"), audio_token_id=AUDIO)
    return t.VoxtralForConditionalGeneration(config), {**words(5, AUDIO), "input_features": sound()}


def audioflamingo3() -> Built:
    config = t.AudioFlamingo3Config(audio_config=TOWER, text_config=text("qwen2"), audio_token_id=AUDIO)
    batch = {**words(10, AUDIO), "input_features": sound(), "input_features_mask": ones()}
    return t.AudioFlamingo3ForConditionalGeneration(config), batch


def qwen2_5_omni_thinker() -> Built:
    """A picture of 4 tokens and a sound of 10 in every row."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    config = t.Qwen2_5OmniThinkerConfig(
        text_config={**TEXT, "rope_parameters": rope},
        vision_config=QWEN_WINDOWED_VISION,
        audio_config={**WHISPER_TOWER, "max_source_positions": 40, "n_window": 10, "output_dim": WIDTH},
        audio_token_index=AUDIO,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        audio_start_token_id=AUDIO_START,
        audio_end_token_id=AUDIO_END,
    )
    picture = [VISION_START, *[IMAGE] * 4, VISION_END]
    heard = [AUDIO_START, *[AUDIO] * 10, AUDIO_END]
    return t.Qwen2_5OmniThinkerForConditionalGeneration(config), {
        **labelled(torch.tensor([[5, *picture, *heard, *range(7, 12)]] * NUM_ROWS)),
        "pixel_values": torch.randn(NUM_ROWS * 16, 3 * 2 * 14 * 14),
        "image_grid_thw": torch.tensor([[1, 4, 4]] * NUM_ROWS),
        "input_features": sound(),
        "feature_attention_mask": ones(),
    }
