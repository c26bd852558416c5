"""Alignment of the joined model: the projector from nothing, and the language model by LoRA.

First the projector alone, contrastively (`contrast.py`); then both on questions about pictures (`questions.py`), with
the loss of answers (`training.py`). The tower is frozen, and what it sees is computed once. Run again, it continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import contrast
import small_file
import torch
import torch.nn.functional as F
from features import make_view
from pictures import HELD, make_pictures
from questions import DESCRIBE
from torch import Tensor
from training import Training
from weights import IMAGE

VIEWS, LONGEST_ANSWER = 3, 24
Example = tuple[int, list[int], list[int]]
"""A picture's index, the tokens of the prompt, the tokens of the answer."""


class Alignment:
    """The model, the patches of all pictures, and the loss of answers about them."""

    def __init__(self, model, processor, unpacked: Path, folder: Path) -> None:
        self.model, self.processor, self.folder = model.to(torch.bfloat16).eval(), processor, folder
        self.core, self.tokenizer = model.model, processor.tokenizer
        self.projector = self.core.multi_modal_projector.float()
        pixels, self.pictures = make_pictures(unpacked, folder)
        tower = self.core.vision_tower
        self.views = [make_view(tower, pixels, view, folder) for view in range(VIEWS)]
        model.requires_grad_(False)
        self.projector.requires_grad_(True)
        self.prompts: dict[str, list[int]] = {}

    def shuffle(self, patches_BTC: Tensor) -> Tensor:
        """64 patches as 16 tokens of four, as the model does it."""
        number, patches, width = patches_BTC.shape
        side = int(patches**0.5)
        square = patches_BTC.float().reshape(number, side, side, width)
        return self.core.pixel_shuffle(square, scale_factor=0.5).reshape(number, patches // 4, -1)

    def embed_names(self) -> Tensor:
        """The mean embedding of each picture's name: [N, C]."""
        table = self.core.language_model.embed_tokens.weight.float()
        names = [self.tokenizer(" " + p.name, add_special_tokens=False).input_ids for p in self.pictures]
        return torch.stack([table[ids].mean(0) for ids in names])

    def encode(self, index: int, question: str, answer: str) -> Example:
        if question not in self.prompts:
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            ).replace(IMAGE, IMAGE * self.model.config.image_seq_length)
            self.prompts[question] = self.tokenizer(text, add_special_tokens=False).input_ids
        ids = self.tokenizer(answer, add_special_tokens=False).input_ids[:LONGEST_ANSWER]
        return index, self.prompts[question], [*ids, self.tokenizer.eos_token_id]

    def sum_losses(self, batch: Sequence[Example], patches: Tensor) -> tuple[Tensor, int]:
        """The summed loss of answer tokens, and their number."""
        longest = max(len(prompt) + len(answer) for _, prompt, answer in batch)
        tokens = torch.full((len(batch), longest), self.tokenizer.pad_token_id)
        labels, is_token = torch.full_like(tokens, -100), torch.zeros_like(tokens)
        for row, (_, prompt, answer) in enumerate(batch):
            end = len(prompt) + len(answer)
            tokens[row, :end], is_token[row, :end] = torch.tensor(prompt + answer), 1
            labels[row, len(prompt) : end] = torch.tensor(answer)
        with torch.autocast("cpu", torch.bfloat16):
            seen = self.projector(self.shuffle(patches))
            embedded = self.core.language_model.embed_tokens(tokens)
            is_image = (tokens == self.model.config.image_token_id)[..., None]
            hidden = self.core.language_model(
                inputs_embeds=embedded.masked_scatter(is_image, seen.to(embedded.dtype)),
                attention_mask=is_token, use_cache=False,
            ).last_hidden_state[:, :-1]  # fmt: skip
            asked = labels[:, 1:] != -100
            logits = self.model.lm_head(hidden[asked])
        return F.cross_entropy(logits.float(), labels[:, 1:][asked], reduction="sum"), int(asked.sum())

    @torch.no_grad()
    def measure(self) -> dict[str, dict[str, float]]:
        """For held-out pictures: the loss of their names, and by how much it is higher with another one's picture."""
        found = {}
        for source in ("all", *HELD):
            held = [i for i, p in enumerate(self.pictures) if p.is_held and source in ("all", p.source)]
            right = self._measure(held, held)
            wrong = self._measure(held, held[1:] + held[:1])
            found[source] = {"pictures": len(held), "loss": right, "wrong_picture": wrong - right}
        return found

    def _measure(self, named: Sequence[int], shown: Sequence[int]) -> float:
        rows = [(self.encode(i, DESCRIBE, self.pictures[i].name), j) for i, j in zip(named, shown, strict=True)]
        rows.sort(key=lambda row: len(row[0][2]))
        total, count = 0.0, 0
        for first in range(0, len(rows), 50):
            some = rows[first : first + 50]
            loss, number = self.sum_losses([row for row, _ in some], self.views[0][[j for _, j in some]])
            total, count = total + loss.item(), count + number
        return total / count

    def start(self) -> None:
        """The contrastive start, or what it left."""
        path = self.folder / "contrast.pt"
        if not path.exists():
            names = self.embed_names()
            deviation = self.core.language_model.embed_tokens.weight.float().std().item()
            contrast.start_projector(self.projector, self.shuffle(self.views[0][:2000]), deviation)
            contrast.contrast(self.projector, self.shuffle, self.views, self.pictures, names)
            torch.save(self.projector.state_dict(), path)
        self.projector.load_state_dict(torch.load(path))


def align(model, processor, unpacked: Path, folder: Path, out: Path) -> list[dict]:
    """Align, and write what was trained to `out`; what was measured on held-out pictures on the way."""
    alignment = Alignment(model, processor, unpacked, folder)
    alignment.start()
    log = Training(alignment).run()
    small_file.save(alignment.core, out, scale=2.0)
    return log
