"""Train the embedded model from scratch and write its folder, `src/marslora/demo/assets/embedded`.

It is trained in two stages, like large vision-language models. First the tower learns to tell what is in each cell,
through a narrow, noisy code: this teaches it to drop everything else, so that it must be adapted to see a new style of
pictures. Then the whole model learns to answer questions. The code stays narrow: the projector's first matrix has rank
`CODE_WIDTH`. About 10 minutes on two CPU cores.

Run: ``python scripts/pretrain_embedded.py [--tower-steps N] [--steps N] [--out FOLDER]``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marslora.demo.drawing import BACKGROUNDS, PLACES, Scenes, draw_scenes, list_things, load_names
from marslora.demo.model import NUM_IMAGE_TOKENS, embedded_folder, new_model, new_processor
from marslora.demo.questions import QUESTIONS, Scene, Turn, ask_repeat, get_background_name

SEED = 20260
"""Of the weights, the scenes and the questions."""
CODE_WIDTH = 12
"""Numbers per image token that pass from the tower to the language model; set by hand, see dev/LOG.md (2026-11-22)."""
NOISE = 0.3
"""Standard deviation of the noise on these numbers in training; a penalty on their size keeps it from vanishing."""
NUM_TOKENS = 640
"""Size of the vocabulary: enough for every name of a thing to be one token."""
TOKEN_SPREAD = 0.2
"""Standard deviation of the token embeddings at the start: about that of the projector's outputs."""
KIND_SHARES = {"place": 0.3, "list": 0.2, "where": 0.15, "presence": 0.1, "count": 0.1, "background": 0.15}
"""How often each kind of question is asked. ``rain`` is left out: its answer cannot be learned."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
GENERAL_TEXTS = [
    "what color is the shape?", "what shape is in the image?", "is there a red circle in the image?",
    "is there not a blue rectangle in the image?", "what is the color of the triangle?",
    "does the image contain a shape?", "is a green shape present?", "describe the picture in one sentence.",
    "what do you see?", "how many are there?",
    "black gray teal brown orange purple pink square", "left right above below next to and or not the a an of in on",
]  # fmt: skip
"""Texts about other pictures that the tokenizer is trained on too, so that other data sets do not fall into letters."""


class NoisyCode(nn.Module):
    """The narrow connection from the tower to the rest of the model: a linear code, with noise added in training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, CODE_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """The code of every token."""
        code = self.linear(x)
        self.size = code.square().mean()
        return code + NOISE * torch.randn_like(code) if self.training else code


class StepLog:
    """Prints lines about the progress of a stage, with the seconds that remain."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.start = name, steps, time.perf_counter()

    def __call__(self, step: int, text: str) -> None:
        """Print ``text`` with the step and the time."""
        seconds = time.perf_counter() - self.start
        left = seconds / step * (self.steps - step)
        print(f"{self.name} {step}/{self.steps}  {text}  {seconds:.0f} s, {left:.0f} s to go", flush=True)


def normalise_pixels(images_NHWC: np.ndarray) -> Tensor:
    """Pictures (N, H, W, 3) as the processor makes them: (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def make_optimizer(
    modules: list[nn.Module], rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with warm-up and cosine decay, and its schedule."""
    parameters = [p for module in modules for p in module.parameters()]
    adamw = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02, betas=(0.9, 0.98))
    return adamw, torch.optim.lr_scheduler.OneCycleLR(adamw, rate, total_steps=steps, pct_start=0.1)


def find_cell_of_token() -> Tensor:
    """The cell in which each of the 16 patches lies, (T,)."""
    side = torch.arange(int(NUM_IMAGE_TOKENS**0.5)) // 2
    return (2 * side[:, None] + side).flatten()


def find_name_tokens(names: Iterable[str], tokenizer) -> Tensor:
    """The token of every name as it is inside a sentence. Exits if a name is not a single token."""
    ids = [tokenizer(f" {name}")["input_ids"] for name in names]
    if split := [name for name, tokens in zip(names, ids, strict=True) if len(tokens) != 1]:
        raise SystemExit(f"These names are not single tokens: {split}. Repeat them in the texts for the tokenizer.")
    return torch.tensor(ids).flatten()


def train_tower(model: nn.Module, tokenizer, pool: Scenes, steps: int, batch: int = 128) -> None:
    """Teach tower and projector to encode in every image token the thing in its cell, the background and the place.

    An image token is trained to be close to the language model's own embedding of the thing's name.
    """
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    embedding, place = model.get_input_embeddings(), nn.Linear(projector.linear_2.out_features, NUM_IMAGE_TOKENS)
    things_N, grounds_N = (
        find_name_tokens(names, tokenizer) for names in (["nothing", *list_things()], list(BACKGROUNDS))
    )
    adamw, schedule = make_optimizer([tower, projector, embedding, place], 2e-3, steps)
    cells_T, places_BT = find_cell_of_token(), torch.arange(NUM_IMAGE_TOKENS).expand(batch, -1)
    cells, backgrounds = torch.from_numpy(pool.cells_NC) + 1, torch.from_numpy(pool.backgrounds_N)
    clock, code = StepLog("tower", steps), projector.linear_1[0]
    for step in range(1, steps + 1):
        rows = torch.randint(len(pool), (batch,))
        tokens = projector(tower(pixel_values=normalise_pixels(pool.images_NHWC[rows.numpy()])).last_hidden_state)
        scores = (tokens @ embedding.weight[things_N].T, tokens @ embedding.weight[grounds_N].T, place(tokens))
        targets = (cells[rows][:, cells_T], backgrounds[rows, None].expand(-1, NUM_IMAGE_TOKENS), places_BT)
        losses = [F.cross_entropy(s.flatten(0, 1), t.flatten()) for s, t in zip(scores, targets, strict=True)]
        (sum(losses) + 0.02 * code.size).backward()
        adamw.step()
        adamw.zero_grad()
        schedule.step()
        if step % 100 == 0:
            right = (scores[0].argmax(-1) == targets[0]).float().mean()
            clock(step, f"loss {losses[0]:.3f}, things right {right:.3f}, code size {code.size:.2f}")


def make_turns(pool: Scenes, n: int, rng: np.random.Generator, vocabulary: list[str]) -> list[Turn]:
    """Three turns about one scene; in about a third of all cases the last one asks to repeat words."""
    scene = Scene(tuple(pool.cells_NC[n].tolist()), get_background_name(int(pool.backgrounds_N[n])), list_things(), rng)
    turns = [
        QUESTIONS[kind](scene) for kind in rng.choice(list(KIND_SHARES), 3, replace=False, p=list(KIND_SHARES.values()))
    ]
    if rng.random() < 0.35:
        letters = "".join(rng.choice(list(LETTERS), int(rng.integers(2, 7))))
        turns[2] = ask_repeat(scene, [*vocabulary, letters])
    return turns


def make_batch(
    pool: Scenes, rows: np.ndarray, rng: np.random.Generator, processor, vocabulary: list[str]
) -> dict[str, Tensor]:
    """Encoded conversations about the scenes ``rows``, as the chat template writes them, with labels on the answers."""
    tokenizer = processor.tokenizer
    texts = []
    for n in rows:
        text = "".join(f"<|user|>{q}<|assistant|> {a}<|end|>" for q, a in make_turns(pool, n, rng, vocabulary))
        texts.append("<|user|>" + "<image>" * NUM_IMAGE_TOKENS + text.removeprefix("<|user|>"))
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
        "pixel_values": normalise_pixels(pool.images_NHWC[rows]),
    }


def train_all(model: nn.Module, processor, pool: Scenes, held_out: Scenes, steps: int, batch: int = 48) -> None:
    """Teach the whole model to answer questions about the scenes."""
    vocabulary = sorted({name for names in load_names().values() for name in names})
    rng = np.random.default_rng(SEED + 1)
    adamw, schedule = make_optimizer([model], 2.5e-3, steps)
    clock = StepLog("model", steps)
    for step in range(1, steps + 1):
        rows = rng.integers(len(pool), size=batch)
        data = make_batch(pool, rows, rng, processor, vocabulary)
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
                + (f", held out {score_answers(model, processor, held_out)}" if step % 300 == 0 else ""),
            )


@torch.no_grad()
def score_answers(model: nn.Module, processor, pool: Scenes, num: int = 512) -> str:
    """Loss and share of answer tokens predicted correctly on held-out scenes, as text."""
    model.eval()
    data = make_batch(pool, np.arange(num), np.random.default_rng(0), processor, list(list_things()))
    labels = data.pop("labels")[:, 1:]
    scores = model(**data).logits[:, :-1][labels != -100]
    wanted = labels[labels != -100]
    model.train()
    return f"loss {F.cross_entropy(scores, wanted):.3f}, right {(scores.argmax(-1) == wanted).float().mean():.3f}"


def merge_code(model: nn.Module) -> None:
    """Multiply the narrow code into the projector's first matrix: the model becomes an ordinary LLaVA."""
    projector = model.model.multi_modal_projector
    code, widen = projector.linear_1[0].linear, projector.linear_1[1]
    merged = nn.Linear(code.in_features, widen.out_features)
    with torch.no_grad():
        merged.weight.copy_(widen.weight @ code.weight)
        merged.bias.copy_(widen.weight @ code.bias + widen.bias)
    projector.linear_1 = merged


def main() -> None:
    """Train both stages and save the model with its processor."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tower-steps", type=int, default=800)
    arguments.add_argument("--steps", type=int, default=1500)
    arguments.add_argument("--pool", type=int, default=20000)
    arguments.add_argument("--out", type=Path, default=embedded_folder())
    options = arguments.parse_args()
    torch.manual_seed(SEED)
    start = time.perf_counter()
    pool = draw_scenes(options.pool, "train", np.random.default_rng(SEED))
    held_out = draw_scenes(512, "validation", np.random.default_rng(SEED + 2))
    names = [name for column in load_names().values() for name in column]
    texts = (
        GENERAL_TEXTS
        + [f" {name} {name}" for name in names]
        + [f"the {name}," for name in [*list_things(), *BACKGROUNDS, "nothing"]] * 40
    )
    texts += [question(Scene((c % 50, 1, 2, -1), colour, list_things(), np.random.default_rng(c)))[0]
              for question in QUESTIONS.values() for colour in BACKGROUNDS for c in range(20)]  # fmt: skip
    texts += [f"{a}, {b}" for a in PLACES for b in BACKGROUNDS] + ["nothing, nothing yes no"] * 20
    processor = new_processor(texts, NUM_TOKENS)
    model = new_model(processor.tokenizer)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{millions:.2f} M parameters, {len(processor.tokenizer)} tokens, {len(pool)} scenes", flush=True)
    nn.init.normal_(model.get_input_embeddings().weight, std=TOKEN_SPREAD)
    model.train()
    projector = model.model.multi_modal_projector
    narrow, widen = projector.linear_1.in_features, projector.linear_1.out_features
    projector.linear_1 = nn.Sequential(NoisyCode(narrow), nn.Linear(CODE_WIDTH, widen))
    train_tower(model, processor.tokenizer, pool, options.tower_steps)
    train_all(model, processor, pool, held_out, options.steps)
    merge_code(model)
    print(f"held out: {score_answers(model, processor, held_out)}; {time.perf_counter() - start:.0f} s in all")
    model.save_pretrained(options.out)
    processor.save_pretrained(options.out)


if __name__ == "__main__":
    main()
