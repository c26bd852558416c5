"""MARS-M where it was published, on full matrices: a GPT of 3 M parameters trained from nothing.

    python benchmarks/real/marsm_gpt.py --cache /tmp/marsm --out benchmarks/real/marsm_gpt.json

The text is the docstrings of Python's standard library, torch and transformers as installed, without repeats, in
bytes that a BPE of 2,048 tokens was trained on; files are held out for validation by their name. Each optimizer is
trained at three learning rates with one seed, then with three seeds at the best of the three. At one seed all have
the same start and the same batches, so differences are paired. All take equally many steps; exact MARS-M runs every
batch twice. bfloat16 autocast, one thread, cosine to a tenth after a warm-up of a tenth. The same command again
continues: finished runs are kept.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import math
import statistics
import sysconfig
import time
from pathlib import Path

import tokenizers
import torch
import transformers
from torch import nn
from torch.nn.functional import cross_entropy, gelu

from marslora.optim.adamw import AdamW
from marslora.optim.mars_m import MarsM
from marslora.optim.moonlight import Moonlight
from marslora.optim.muon import Muon

VOCABULARY, CONTEXT, BATCH = 2048, 128, 8
WIDTH, LAYERS, HEADS = 192, 6, 3
VALIDATION_BATCHES = 48
WEIGHT_DECAY = 0.1
LADDER = (1e-3, 2e-3, 4e-3)
"""Learning rates of matrices and vectors; those of Muon's matrices are three times as high, since its steps of these
shapes are a third of Moonlight's."""
ORTHOGONAL = {"ns_dtype": "bfloat16"}
"""As published."""
WAYS = {
    "adamw": (AdamW, {"betas": (0.9, 0.95)}),
    "muon": (Muon, ORTHOGONAL),
    "moonlight": (Moonlight, ORTHOGONAL),
    "mars_m_approx": (MarsM, ORTHOGONAL),
    "mars_m_exact": (MarsM, {"exact": True, **ORTHOGONAL}),
}


class Block(nn.Module):
    """Attention and a feed-forward part, each on the normed residual stream."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)
        self.first_norm, self.second_norm = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)

    def forward(self, x):
        normed = self.first_norm(x)
        heads = [each(normed).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in (self.q, self.k, self.v)]
        x = x + self.o(attend(*heads).transpose(1, 2).flatten(2))
        return x + self.down(gelu(self.up(self.second_norm(x))))


def attend(q, k, v):
    """Causal attention, written out: in bfloat16 torch's own is three times slower on a CPU."""
    future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool).triu(1)
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(future, -math.inf)
    return torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype) @ v


class Gpt(nn.Module):
    """A GPT whose head is its embedding."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scale = 0.02 / math.sqrt(2 * LAYERS) if name.endswith(("o.weight", "down.weight")) else 0.02
                nn.init.normal_(parameter, std=scale)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.tokens.weight.T

    def loss(self, rows):
        """Mean nats of every token after the first."""
        with torch.autocast("cpu", torch.bfloat16):
            logits = self(rows[:, :-1])
        return cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())


def docstrings():
    """{file: text} of the docstrings of the installed packages; a text that occurred before is left out."""
    seen, found = set(), {}
    folders = {
        "python": Path(sysconfig.get_paths()["stdlib"]),
        "torch": Path(torch.__file__).parent,
        "transformers": Path(transformers.__file__).parent,
    }
    for package, folder in folders.items():
        for file in sorted(folder.rglob("*.py")):
            if package == "python" and "site-packages" in file.parts:
                continue
            with contextlib.suppress(SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
                kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
                nodes = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, kinds)]
                texts = [text for node in nodes if (text := ast.get_docstring(node)) and len(text) > 80]
                fresh = [text for text in texts if text not in seen]
                seen.update(fresh)
                if fresh:
                    found[f"{package}/{file.relative_to(folder)}"] = "\n\n".join(fresh)
    return found


def read_tokens(cache):
    """(training tokens, validation tokens), and what they are; kept in the folder ``cache``."""
    path = cache / "tokens.pt"
    if not path.exists():
        texts = docstrings()
        held = {name for name in texts if int(hashlib.sha256(name.encode()).hexdigest(), 16) % 16 == 0}
        tokenizer = tokenizers.ByteLevelBPETokenizer()
        train = [text for name, text in texts.items() if name not in held]
        tokenizer.train_from_iterator(train, vocab_size=VOCABULARY, show_progress=False)
        sides = [[t for name, t in texts.items() if (name in held) == is_held] for is_held in (False, True)]
        kept = [torch.tensor([i for each in tokenizer.encode_batch(side) for i in each.ids]) for side in sides]
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(kept, path)
    return torch.load(path)


def draw(tokens, generator):
    """A batch of rows from random places."""
    starts = torch.randint(len(tokens) - CONTEXT - 1, (BATCH,), generator=generator)
    return torch.stack([tokens[start : start + CONTEXT + 1] for start in starts])


def groups_of(model, way, rate):
    """Matrices, which the optimizer's own rule moves, and the rest, which AdamW moves."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("blocks")]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or not name.startswith("blocks")]
    kind = {} if way == "adamw" else {"route": "adamw"}
    high = 3 * rate if way == "muon" else rate
    return [{"params": matrices, "peak": high}, {"params": rest, "peak": rate, **kind}]


def train(way, rate, seed, num_steps, tokens):
    """One run from its start to its end."""
    torch.manual_seed(seed)
    model, generator = Gpt(), torch.Generator().manual_seed(seed)
    optimizer_class, options = WAYS[way]
    optimizer = optimizer_class(groups_of(model, way, rate), lr=rate, weight_decay=WEIGHT_DECAY, **options)
    started, losses, warmup = time.process_time(), [], num_steps // 10
    for step in range(num_steps):
        rows = draw(tokens[0], generator)
        course = min(
            (step + 1) / warmup, 0.55 + 0.45 * math.cos(math.pi * max(0, step - warmup) / (num_steps - warmup))
        )
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * course
        if optimizer.needs_two_points:
            with optimizer.previous_point():
                model.loss(rows).backward()
        loss = model.loss(rows)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if optimizer.needs_two_points:  # one factor for both gradients: their difference is of one function
            for _, last in optimizer.last_gradients():
                last.mul_((1.0 / (norm + 1e-6)).clamp(max=1.0))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return {
        "validation": round(validate(model, tokens[1]), 4),
        "train": round(statistics.mean(losses[-num_steps // 10 :]), 4),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


@torch.no_grad()
def validate(model, tokens):
    """Mean loss on the same rows for every run."""
    generator = torch.Generator().manual_seed(0)
    return statistics.mean(float(model.loss(draw(tokens, generator))) for _ in range(VALIDATION_BATCHES))


def summarise(runs, ways, seeds):
    """Each way's best rate, its losses by seed, and their paired differences from Moonlight's and AdamW's."""
    firsts = {way: [run for run in runs if run["way"] == way and run["seed"] == 0] for way in ways}
    best = {way: min(own, key=lambda run: run["validation"])["rate"] for way, own in firsts.items()}
    ended = {
        way: {run["seed"]: run["validation"] for run in runs if (run["way"], run["rate"]) == (way, best[way])}
        for way in ways
    }
    rows = []
    for way in ways:
        losses = [ended[way][seed] for seed in range(seeds) if seed in ended[way]]
        row = {"way": way, "rate": best[way], "losses": losses, "mean": round(statistics.mean(losses), 4)}
        for other in {"moonlight", "adamw"} & set(ways) - {way}:
            gaps = [ended[way][seed] - ended[other][seed] for seed in sorted(set(ended[way]) & set(ended[other]))]
            row[f"minus_{other}"] = [round(gap, 4) for gap in gaps]
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=LADDER)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokens = read_tokens(arguments.cache)
    kept = arguments.cache / f"runs-{arguments.steps}.json"
    known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"steps": None}
    runs = known["runs"] if known["steps"] == arguments.steps else []
    runs = json.loads(kept.read_text()) if kept.exists() else runs

    def ensure(way, rate, seed):
        for run in runs:
            if (run["way"], run["rate"], run["seed"]) == (way, rate, seed):
                return run["validation"]
        run = {"way": way, "rate": rate, "seed": seed, **train(way, rate, seed, arguments.steps, tokens)}
        runs.append(run)
        print(json.dumps(run), flush=True)
        kept.write_text(json.dumps(runs))
        return run["validation"]

    for rate in arguments.rates:
        for way in arguments.ways:
            ensure(way, rate, 0)
    for seed in range(1, arguments.seeds):
        for way in arguments.ways:
            best = min(arguments.rates, key=lambda rate: ensure(way, rate, 0))
            ensure(way, best, seed)
    record = {
        "parameters": sum(p.numel() for p in Gpt().parameters()),
        "training_tokens": len(tokens[0]),
        "validation_tokens": len(tokens[1]),
        "steps": arguments.steps,
        "tokens_of_a_step": BATCH * CONTEXT,
        "is_complete": len({(run["way"], run["rate"]) for run in runs}) == len(WAYS) * len(LADDER),
        "cpu_seconds": round(sum(run["cpu_seconds"] for run in runs)),
        "results": summarise(runs, list(dict.fromkeys(run["way"] for run in runs)), arguments.seeds),
        "runs": runs,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["results"], indent=1))


if __name__ == "__main__":
    main()
