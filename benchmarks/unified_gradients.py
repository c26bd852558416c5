"""Does Pareto LoRA help a model that writes and draws? Its paper's three findings, at a small scale.

    python benchmarks/unified_gradients.py --json benchmarks/unified_gradients.json

The model is `unified_model.Unified`, pretrained for a minute to list a picture's things in English and to draw it
again. LoRA then teaches it a new language and a new drawing (the halves of the picture exchanged), with text loss
(cross-entropy) and image loss (mean squared error of visual embeddings) of the same batch. Asked, as in
arXiv 2606.17296: do the two gradients' norms differ by orders of magnitude; does drawing lose more than writing
against training for it alone; does Pareto LoRA narrow that gap at comparable text loss?

Rules, fixed before running: the same starts, batches, steps and learning rate for every method, paired by seed;
intervals are Student's 95 % over seeds; a difference counts if its interval excludes 0. Here the embeddings' variance
is about 1.5; because the norms' ratio hangs on it, everything is asked again with the image loss over 100. The control
`unit_sum` balances norms without any Pareto argument, and `sum` itself is the control of the second question.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from scipy.stats import t as student
from unified_model import PixelDecoder, Rows, Simulation, Unified

from marslora.gradients import SeparateGradients

SMALL = {"image_weight": 0.01}
"""The image loss of embeddings a tenth as large: what makes norms differ by orders of magnitude."""
METHODS: dict[str, dict] = {
    "text only": {"objectives": ["text"]},
    "image only": {"objectives": ["image"]},
    "sum": {"kind": "sum"},
    "pareto_lora (paper)": {"kind": "pareto_lora"},
    "pareto_lora everywhere": {"kind": "pareto_lora", "options": {"modulate": ""}},
    "unit_sum": {"kind": "unit_sum"},
    "mgda": {"kind": "mgda"},
    "sum, image loss / 100": {"kind": "sum", **SMALL},
    "pareto_lora (paper), image loss / 100": {"kind": "pareto_lora", **SMALL},
    "pareto_lora everywhere, image loss / 100": {"kind": "pareto_lora", "options": {"modulate": ""}, **SMALL},
}
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "regress")
METRICS = ("text_loss", "text_right", "image_loss", "reader", "psnr")


def pretrain(instance: Simulation, steps: int, batch: int, seed: int) -> Unified:
    """All parameters, both losses in natural balance: list in English, draw the same picture."""
    torch.manual_seed(seed)
    model = Unified(instance).train()
    rows = instance.rows(1536, "train", seed, "english", exchange=False)
    variance = rows.drawn_NTD.var((0, 1)).mean()
    adamw = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adamw, 2e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        out = model(**rows.batch(torch.randint(len(rows), (batch,))))
        (out["text"] + out["image"] / variance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
        schedule.step()
    return model.eval().requires_grad_(False)


def adapt(base: Unified, method: dict, rows: Rows, args: argparse.Namespace, seed: int) -> tuple[Unified, list]:
    """LoRA of one method and seed; the adapted model and what was seen of its gradients."""
    torch.manual_seed(seed)
    config = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=list(LINEARS))
    model = inject_adapter_in_model(config, copy.deepcopy(base)).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind = {"name": method.get("kind", "sum"), "options": method.get("options", {})}
    separate = SeparateGradients(model.named_parameters(), kind, method.get("objectives", ("text", "image")))
    adamw = torch.optim.AdamW(trained, args.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adamw, args.rate, total_steps=args.steps, pct_start=0.1)
    draw, notes = torch.Generator().manual_seed(seed), []
    for step in range(args.steps):
        out = model(**rows.batch(torch.randint(len(rows), (args.batch,), generator=draw)))
        losses = {"text": out["text"], "image": method.get("image_weight", 1.0) * out["image"]}
        separate.backward({name: losses[name] for name in method.get("objectives", losses)})
        notes += [note.model_copy(update={"step": step}) for note in separate.combine()]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adamw.step()
        schedule.step()
    return model.eval(), notes


@torch.no_grad()
def judge(model: Unified, rows: Rows, instance: Simulation, decoder: PixelDecoder) -> dict[str, float]:
    """Held-out losses and accuracy; reader accuracy and PSNR of freely drawn pictures."""
    batch = rows.batch(torch.arange(len(rows)))
    out = model(**batch)
    drawn = model.draw(batch["seen_BTD"], batch["question_BT"])
    return {
        "text_loss": float(out["text"]),
        "text_right": float(out["right"]),
        "image_loss": float(out["image"]),
        "reader": instance.read(drawn, rows.names_N4),
        "psnr": decoder.psnr(drawn, rows.pixels_NCHW),
    }


def interval(values: list[float]) -> dict[str, float]:
    """Mean and Student's 95 % interval."""
    mean, number = float(np.mean(values)), len(values)
    half = (
        float(student.ppf(0.975, number - 1) * np.std(values, ddof=1) / math.sqrt(number)) if number > 1 else math.nan
    )
    return {"mean": mean, "low": mean - half, "high": mean + half}


def gradients_seen(notes: list) -> dict[str, dict]:
    """By block: quantiles of the ratio of norms, text over image, median cosine, share of the cases."""
    found = {}
    for block in dict.fromkeys(note.block for note in notes):
        both = [note for note in notes if note.block == block and len(note.objectives) == 2]
        if both:
            ratios = [note.norms[0] / note.norms[1] for note in both]
            cases = [note.case for note in both]
            found[block] = {
                "ratio_text_over_image": dict(
                    zip(("low", "median", "high"), np.quantile(ratios, (0.05, 0.5, 0.95)).tolist(), strict=True)
                ),
                "cosine_median": float(np.median([note.cosine for note in both])),
                "share_in_conflict": float(np.mean([note.cosine < 0 for note in both])),
                "cases": {case: cases.count(case) / len(cases) for case in sorted(set(cases))},
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--pretrain-steps", type=int, default=500)
    parser.add_argument("--only", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began, instance = time.perf_counter(), Simulation()
    base = pretrain(instance, args.pretrain_steps, 24, seed=100)
    train, test = instance.rows(1024, "train", 1, "french", True), instance.rows(128, "test", 2, "french", True)
    decoder = PixelDecoder(train.drawn_NTD, train.pixels_NCHW)
    plain = instance.rows(128, "test", 2, "english", False)
    found = {
        "settings": {key: value for key, value in vars(args).items() if key not in ("json", "only")},
        "variance_of_embeddings": float(train.drawn_NTD.var((0, 1)).mean()),
        "before": judge(base, test, instance, decoder),
        "pretrained on its own task": judge(base, plain, instance, decoder),
        "ceiling": {
            "reader": instance.read(test.drawn_NTD, test.names_N4),
            "psnr": decoder.psnr(test.drawn_NTD, test.pixels_NCHW),
        },
        "methods": {},
    }
    print(f"pretrained after {time.perf_counter() - began:.0f} s", json.dumps(found, indent=1), flush=True)
    scores: dict[str, list[dict[str, float]]] = {}
    for name in args.only:
        runs = []
        for seed in range(args.seeds):
            start = time.perf_counter()
            model, notes = adapt(base, METHODS[name], train, args, seed)
            seconds = time.perf_counter() - start
            runs.append({**judge(model, test, instance, decoder), "seconds": seconds})
            print(name, seed, {key: round(value, 4) for key, value in runs[-1].items()}, flush=True)
        scores[name] = runs
        found["methods"][name] = {
            "runs": runs,
            **{metric: interval([run[metric] for run in runs]) for metric in METRICS},
            "gradients": gradients_seen(notes),
        }
        plain_sum = "sum, image loss / 100" if "image_weight" in METHODS[name] else "sum"
        if plain_sum in scores:
            found["methods"][name]["minus sum"] = _differences(runs, scores[plain_sum])
    for name in set(scores) - {"text only", "image only"}:
        lost = found["methods"][name]["minus unimodal"] = {}
        if "text only" in scores:
            lost.update({k: v for k, v in _differences(scores[name], scores["text only"]).items() if "text" in k})
        if "image only" in scores:
            lost.update({k: v for k, v in _differences(scores[name], scores["image only"]).items() if "text" not in k})
    found["seconds"] = time.perf_counter() - began
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def _differences(mine: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {metric: interval([a[metric] - b[metric] for a, b in zip(mine, theirs, strict=True)]) for metric in METRICS}


def table(found: dict) -> str:
    """The means with half-widths, as Markdown."""
    lines = ["| method | " + " | ".join(METRICS) + " |", "|---" * (len(METRICS) + 1) + "|"]
    for name, values in found["methods"].items():
        cells = [f"{values[m]['mean']:.3f} ± {values[m]['high'] - values[m]['mean']:.3f}" for m in METRICS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
