"""A small unified model: it reads a picture and a question, draws a picture and writes an answer.

Built from the embedded LLaVA as Emu2 is from its parts: a frozen eye (SigLIP tower and projector) turns pictures into
16 visual embeddings, the Llama decoder reads embeddings and words, a linear head regresses the next visual embedding
(mean squared error), the language model's head predicts the next word (cross-entropy). The frozen embedded LLaVA also
serves as reader: it is shown drawn embeddings and asked what it sees.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import AutoModelForImageTextToText, AutoProcessor

from marslora.demo.drawing import CELL_PIXELS, Scenes, draw_scenes, list_things, load_names
from marslora.demo.model import ASSISTANT, END, IMAGE_PIXELS, NUM_IMAGE_TOKENS, PATCH_PIXELS, USER, embedded_folder

IGNORED = -100
QUESTION = "list the objects."


@dataclass
class Rows:
    """N rows; every one has the same question, so that drawn pictures stand at the same place."""

    seen_NTD: Tensor
    """Visual embeddings of the picture that is read."""
    drawn_NTD: Tensor
    """Visual embeddings of the picture to be drawn."""
    pixels_NCHW: Tensor
    """The picture to be drawn, in [-1, 1]."""
    names_N4: Tensor
    """The English token of what stands in every cell of the picture to be drawn."""
    question: list[int]
    answers: list[list[int]]

    def __len__(self) -> int:
        return len(self.answers)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Tensors for `Unified.forward`."""
        answers = [self.answers[row] for row in rows.tolist()]
        words_BT = torch.full((len(rows), max(map(len, answers))), IGNORED)
        for row, answer in enumerate(answers):
            words_BT[row, : len(answer)] = torch.tensor(answer)
        question_BT = torch.tensor(self.question).expand(len(rows), -1)
        return {
            "seen_BTD": self.seen_NTD[rows],
            "drawn_BTD": self.drawn_NTD[rows],
            "question_BT": question_BT,
            "words_BT": words_BT,
        }


class Simulation:
    """The frozen embedded LLaVA: eye, reader and tokenizer."""

    def __init__(self) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(embedded_folder()).eval().requires_grad_(False)
        self.tokenizer = AutoProcessor.from_pretrained(embedded_folder()).tokenizer

    def token(self, text: str) -> int:
        return self.tokenizer.convert_tokens_to_ids(text)

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text)["input_ids"]

    @torch.no_grad()
    def see(self, pixels_NCHW: Tensor) -> Tensor:
        """Visual embeddings (N, 16, D) as the language model is given them."""
        found = [
            torch.stack(list(self.model.model.get_image_features(pixel_values=part).pooler_output))
            for part in pixels_NCHW.split(256)
        ]
        return torch.cat(found)

    def rows(self, num: int, split: str, seed: int, language: str, exchange: bool) -> Rows:
        """Rows whose answer lists the picture in ``language`` and whose drawing is the picture, its upper and lower
        half exchanged where asked for."""
        scenes: Scenes = draw_scenes(num, split, np.random.default_rng((seed, num)))
        cells_NC, images_NHWC = scenes.cells_NC, scenes.images_NHWC
        seen = _pixels(images_NHWC)
        if exchange:
            cells_NC, images_NHWC = cells_NC[:, [2, 3, 0, 1]], np.roll(images_NHWC, CELL_PIXELS, axis=1)
        drawn = _pixels(images_NHWC)
        names, english = (["nothing", *load_names()[which]] for which in (language, "english"))
        tokens = torch.tensor([self.ids(f" {name}")[0] for name in ["nothing", *list_things()]])
        question = QUESTION if language == "english" else f"{QUESTION} {language}"
        assert len(names) == len(english)
        return Rows(
            seen_NTD=self.see(seen),
            drawn_NTD=self.see(drawn),
            pixels_NCHW=drawn,
            names_N4=tokens[torch.from_numpy(cells_NC) + 1],
            question=[self.token(USER), *self.ids(question), self.token(ASSISTANT)],
            answers=[
                [*self.ids(" " + ", ".join(names[cell + 1] for cell in cells)), self.token(END)]
                for cells in scenes.cells_NC.tolist()
            ],
        )

    @torch.no_grad()
    def read(self, drawn_NTD: Tensor, names_N4: Tensor) -> float:
        """Share of the four cells that the frozen reader names rightly from the embeddings, writing freely."""
        embed = self.model.get_input_embeddings()
        before = embed(torch.tensor([self.token(USER)])).expand(len(drawn_NTD), 1, -1)
        after = embed(torch.tensor([*self.ids(QUESTION), self.token(ASSISTANT)])).expand(len(drawn_NTD), -1, -1)
        inputs = torch.cat([before, drawn_NTD, after], 1)
        said = []
        for _ in range(7):  # four names and the three commas between them
            out = self.model.model.language_model(inputs_embeds=inputs).last_hidden_state[:, -1]
            said.append(self.model.lm_head(out).argmax(-1))
            inputs = torch.cat([inputs, embed(said[-1])[:, None]], 1)
        return float((torch.stack(said[::2], 1) == names_N4).float().mean())


class Unified(nn.Module):
    """Decoder, word head and regression head. A row is: picture, question, drawn picture, answer."""

    def __init__(self, instance: Simulation) -> None:
        super().__init__()
        self.language = copy.deepcopy(instance.model.model.language_model)
        self.head = copy.deepcopy(instance.model.lm_head)
        width = self.language.config.hidden_size
        self.regress = nn.Linear(width, width, bias=False)
        self.requires_grad_(True)

    def forward(self, seen_BTD: Tensor, drawn_BTD: Tensor, question_BT: Tensor, words_BT: Tensor) -> dict[str, Tensor]:
        """Both losses (means over words and over numbers), and predictions to judge."""
        embed = self.language.embed_tokens
        inputs = [seen_BTD, embed(question_BT), drawn_BTD, embed(words_BT.clamp(min=0))[:, :-1]]
        out = self.language(inputs_embeds=torch.cat(inputs, 1)).last_hidden_state
        start = seen_BTD.shape[1] + question_BT.shape[1] - 1
        drawn = self.regress(out[:, start : start + drawn_BTD.shape[1]])
        logits = self.head(out[:, start + drawn_BTD.shape[1] :])
        return {
            "text": cross_entropy(logits.flatten(0, 1), words_BT.flatten(), ignore_index=IGNORED),
            "image": mse_loss(drawn, drawn_BTD),
            "right": (logits.argmax(-1) == words_BT)[words_BT != IGNORED].float().mean(),
        }

    @torch.no_grad()
    def draw(self, seen_BTD: Tensor, question_BT: Tensor) -> Tensor:
        """A picture's embeddings, one after the other, each from those before it."""
        inputs = torch.cat([seen_BTD, self.language.embed_tokens(question_BT)], 1)
        drawn: list[Tensor] = []
        cache = None
        for _ in range(NUM_IMAGE_TOKENS):
            out = self.language(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            drawn.append(self.regress(out.last_hidden_state[:, -1:]))
            inputs = drawn[-1]
        return torch.cat(drawn, 1)


class PixelDecoder:
    """Ridge regression from a visual embedding to the 12 x 12 pixels that it stands for."""

    def __init__(self, drawn_NTD: Tensor, pixels_NCHW: Tensor, penalty: float = 1.0) -> None:
        x = self._with_one(drawn_NTD.flatten(0, 1)).double()
        y = _patches(pixels_NCHW).flatten(0, 1).double()
        self.weight = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]), x.T @ y).float()

    def psnr(self, drawn_NTD: Tensor, pixels_NCHW: Tensor) -> float:
        """Mean peak signal-to-noise ratio in dB of the decoded pictures against the true ones."""
        decoded = self._with_one(drawn_NTD) @ self.weight
        error_N = (decoded - _patches(pixels_NCHW)).square().mean((1, 2))
        return float((10 * torch.log10(4 / error_N)).mean())

    @staticmethod
    def _with_one(x: Tensor) -> Tensor:
        return torch.cat([x, torch.ones(*x.shape[:-1], 1)], -1)


def _pixels(images_NHWC: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images_NHWC)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _patches(pixels_NCHW: Tensor) -> Tensor:
    """(N, 16, 432): the pixels of every patch, in the order of the tower's tokens."""
    side = IMAGE_PIXELS // PATCH_PIXELS
    cut = pixels_NCHW.unflatten(3, (side, PATCH_PIXELS)).unflatten(2, (side, PATCH_PIXELS))
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
