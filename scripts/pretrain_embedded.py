"""Train the embedded model from scratch and write its folder, `src/marslora/assets/embedded`.

Two stages, as its big relatives are trained. First the tower alone learns to tell what stands in each cell, through a
narrow, noisy code: it learns to throw away what it was not asked for. Then the whole model learns to answer questions.
The code stays narrow: the projector's first matrix has rank `CODE_WIDTH`.

Run: ``python scripts/pretrain_embedded.py [--tower-steps N] [--steps N] [--out FOLDER]``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marslora.data.scenes_draw import BACKGROUNDS, PLACES, Scenes, draw, things, words
from marslora.data.scenes_talk import QUESTIONS, Scene, Turn, background_name, repeat
from marslora.models.embedded import NUM_IMAGE_TOKENS, embedded_folder, new_model, new_processor

SEED = 20260
CODE_WIDTH = 12
NOISE = 0.3
NUM_TOKENS = 640
LETTERS = "abcdefghijklmnopqrstuvwxyz"
GENERAL = [
    "what color is the shape?", "what shape is in the image?", "is there a red circle in the image?",
    "is there not a blue rectangle in the image?", "what is the color of the triangle?",
    "does the image contain a shape?", "is a green shape present?", "describe the picture in one sentence.", "what do you see?", "how many are there?",
    "black gray teal brown orange purple pink square", "left right above below next to and or not the a an of in on",
]  # fmt: skip


class NoisyCode(nn.Module):
    """The narrow passage between the tower and everything after it: a linear code with noise added while training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, CODE_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """The code of every token."""
        code = self.linear(x)
        self.size = code.square().mean()
        return code + NOISE * torch.randn_like(code) if self.training else code


class Clock:
    """Prints a line now and then, with the seconds still to go."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.start = name, steps, time.perf_counter()

    def __call__(self, step: int, text: str) -> None:
        """Print ``text`` with the time."""
        seconds = time.perf_counter() - self.start
        left = seconds / step * (self.steps - step)
        print(f"{self.name} {step}/{self.steps}  {text}  {seconds:.0f} s, {left:.0f} s to go", flush=True)


def pixels(images_NHWC: np.ndarray) -> Tensor:
    """As the processor makes them: in [-1, 1], channels first."""
    return torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def optimiser(
    modules: list[nn.Module], rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with a warm-up and a cosine decay."""
    parameters = [p for module in modules for p in module.parameters()]
    adamw = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02, betas=(0.9, 0.98))
    return adamw, torch.optim.lr_scheduler.OneCycleLR(adamw, rate, total_steps=steps, pct_start=0.1)


def cell_codes(code_BTC: Tensor) -> Tensor:
    """The codes of each cell's 2x2 patches side by side: (B, 4 cells, 4 * CODE_WIDTH)."""
    size = int(NUM_IMAGE_TOKENS**0.5)
    x = code_BTC.reshape(-1, 2, size // 2, 2, size // 2, CODE_WIDTH).transpose(2, 3)
    return x.reshape(-1, 4, size // 2 * (size // 2) * CODE_WIDTH)


def train_tower(tower: nn.Module, code: NoisyCode, pool: Scenes, steps: int, batch: int = 128) -> None:
    """Teach the tower to name the thing in every cell, the background, and each token's own place, through the code."""
    head = nn.Sequential(
        nn.Linear(4 * CODE_WIDTH, 192), nn.GELU(), nn.Linear(192, len(things()) + 1 + len(BACKGROUNDS))
    )
    where = nn.Linear(CODE_WIDTH, NUM_IMAGE_TOKENS)
    adamw, schedule = optimiser([tower, code, head, where], 2e-3, steps)
    places_BT = torch.arange(NUM_IMAGE_TOKENS).expand(batch, -1)
    cells, backgrounds = torch.from_numpy(pool.cells_NC) + 1, torch.from_numpy(pool.backgrounds_N)
    clock = Clock("tower", steps)
    for step in range(1, steps + 1):
        rows = torch.randint(len(pool), (batch,))
        features = tower(pixel_values=pixels(pool.images_NHWC[rows.numpy()])).last_hidden_state
        codes = code(features)
        scores = head(cell_codes(codes))
        thing, ground = scores.split([len(things()) + 1, len(BACKGROUNDS)], dim=-1)
        loss = F.cross_entropy(thing.flatten(0, 1), cells[rows].flatten())
        loss = loss + F.cross_entropy(ground.mean(1), backgrounds[rows])
        loss = loss + F.cross_entropy(where(codes).flatten(0, 1), places_BT.flatten())
        (loss + 0.02 * code.size).backward()
        adamw.step()
        adamw.zero_grad()
        schedule.step()
        if step % 100 == 0:
            right = (thing.argmax(-1) == cells[rows]).float().mean()
            clock(step, f"loss {loss:.3f}, things right {right:.3f}, code size {code.size:.2f}")


def turns(pool: Scenes, n: int, rng: np.random.Generator, vocabulary: list[str]) -> list[Turn]:
    """Three turns about one scene; now and then words to repeat."""
    scene = Scene(tuple(pool.cells_NC[n].tolist()), background_name(int(pool.backgrounds_N[n])), things(), rng)
    asked = [QUESTIONS[kind](scene) for kind in rng.choice(list(QUESTIONS), 3, replace=False)]
    if rng.random() < 0.35:
        letters = "".join(rng.choice(list(LETTERS), int(rng.integers(2, 7))))
        asked[2] = repeat(scene, [*vocabulary, letters])
    return asked


def batch_of(
    pool: Scenes, rows: np.ndarray, rng: np.random.Generator, processor, vocabulary: list[str]
) -> dict[str, Tensor]:
    """Encoded conversations about the scenes ``rows``: exactly the text of the chat template, labels on the answers."""
    tokenizer = processor.tokenizer
    texts = []
    for n in rows:
        said = "".join(f"<|user|>{q}<|assistant|>{a}<|end|>" for q, a in turns(pool, n, rng, vocabulary))
        texts.append("<|user|>" + "<image>" * NUM_IMAGE_TOKENS + said.removeprefix("<|user|>"))
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    ids = encoded["input_ids"]
    starts = (ids == tokenizer.convert_tokens_to_ids("<|assistant|>")).long().cumsum(1)
    ends = (ids == tokenizer.eos_token_id).long().cumsum(1)
    is_answer = (starts - ends + (ids == tokenizer.eos_token_id)) > 0
    is_answer &= ids != tokenizer.convert_tokens_to_ids("<|assistant|>")
    return {
        "input_ids": ids,
        "attention_mask": encoded["attention_mask"],
        "labels": ids.masked_fill(~is_answer, -100),
        "pixel_values": pixels(pool.images_NHWC[rows]),
    }


def train_all(model: nn.Module, processor, pool: Scenes, held_out: Scenes, steps: int, batch: int = 48) -> None:
    """Teach the whole model to answer."""
    vocabulary = sorted({name for names in words().values() for name in names})
    rng = np.random.default_rng(SEED + 1)
    adamw, schedule = optimiser([model], 2.5e-3, steps)
    clock = Clock("model", steps)
    for step in range(1, steps + 1):
        data = batch_of(pool, rng.integers(len(pool), size=batch), rng, processor, vocabulary)
        loss = model(**data).loss
        (loss + 0.02 * model.model.multi_modal_projector.linear_1[0].size).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
        schedule.step()
        if step % 100 == 0:
            clock(
                step,
                f"loss {loss:.3f}"
                + (f", held out {answers_right(model, processor, held_out)}" if step % 500 == 0 else ""),
            )


@torch.no_grad()
def answers_right(model: nn.Module, processor, pool: Scenes, num: int = 512) -> str:
    """Loss and share of answer tokens guessed right on held-out scenes."""
    model.eval()
    data = batch_of(pool, np.arange(num), np.random.default_rng(0), processor, list(things()))
    labels = data.pop("labels")[:, 1:]
    scores = model(**data).logits[:, :-1][labels != -100]
    wanted = labels[labels != -100]
    model.train()
    return f"loss {F.cross_entropy(scores, wanted):.3f}, right {(scores.argmax(-1) == wanted).float().mean():.3f}"


def merge_code(model: nn.Module) -> None:
    """Fold the narrow code into the projector's first matrix: the model becomes an ordinary LLaVA."""
    projector = model.model.multi_modal_projector
    code, widen = projector.linear_1[0].linear, projector.linear_1[1]
    merged = nn.Linear(code.in_features, widen.out_features)
    with torch.no_grad():
        merged.weight.copy_(widen.weight @ code.weight)
        merged.bias.copy_(widen.weight @ code.bias + widen.bias)
    projector.linear_1 = merged


def main() -> None:
    """Train both stages and save."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tower-steps", type=int, default=3000)
    arguments.add_argument("--steps", type=int, default=3000)
    arguments.add_argument("--pool", type=int, default=30000)
    arguments.add_argument("--out", type=Path, default=embedded_folder())
    given = arguments.parse_args()
    torch.manual_seed(SEED)
    start = time.perf_counter()
    pool = draw(given.pool, "train", np.random.default_rng(SEED))
    held_out = draw(512, "validation", np.random.default_rng(SEED + 2))
    names = [name for column in words().values() for name in column]
    texts = GENERAL + [f" {name} {name}" for name in names] + [f"the {name}," for name in things()] * 4
    texts += [question(Scene((c % 50, 1, 2, -1), colour, things(), np.random.default_rng(c)))[0]
              for question in QUESTIONS.values() for colour in BACKGROUNDS for c in range(20)]  # fmt: skip
    texts += [f"{a}, {b}" for a in PLACES for b in BACKGROUNDS] + ["nothing, nothing yes no"] * 20
    processor = new_processor(texts, NUM_TOKENS)
    model = new_model(processor.tokenizer)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{millions:.2f} M parameters, {len(processor.tokenizer)} tokens, {len(pool)} scenes", flush=True)
    model.train()
    projector = model.model.multi_modal_projector
    code = NoisyCode(projector.linear_1.in_features)
    train_tower(model.model.vision_tower, code, pool, given.tower_steps)
    projector.linear_1 = nn.Sequential(code, nn.Linear(CODE_WIDTH, projector.linear_1.out_features))
    train_all(model, processor, pool, held_out, given.steps)
    merge_code(model)
    print(f"held out: {answers_right(model, processor, held_out)}; {time.perf_counter() - start:.0f} s in all")
    model.save_pretrained(given.out)
    processor.save_pretrained(given.out)


if __name__ == "__main__":
    main()
