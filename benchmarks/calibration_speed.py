"""The calibration of a real study against what people run today: one training after the other, with TRL or bare PEFT.

    marslora demo --study demo
    pip install trl && python benchmarks/calibration_speed.py demo --out benchmarks/calibration_speed.json

Every round of the study is trained again. ``marslora`` pays for everything the product does: opening the model and the
rows, packs, validation, checkpoints. ``trl`` trains each member with `trl.SFTTrainer` and its `peft_config` on the same
rows, batch size, steps and optimizer, answers only, as its documentation has it: pictures are processed as batches are
made, and a new run for every member. ``peft`` is a bare loop over PEFT's model with marslora's prepared batches. Both
start with the model loaded; validation, where it is counted, is of the same rows after the same steps. One thread; the
ways take turns, in rotated order; seconds are those of the processor, with wall seconds beside.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import datasets
import peft
import torch
import transformers
import trl

from marslora.core.schedule import evaluation_steps, num_steps
from marslora.core.spec import MemberSpec, PackSpec
from marslora.data.rows import load_encoded_splits
from marslora.engine.pack import Base
from marslora.engine.prepare import probe_parts
from marslora.engine.worker import run_pack
from marslora.models import loading
from marslora.testing.solo import on_peft

WAYS = {
    "marslora": "the product: packs, validation, checkpoints, opening model and rows",
    "trl": "trl.SFTTrainer, a member after the other, with validation",
    "trl_without_validation": "the same, validation left out",
    "peft": "a bare loop over PEFT and prepared batches, a member after the other, without validation",
}


@dataclass
class Study:
    """A study's calibration, and what the ways besides marslora train on."""

    packs: list[PackSpec]
    members: dict[str, MemberSpec]
    """As they ended, by id."""
    loaded: loading.LoadedModel
    base: Base
    rows: object
    train: datasets.Dataset
    validation: datasets.Dataset


def read(folder):
    """The packs of every round, and the rows as TRL reads them."""
    plans = sorted(Path(folder, "plan").glob("round-*.json"))
    packs = [PackSpec.model_validate(pack) for plan in plans for pack in json.loads(plan.read_text())]
    members = {member.id: member for pack in packs for member in pack.members}
    first = packs[0]
    loaded = loading.load(first.model)
    rows = load_encoded_splits(first.data, loaded.processor, first.cache_folder, splits=("train", "validation"))
    info = probe_parts(first.model, loaded, rows, first.cache_folder)
    base = Base(loaded.model, info, first.training, loaded.device, loaded.dtype)
    train, validation = (table(files) for files in (first.data.train, first.data.validation))
    return Study(packs, members, loaded, base, rows, train, validation.select(range(len(rows.validation))))


def table(files):
    """Rows of one question and one answer, with the picture's bytes, as a prompt and a completion."""
    rows = datasets.Dataset.from_parquet([str(file) for file in files]).map(
        lambda row: {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}, remove_columns=["messages"]
    )
    return rows.cast_column("images", datasets.List(datasets.Image()))


def with_marslora(study):
    """Every round again, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for pack in study.packs:
            failures = []
            run_pack(
                pack.model_copy(update={"checkpoint_folder": folder}),
                lambda event, failures=failures: failures.append(event) if "Failure" in type(event).__name__ else None,
            )
            assert not failures, failures


def with_peft(study):
    """Every member alone over prepared batches."""
    for member in study.members.values():
        training = study.base.training
        steps = study.rows.micro_batches(training, member.order_seed, 0, member.until_examples, member.data_examples)
        with on_peft(study.base, member) as solo:
            solo.train(steps, num_steps(study.packs[0].full_examples, training.batch_size))


class AtSteps(transformers.TrainerCallback):
    """Validation after the steps at which the study looked."""

    def __init__(self, steps):
        self.steps = set(steps)

    def on_step_end(self, _args, state, control, **_):
        control.should_evaluate = state.global_step in self.steps


def with_trl(study, *, validates):
    """Every member alone with SFTTrainer."""
    for member in study.members.values():
        sft(study, member, validates).train()
        stripped(study.base.model)


def sft(study, member, validates):
    """A trainer as TRL's documentation has it."""
    pack = study.packs[0]
    training = pack.training
    total = num_steps(pack.full_examples, training.batch_size)
    steps = num_steps(member.until_examples, training.batch_size)
    looks = [0, *(step for step in evaluation_steps(total, training.evaluations) if step <= steps)]
    arguments = trl.SFTConfig(
        output_dir=tempfile.gettempdir(),
        max_steps=steps,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=2 * training.batch_size,
        learning_rate=training.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=int(training.warmup * total),
        max_grad_norm=training.clip_norm,
        weight_decay=training.weight_decay,
        gradient_checkpointing=False,
        bf16=False,
        max_length=None,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        eval_on_start=validates,
        completion_only_loss=True,
    )
    return trl.SFTTrainer(
        model=study.base.model,
        args=arguments,
        train_dataset=study.train.select(range(member.data_examples)),
        eval_dataset=study.validation,
        processing_class=study.loaded.processor,
        peft_config=peft.LoraConfig(**study.base.lora_settings(member)),
        callbacks=[AtSteps(looks)] if validates else [],
    )


def stripped(model):
    """The model without the adapter of the run before."""
    for name, module in list(model.named_modules()):
        if isinstance(module, peft.tuners.lora.LoraLayer):
            model.set_submodule(name, module.get_base_layer())
    vars(model).pop("peft_config", None)
    model.requires_grad_(False).eval()


def timed(way, study):
    """Wall and processor seconds of the whole calibration."""
    run = {
        "marslora": with_marslora,
        "trl": lambda study: with_trl(study, validates=True),
        "trl_without_validation": lambda study: with_trl(study, validates=False),
        "peft": with_peft,
    }[way]
    started, started_cpu = time.perf_counter(), time.process_time()
    run(study)
    return time.perf_counter() - started, time.process_time() - started_cpu


def same_tokens(study):
    """Whether TRL's first rows are the tokens and answers that marslora trains on."""
    member = next(iter(study.members.values()))
    trainer = sft(study, member, validates=False)
    theirs = trainer.data_collator([dict(study.train[index]) for index in range(4)])
    ours = study.rows.train.batch(range(4))
    stripped(study.base.model)
    return all(
        sorted(theirs[name][theirs[name] != -100].tolist()) == sorted(ours[name][ours[name] != -100].tolist())
        for name in ("labels",)
    ) and int(theirs["attention_mask"].sum()) == int(ours["attention_mask"].sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="a study folder whose calibration has been done")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="with `marslora`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    study = read(arguments.study)
    assert same_tokens(study), "TRL's rows are not the study's"
    rounds = []
    for number in range(arguments.rounds):
        ways = arguments.ways[number % len(arguments.ways) :] + arguments.ways[: number % len(arguments.ways)]
        rounds.append({way: timed(way, study) for way in ways})
        print(json.dumps(rounds[-1]), flush=True)
    record = {
        "ways": WAYS,
        "rounds": arguments.rounds,
        "members": [
            {"id": m.id, "ranks": dict(m.allocation.ranks), "examples": m.until_examples}
            for m in study.members.values()
        ],
        "batch_size": study.packs[0].training.batch_size,
        "full_examples": study.packs[0].full_examples,
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, peft, trl)},
        "machine": platform.machine(),
        "results": [summary(way, rounds) for way in arguments.ways],
    }
    print(json.dumps(record["results"], indent=1))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(record, indent=1) + "\n")


def summary(way, rounds):
    """Medians over the rounds, and how many times as long as marslora it took in the same round."""
    row = {"way": way}
    for index, clock in enumerate(("wall", "cpu")):
        ratios = [found[way][index] / found["marslora"][index] for found in rounds]
        row[f"{clock}_seconds"] = round(statistics.median(found[way][index] for found in rounds), 1)
        row[f"times_marslora_by_{clock}"] = round(statistics.median(ratios), 2)
        row[f"lowest_and_highest_by_{clock}"] = [round(min(ratios), 2), round(max(ratios), 2)]
    return row


if __name__ == "__main__":
    main()
