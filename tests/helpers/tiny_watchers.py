"""Tiny random models that see pictures and videos, each saved with its own processor, which needs torchvision."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as t

from tests.helpers._tiny_vision import QWEN_VISION, TEXT, VISION
from tests.helpers.tiny_processors import CHATML, byte_tokenizer

_TEXT = {key: value for key, value in TEXT.items() if key not in ("vocab_size", "max_position_embeddings")}


def _make_template(image: str, video: str) -> str:
    """ChatML with the placeholders of a family."""
    seeing = CHATML.replace("<image>", image)
    return seeing.replace("{% else %}{{ part", "{% elif part['type'] == 'video' %}" + video + "{% else %}{{ part")


def write_qwen2_vl(folder: Path) -> None:
    """Qwen2-VL: pictures and videos as patches, with positions in time, height and width."""
    tokenizer = byte_tokenizer(("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"))
    seen = "<|vision_start|><|{}_pad|><|vision_end|>"
    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 4}
    processor = t.Qwen2VLProcessor(
        image_processor=t.Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=t.Qwen2VLVideoProcessor(
            size=size, do_sample_frames=True, fps=2, min_frames=2, cap_pixels_per_frame=True
        ),
        chat_template=_make_template(seen.format("image"), seen.format("video")),
    )
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}{'' if 'vision' in name else '_pad'}|>")
        for name in ("image", "video", "vision_start", "vision_end")
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    model = t.Qwen2VLForConditionalGeneration(
        t.Qwen2VLConfig(
            text_config={**_TEXT, "vocab_size": len(tokenizer), "rope_parameters": rope},
            vision_config={**QWEN_VISION, "embed_dim": 32, "hidden_size": TEXT["hidden_size"], "mlp_ratio": 2},
            **ids,
        )
    )
    _save(folder, model, processor)


def write_internvl(folder: Path) -> None:
    """InternVL: pictures cut into tiles; the frames of a video are tiles too."""
    tokenizer = byte_tokenizer(("<img>", "</img>", "<IMG_CONTEXT>", "<video>"))
    names = {"start_image": "<img>", "end_image": "</img>", "context_image": "<IMG_CONTEXT>", "video": "<video>"}
    tokenizer = t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={f"{name}_token": token for name, token in names.items()},
    )
    size = {"height": 28, "width": 28}
    processor = t.InternVLProcessor(
        image_processor=t.GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=2),
        tokenizer=tokenizer,
        video_processor=t.InternVLVideoProcessor(size=size, do_sample_frames=True, num_frames=4),
        image_seq_length=4,
        chat_template=_make_template("<IMG_CONTEXT>", "<video>"),
    )
    vision = {**VISION, "image_size": [28, 28], "patch_size": [7, 7]}
    model = t.InternVLForConditionalGeneration(
        t.InternVLConfig(
            vision_config=vision,
            text_config={**_TEXT, "model_type": "qwen2", "vocab_size": len(tokenizer)},
            image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        )
    )
    _save(folder, model, processor)


def write_smolvlm(folder: Path) -> None:
    """SmolVLM: pictures and the frames of videos as so many tokens each, between marks and times written as words."""
    marks = {"fake_image": "<fake_token_around_image>", "image": "<image>", "global_image": "<global-img>"}
    marks |= {"end_of_utterance": "<end_of_utterance>", "video": "<video>"}
    tokenizer = byte_tokenizer(tuple(marks.values()))
    tokenizer = t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={f"{name}_token": token for name, token in marks.items()},
    )
    size = {"longest_edge": 32}
    processor = t.SmolVLMProcessor(
        image_processor=t.SmolVLMImageProcessor(size=size, max_image_size=size, do_image_splitting=False),
        tokenizer=tokenizer,
        video_processor=t.SmolVLMVideoProcessor(
            size=size,
            max_image_size=size,
            do_sample_frames=True,
            video_sampling={"max_frames": 4, "fps": 2, "video_size": size},
        ),
        image_seq_len=4,
        chat_template=_make_template("<image>", "<video>"),
    )
    model = t.SmolVLMForConditionalGeneration(
        t.SmolVLMConfig(
            vision_config={**VISION, "image_size": 32, "patch_size": 8},
            text_config={**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            scale_factor=2,
        )
    )
    _save(folder, model, processor)


def _save(folder: Path, model: torch.nn.Module, processor: t.ProcessorMixin) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
