"""What the finished model sees: held-out pictures with their own names, with another one's, and in its own words.

    python benchmarks/real/measure.py [--folder real-work] [--json benchmarks/real/measured.json]

The model is loaded as anyone would load it, by `AutoModelForImageTextToText` and `AutoProcessor`. Losses are means per
answer token, in nats. A name counts as said if the model's greedy answer is exactly it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from pictures import HELD, make_pictures
from PIL import Image
from questions import DESCRIBE
from transformers import AutoModelForImageTextToText, AutoProcessor

BATCH = 20


class Seer:
    """The saved model, asked to describe pictures."""

    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)
        self.processor.tokenizer.padding_side = "left"
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.bfloat16).eval()
        content = [{"type": "image"}, {"type": "text", "text": DESCRIBE}]
        self.prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )

    @torch.no_grad()
    def sum_losses(self, images: list[Image.Image], names: list[str]) -> tuple[float, int]:
        """The summed loss of the names, each with its end, and their tokens."""
        tokenizer = self.processor.tokenizer
        texts = [f"{self.prompt}{name}{tokenizer.eos_token}" for name in names]
        batch = self.processor(images=images, text=texts, padding=True, return_tensors="pt")
        logits = self.model(**batch.to(torch.bfloat16)).logits.float()
        total, count = 0.0, 0
        for row, name in enumerate(names):
            length = len(tokenizer(name, add_special_tokens=False).input_ids) + 1
            answer = batch["input_ids"][row, -length:]
            total += F.cross_entropy(logits[row, -length - 1 : -1], answer, reduction="sum").item()
            count += length
        return total, count

    @torch.no_grad()
    def describe(self, images: list[Image.Image]) -> list[str]:
        batch = self.processor(images=images, text=[self.prompt] * len(images), padding=True, return_tensors="pt")
        tokens = self.model.generate(**batch.to(torch.bfloat16), max_new_tokens=10, do_sample=False)
        return self.processor.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def measure(seer: Seer, images: list[Image.Image], names: list[str]) -> float:
    sums = [seer.sum_losses(images[i : i + BATCH], names[i : i + BATCH]) for i in range(0, len(names), BATCH)]
    return sum(total for total, _ in sums) / sum(count for _, count in sums)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("real-work"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    pixels, pictures = make_pictures(given.folder / "unpacked", given.folder / "align")
    seer, found, answers = Seer(given.folder / "model"), {}, []
    for source in HELD:
        held = [i for i, picture in enumerate(pictures) if picture.is_held and picture.source == source]
        images, names = [Image.fromarray(pixels[i]) for i in held], [pictures[i].name for i in held]
        right, wrong = measure(seer, images, names), measure(seer, images[1:] + images[:1], names)
        said = [answer for i in range(0, len(held), BATCH) for answer in seer.describe(images[i : i + BATCH])]
        found[source] = {
            "pictures": len(held), "loss": right, "wrong_picture": wrong - right,
            "named": sum(map(str.__eq__, said, names)), "distinct_answers": len(set(said)),
        }  # fmt: skip
        answers += [{"source": source, "name": n, "answer": a} for n, a in zip(names, said, strict=True)]
        print(source, found[source], flush=True)
    if given.json:
        given.json.write_text(json.dumps({"sources": found, "answers": answers}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
