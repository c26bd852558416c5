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
from tests.helpers.exactness import EXACT, assert_exact
from tests.unit.finetune.tiny import distance, run, weights

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}
TWO_PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

PEFT_ALONE = """
import sys, torch
from transformers import AutoModelForImageTextToText
from peft import PeftModel
from tests.helpers.exactness import keep_float64
base, adapter, batch = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base).double(), adapter).eval()
batch = torch.load(batch)
with torch.no_grad(), keep_float64():
    print(float(model(**batch).loss), float(model.merge_and_unload()(**batch).loss), "marslora" in sys.modules)
"""


def written(spec):
    """The file that holds a spec for processes of its own."""
    path = Path(spec.output_folder).with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(spec.to_json())
    return str(path)


def command(spec):
    return [sys.executable, "-m", "marslora.finetune", written(spec)]


def run_on_two(spec, world, *program):
    """Run a float64 spec, or a program that is given its model and its file, in two processes."""
    arguments = [*(program or ("-m", "tests.helpers.float64_run")), str(world / "model"), written(spec)]
    done = subprocess.run([*TWO_PROCESSES, *arguments], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done


def test_the_adapter_needs_peft_alone(world, no_dropout, tmp_path):
    spec, result = no_dropout, run(no_dropout)[-1]
    rows = load_encoded_splits(spec.data, load(spec.model).processor, spec.cache_folder).validation
    torch.save(rows.batch(range(len(rows))), tmp_path / "batch.pt")
    arguments = [str(world / "model"), result.adapter_folder, str(tmp_path / "batch.pt")]
    done = subprocess.run(
        [sys.executable, "-c", PEFT_ALONE, *arguments], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    plain, merged, imported = done.stdout.split()
    assert imported == "False"
    assert float(plain) == pytest.approx(result.validation_loss, rel=EXACT)
    assert float(merged) == pytest.approx(result.validation_loss, rel=EXACT)


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
    assert distance(weights(twin), weights(spec)) == 0


@pytest.mark.parametrize("options", [{}, {"exact": True}], ids=["approximate", "exact"])
def test_two_processes_train_what_one_does_with_mars_m(world, exact_spec, options):
    """Each process has half of the rows of every step; clipping acts, and (exact) at both points alike."""
    training = {
        "optimizer": {"name": "mars_m", "options": {"precondition": "polar", **options}},
        "dropout": 0.0,
        "accumulation": 2,
        "learning_rate": 2e-3,
        "clip_norm": 0.05,
    }
    one, two = exact_spec("one", training=training), exact_spec("two", training=training)
    run_on_two(two, world)
    run(one)
    assert_exact(weights(two), weights(one))


def test_two_processes_train_what_one_does(world, exact_spec, no_dropout):
    spec = exact_spec("two", training={"dropout": 0.0})
    done = run_on_two(spec, world)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    results = [FinalResult.parse(event) for event in events if "adapter_folder" in event]
    assert len(results) == 1
    assert results[0].validation_loss == pytest.approx(run(no_dropout)[-1].validation_loss, rel=EXACT)
    assert_exact(weights(spec), weights(no_dropout))


def test_two_processes_go_on_together_and_hold_the_same_parameters(world, exact_spec, no_dropout, tmp_path):
    spec = exact_spec("two", training={"dropout": 0.0, "accumulation": 2})
    run(spec, until=16)
    script = tmp_path / "same.py"
    script.write_text(SAME_ON_ALL)
    run_on_two(spec, world, str(script))
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_exact(weights(spec), weights(no_dropout))


SAME_ON_ALL = """
import os, sys
from pathlib import Path
import torch
from marslora.core.spec import FinalSpec
from marslora.finetune import worker
from tests.helpers.exactness import keep_float64
from tests.unit.finetune.tiny import register_float64

kept = {}
train = worker._FinalRun._train

def keep(self, *arguments):
    train(self, *arguments)
    kept.update({n: p.detach().clone() for n, p in self.change.model.named_parameters() if p.requires_grad})

worker._FinalRun._train = keep
events = []
with keep_float64():
    register_float64(Path(sys.argv[1]))
    worker.run_final(FinalSpec.load(spec := Path(sys.argv[2])), events.append)
rank = os.environ["RANK"]
assert bool(events) == (rank == "0"), (rank, len(events))
torch.save(kept, spec.parent / f"rank{rank}.pt")
"""


def test_bad_specs_are_explained_on_one_line(final_spec, tmp_path):
    spec = final_spec("bad", start_folder=str(tmp_path / "nowhere"))
    done = subprocess.run(command(spec), capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: `start_folder`")
