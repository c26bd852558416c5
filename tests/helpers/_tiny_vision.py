"""Tiny models that see: one function an architecture, each returning the model and a batch of two rows."""

from __future__ import annotations

from typing import Any

import torch
import transformers as t
from torch import Tensor, nn

Batch = dict[str, Tensor]
Built = tuple[nn.Module, Batch]

WIDTH, VOCABULARY = 64, 300
SPECIAL = 280
"""Token ids from here on stand for pictures, sound and their frames; they carry no label."""
IMAGE, VIDEO, AUDIO, VISION_START, VISION_END, AUDIO_START, AUDIO_END = 290, 291, 292, 293, 294, 295, 296
NUM_ROWS = 2

TEXT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_VISION: dict[str, Any] = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
QWEN_WINDOWED_VISION: dict[str, Any] = {
    **QWEN_VISION,
    "hidden_size": 32,
    "out_hidden_size": WIDTH,
    "intermediate_size": 64,
    "window_size": 56,
    "fullatt_block_indexes": [1],
}
QWEN3_VISION: dict[str, Any] = {
    **QWEN_VISION,
    "hidden_size": 32,
    "out_hidden_size": WIDTH,
    "intermediate_size": 64,
    "patch_size": 16,
    "num_position_embeddings": 16,
}


def words(num_placeholders: int, placeholder: int = IMAGE, before: tuple[int, ...] = (), after: tuple[int, ...] = ()):
    """Two equal rows: start, placeholders with their frame, eight words; labels on the words."""
    row = [5, 6, *before, *[placeholder] * num_placeholders, *after, *range(7, 15)]
    return labelled(torch.tensor([row] * NUM_ROWS))


def labelled(input_ids: Tensor) -> Batch:
    """Token ids with full attention and labels everywhere but on special tokens."""
    labels = input_ids.masked_fill(input_ids >= SPECIAL, -100)
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}


def marks(batch: Batch) -> Tensor:
    """1 where a token stands for a picture."""
    return (batch["input_ids"] == IMAGE).long()


def num_features(model: Any, *inputs: Tensor) -> int:
    """How many tokens a picture becomes, asked of the model."""
    with torch.no_grad():
        features = model.get_image_features(*inputs)
    return int(getattr(features, "pooler_output", features)[0].shape[0])


def clip() -> dict[str, Any]:
    return {"model_type": "clip_vision_model", **VISION, "projection_dim": 32}


def text(model_type: str) -> dict[str, Any]:
    return {"model_type": model_type, **TEXT}


def llava() -> Built:
    config = t.LlavaConfig(
        vision_config=clip(), text_config=text("llama"), image_token_index=IMAGE, vision_feature_layer=-2
    )
    return t.LlavaForConditionalGeneration(config), {**words(4), "pixel_values": torch.randn(NUM_ROWS, 3, 28, 28)}


def llava_next() -> Built:
    config = t.LlavaNextConfig(
        vision_config=clip(),
        text_config=text("llama"),
        image_token_index=IMAGE,
        vision_feature_layer=-2,
        image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]],
    )
    model = t.LlavaNextForConditionalGeneration(config)
    pixels, sizes = torch.randn(NUM_ROWS, 3, 3, 28, 28), torch.tensor([[28, 56]] * NUM_ROWS)
    return model, {**words(num_features(model, pixels, sizes)), "pixel_values": pixels, "image_sizes": sizes}


def llava_onevision() -> Built:
    config = t.LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **VISION},
        text_config=text("qwen2"),
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[[28, 28], [56, 56]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )
    model = t.LlavaOnevisionForConditionalGeneration(config)
    pixels, sizes = torch.randn(NUM_ROWS, 2, 3, 28, 28), torch.tensor([[28, 28]] * NUM_ROWS)
    return model, {**words(num_features(model, pixels, sizes)), "pixel_values": pixels, "image_sizes": sizes}


def qwen(model: Any, config: Any, vision: dict[str, Any], interleaved: bool = False, **more: Any) -> Built:
    """Any Qwen-VL: one picture of 4 x 4 patches a row, merged to 4 tokens."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    if interleaved:
        rope["mrope_interleaved"] = True
    built = model(
        config(
            text_config={**TEXT, "rope_parameters": rope, **more},
            vision_config=vision,
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=VISION_START,
            vision_end_token_id=VISION_END,
        )
    )
    batch = words(4, before=(VISION_START,), after=(VISION_END,))
    return built, {
        **batch,
        "pixel_values": torch.randn(NUM_ROWS * 16, 3 * 2 * vision["patch_size"] ** 2),
        "image_grid_thw": torch.tensor([[1, 4, 4]] * NUM_ROWS),
        "mm_token_type_ids": marks(batch).int(),
    }


def qwen2_vl() -> Built:
    vision = {**QWEN_VISION, "embed_dim": 32, "hidden_size": WIDTH, "mlp_ratio": 2}
    return qwen(t.Qwen2VLForConditionalGeneration, t.Qwen2VLConfig, vision)


def qwen2_5_vl() -> Built:
    return qwen(t.Qwen2_5_VLForConditionalGeneration, t.Qwen2_5_VLConfig, QWEN_WINDOWED_VISION)


def qwen3_vl() -> Built:
    vision = {**QWEN3_VISION, "depth": 3, "deepstack_visual_indexes": [0, 1]}
    return qwen(t.Qwen3VLForConditionalGeneration, t.Qwen3VLConfig, vision, interleaved=True)


def qwen3_vl_moe() -> Built:
    vision = {**QWEN3_VISION, "depth": 3, "deepstack_visual_indexes": [0, 1]}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "decoder_sparse_step": 1}
    return qwen(t.Qwen3VLMoeForConditionalGeneration, t.Qwen3VLMoeConfig, vision, interleaved=True, **experts)


def qwen3_5() -> Built:
    return qwen(
        t.Qwen3_5ForConditionalGeneration,
        t.Qwen3_5Config,
        QWEN3_VISION,
        interleaved=True,
        layer_types=["linear_attention", "full_attention"],
        linear_key_head_dim=16,
        linear_value_head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
    )


def idefics(model: Any, config: Any) -> Built:
    vision = {**VISION, "image_size": 32, "patch_size": 8}
    built = model(config(vision_config=vision, text_config=text("llama"), image_token_id=IMAGE, scale_factor=2))
    return built, {**words(4), "pixel_values": torch.randn(NUM_ROWS, 1, 3, 32, 32)}


def idefics3() -> Built:
    return idefics(t.Idefics3ForConditionalGeneration, t.Idefics3Config)


def smolvlm() -> Built:
    return idefics(t.SmolVLMForConditionalGeneration, t.SmolVLMConfig)


def paligemma() -> Built:
    config = t.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **VISION, "projection_dim": 32},
        text_config=text("gemma"),
        image_token_index=IMAGE,
        projection_dim=WIDTH,
    )
    batch = words(4)
    batch["token_type_ids"] = 1 - marks(batch)
    return t.PaliGemmaForConditionalGeneration(config), {**batch, "pixel_values": torch.randn(NUM_ROWS, 3, 28, 28)}


def gemma3() -> Built:
    config = t.Gemma3Config(
        vision_config={"model_type": "siglip_vision_model", **VISION, "patch_size": 7, "projection_dim": 32},
        text_config={**TEXT, "sliding_window": 64},
        image_token_index=IMAGE,
        mm_tokens_per_image=4,
    )
    batch = words(4)
    batch["token_type_ids"] = marks(batch)
    return t.Gemma3ForConditionalGeneration(config), {**batch, "pixel_values": torch.randn(NUM_ROWS, 3, 28, 28)}


def gemma4() -> Built:
    config = t.Gemma4Config(
        text_config={
            **TEXT,
            "sliding_window": 64,
            "global_head_dim": 16,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": 4,
            "pooling_kernel_size": 2,
            "position_embedding_size": 64,
        },
        audio_config=None,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        audio_token_id=AUDIO,
        boi_token_id=VISION_START,
        eoi_token_id=VISION_END,
    )
    batch = words(4)
    grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="xy"), -1)
    return t.Gemma4ForConditionalGeneration(config), {
        **batch,
        "pixel_values": torch.rand(NUM_ROWS, 16, 3 * 16),
        "image_position_ids": grid.reshape(1, 16, 2).repeat(NUM_ROWS, 1, 1),
        "mm_token_type_ids": marks(batch),
    }


def internvl() -> Built:
    vision = {**VISION, "image_size": [28, 28], "patch_size": [7, 7]}
    config = t.InternVLConfig(vision_config=vision, text_config=text("qwen2"), image_token_id=IMAGE)
    return t.InternVLForConditionalGeneration(config), {**words(4), "pixel_values": torch.randn(NUM_ROWS, 3, 28, 28)}


def mllama() -> Built:
    """Its cross-attention gates start closed; here they are half open, so that a gradient reaches the tower."""
    config = t.MllamaConfig(
        vision_config={
            **{key: value for key, value in VISION.items() if key != "num_attention_heads"},
            "attention_heads": 2,
            "num_global_layers": 1,
            "vision_output_dim": 64,
            "intermediate_layers_indices": [0],
            "max_num_tiles": 1,
            "supported_aspect_ratios": [[1, 1]],
        },
        text_config={
            **{key: value for key, value in TEXT.items() if key != "head_dim"},
            "num_hidden_layers": 3,
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        image_token_index=IMAGE,
    )
    model = t.MllamaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "gate" in name and parameter.numel() == 1:
            parameter.data.fill_(0.5)
    batch = words(1)
    return model, {
        **batch,
        "pixel_values": torch.randn(NUM_ROWS, 1, 1, 3, 28, 28),
        "aspect_ratio_ids": torch.ones(NUM_ROWS, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(NUM_ROWS, 1, 1, dtype=torch.long),
        "cross_attention_mask": torch.ones(NUM_ROWS, batch["input_ids"].shape[1], 1, 1, dtype=torch.long),
    }


def florence2() -> Built:
    config = t.Florence2Config(
        vision_config={
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [16, 32],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "window_size": 4,
            "projection_dim": WIDTH,
            "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bart",
            "d_model": WIDTH,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 256,
            "decoder_start_token_id": 2,
            **{key: TEXT[key] for key in ("pad_token_id", "bos_token_id", "eos_token_id")},
        },
        image_token_id=IMAGE,
    )
    model = t.Florence2ForConditionalGeneration(config)
    pixels = torch.randn(NUM_ROWS, 3, 32, 32)
    batch = words(num_features(model, pixels))
    batch["labels"] = torch.tensor([[8, 9, 10, 2]] * NUM_ROWS)
    return model, {**batch, "pixel_values": pixels}


def phi4_multimodal() -> Built:
    """One crop and its overview a row: 4 x 4 patches pooled to 2 x 2, each with line and crop separators: 13 tokens."""
    config = t.Phi4MultimodalConfig(
        **{key: value for key, value in TEXT.items() if key != "head_dim"},
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        vision_config={**VISION, "num_hidden_layers": 3, "crop_size": 28, "patch_size": 7, "image_token_id": IMAGE},
        audio_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_blocks": 2,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ext_pw_out_channel": 32,
            "depthwise_separable_out_channel": 32,
            "nemo_conv_channels": 32,
            "input_size": 80,
            "audio_token_id": AUDIO,
        },
    )
    return t.Phi4MultimodalForCausalLM(config), {
        **words(13),
        "image_pixel_values": torch.randn(NUM_ROWS, 2, 3, 28, 28),
        "image_sizes": torch.tensor([[28, 28]] * NUM_ROWS),
        "image_attention_mask": torch.ones(NUM_ROWS, 2, 4, 4).long(),
    }


def mistral3() -> Built:
    config = t.Mistral3Config(
        vision_config={"model_type": "pixtral", **VISION, "image_size": 64, "patch_size": 8},
        text_config=text("mistral"),
        image_token_index=IMAGE,
        spatial_merge_size=2,
    )
    return t.Mistral3ForConditionalGeneration(config), {
        **words(4),
        "pixel_values": torch.randn(NUM_ROWS, 3, 32, 32),
        "image_sizes": torch.tensor([[32, 32]] * NUM_ROWS),
    }
