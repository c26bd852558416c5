"""The final run in processes of its own: killed, shared out over two, and its adapter where marslora is not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from marslora.core.runs import FinalResult, ProgressEvent
from marslora.data.rows import load_encoded_splits
from marslora.finetune.callbacks import TASK
from marslora.models.loading import load
from tests.unit.finetune.tiny import distance, run, weights

pytestmark = pytest.mark.slow
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

PEFT_ALONE = """
import sys, torch
from transformers import AutoModelForImageTextToText
from peft import PeftModel
base, adapter, batch = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), adapter).eval()
batch = torch.load(batch)
with torch.no_grad():
    print(float(model(**batch).loss), float(model.merge_and_unload()(**batch).loss), "marslora" in sys.modules)
"""


def command(spec, num_processes=1):
    path = Path(spec.output_folder).with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(spec.to_json())
    if num_processes == 1:
        return [sys.executable, "-m", "marslora.finetune", str(path)]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    return [sys.executable, *launcher, "-m", "marslora.finetune", str(path)]


def test_the_adapter_needs_peft_alone(whole, tmp_path):
    result = run(whole)[-1]
    rows = load_encoded_splits(whole.data, load(whole.model).processor, whole.cache_folder).validation
    torch.save(rows.batch(range(len(rows))), tmp_path / "batch.pt")
    arguments = [whole.model.path, result.adapter_folder, str(tmp_path / "batch.pt")]
    done = subprocess.run(
        [sys.executable, "-c", PEFT_ALONE, *arguments], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    plain, merged, imported = done.stdout.split()
    assert imported == "False"
    assert float(plain) == pytest.approx(result.validation_loss, abs=1e-4)
    assert float(merged) == pytest.approx(result.validation_loss, abs=1e-4)


def test_a_killed_run_goes_on(final_spec):
    spec, twin = final_spec("killed", full_examples=320), final_spec("twin", full_examples=320)
    process = subprocess.Popen(command(spec), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    checkpoint = Path(spec.output_folder) / "checkpoints" / "checkpoint-6" / "progress.json"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists(), process.stderr.read()
    assert not (Path(spec.output_folder) / "final.json").exists()
    steps = [event for event in run(spec) if isinstance(event, ProgressEvent) and event.task == TASK]
    assert min(step.done for step in steps) > 48
    run(twin)
    assert distance(weights(twin), weights(spec)) < 1e-5


@pytest.mark.parametrize("options", [{}, {"exact": True}], ids=["approximate", "exact"])
def test_two_processes_train_what_one_does_with_mars_m(final_spec, options):
    """Each process has half of the rows of every step; clipping acts, and (exact) at both points alike."""
    training = {
        "optimizer": {"name": "mars_m", "options": {"precondition": "polar", **options}},
        "dropout": 0.0,
        "accumulation": 2,
        "learning_rate": 2e-3,
        "clip_norm": 0.05,
    }
    one, two = final_spec("one", training=training), final_spec("two", training=training)
    done = subprocess.run(command(two, 2), capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    run(one)
    assert distance(weights(one), weights(two)) < 1e-3


def test_two_processes_train_what_one_does(final_spec, no_dropout):
    spec = final_spec("two", training={"dropout": 0.0})
    done = subprocess.run(command(spec, 2), capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    results = [FinalResult.parse(event) for event in events if "adapter_folder" in event]
    assert len(results) == 1
    assert results[0].validation_loss == pytest.approx(run(no_dropout)[-1].validation_loss, abs=1e-4)
    assert distance(weights(no_dropout), weights(spec)) < 1e-3


def test_two_processes_go_on_together_and_hold_the_same_parameters(final_spec, no_dropout, tmp_path):
    spec = final_spec("two", training={"dropout": 0.0, "accumulation": 2})
    run(spec, until=16)
    script = tmp_path / "same.py"
    script.write_text(SAME_ON_ALL)
    arguments = [*command(spec, 2)[:-3], str(script), command(spec)[-1], str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert distance(weights(no_dropout), weights(spec)) < 1e-3


SAME_ON_ALL = """
import os, sys
from pathlib import Path
import torch
from marslora.core.spec import FinalSpec
from marslora.finetune import worker

kept = {}
train = worker._FinalRun._train

def keep(self, *arguments):
    train(self, *arguments)
    kept.update({n: p.detach().clone() for n, p in self.change.model.named_parameters() if p.requires_grad})

worker._FinalRun._train = keep
events = []
worker.run_final(FinalSpec.load(Path(sys.argv[1])), events.append)
rank = os.environ["RANK"]
assert bool(events) == (rank == "0"), (rank, len(events))
torch.save(kept, Path(sys.argv[2]) / f"rank{rank}.pt")
"""


def test_bad_specs_are_explained_on_one_line(final_spec, tmp_path):
    spec = final_spec("bad", start_folder=str(tmp_path / "nowhere"))
    done = subprocess.run(command(spec), capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: `start_folder`")
