"""A tiny random LLaVA with its processor on disk, rows to learn, and what tests ask of a final run."""

import contextlib
import copy
import functools
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220), "white": (240, 240, 240)}
WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "<image>", "what", "colour", "?", "it", "is", ":", *COLOURS]
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}"
    "{% if m['role'] == 'assistant' %}<eos>{% else %}: {% endif %}{% endfor %}"
)


def write_model(folder: Path) -> None:
    """A LLaVA with 2 vision and 2 language layers of width 32, and the processor that reads its rows."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    raw = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    pictures = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**sizes, image_size=28, patch_size=14, projection_dim=32),
            text_config=LlamaConfig(**sizes, vocab_size=len(WORDS), max_position_embeddings=64, pad_token_id=0),
            image_token_id=WORDS.index("<image>"),
            vision_feature_layer=-1,
        )
    ).save_pretrained(folder)


@functools.cache
def register_float64(folder: Path) -> str:
    """The path, for specs, of a float64 copy of the model in a folder: nobody trains in float64, so no spec asks."""
    from marslora.core.spec import ModelSpec
    from marslora.models.loading import load, register_model

    loaded = load(ModelSpec(path=str(folder), device="cpu"))
    return register_model(f"float64 of {folder}", copy.deepcopy(loaded.model).double(), loaded.processor)


def plain_model(world: Path, dtype=torch.float64):
    """The world's model as `transformers` alone loads it."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(world / "model").to(dtype)


def rows(count: int, seed: int, colours: Sequence[str] | None = None) -> list[dict]:
    """Pictures of one colour and answers that name it, or that name ``colours`` in turn whatever the picture shows."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(count):
        name = list(COLOURS)[index % len(COLOURS)]
        noise = torch.randint(-20, 20, (3,), generator=generator).tolist()
        colour = tuple(max(0, min(255, value + extra)) for value, extra in zip(COLOURS[name], noise, strict=True))
        stated = colours[index % len(colours)] if colours else name
        answer = f"it is {stated}" if index % 3 else stated
        made.append(
            {
                "messages": [
                    {"role": "user", "content": "what colour ?"},
                    {"role": "assistant", "content": answer},
                ],
                "images": [Image.new("RGB", (28, 28), colour)],
            }
        )
    return made


def write_rows(folder: Path, name: str, count: int, seed: int, colours: Sequence[str] | None = None) -> str:
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, row in enumerate(rows(count, seed, colours)):
        row["images"][0].save(pictures / f"{name}-{index}.png")
        lines.append(json.dumps({**row, "images": [f"pictures/{name}-{index}.png"]}))
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


def run(spec, until=None):
    """The events of a final run, dropped dead (by an exception from ``emit``) once ``until`` examples were seen."""
    from marslora.core.runs import ProgressEvent
    from marslora.finetune.worker import run_final

    events = []

    def emit(event):
        events.append(event)
        if until is not None and isinstance(event, ProgressEvent) and event.done >= until:
            raise SystemExit("dropped dead")

    with contextlib.suppress(SystemExit):
        run_final(spec, emit)
    return events


def weights(spec):
    """The trained adapter's tensors."""
    from safetensors.torch import load_file

    return load_file(Path(spec.output_folder) / "adapter" / "adapter_model.safetensors")


def distance(first, second):
    """Largest difference of any tensor, relative to that tensor's largest entry."""
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max() / first[key].abs().max()) for key in first)
