"""Studies of a tiny model on the command line, for tests that disturb them."""

import hashlib
import json
import os
import subprocess
import sys
import time

from tests.helpers.small_postgres import PASSWORD
from tests.unit.finetune import tiny

PATIENCE_SECONDS = 300


def write_world(root):
    """A tiny model and a file of rows."""
    tiny.write_model(root / "model")
    with (root / "rows.jsonl").open("w") as file:
        for number, row in enumerate(tiny.rows(160, seed=0)):
            row["images"][0].save(root / f"{number}.png")
            file.write(json.dumps({**row, "images": [f"{number}.png"]}) + "\n")
    return root


def start(folder, study, *more):
    words = ["--model", "model", "--train", "rows.jsonl", "--ranks", "1,4", "--examples", "1024", "--lr", "3e-3"]
    return subprocess.Popen(
        [sys.executable, "-m", "marslora", "search", *words, "--study", study, *more],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, out
    return out


def outcome(folder, study):
    """What must not depend on interruptions."""
    decision = json.loads((folder / study / "decision.json").read_text())
    final = json.loads((folder / study / "final.json").read_text())
    candidates = [(c["allocation"], c["status"], c["predicted_loss"], c["p_best"]) for c in decision["candidates"]]
    return decision["chosen"], candidates, final["validation_curve"], final["validation_loss"]


def everything(folder, study):
    """What must not depend on where a study runs: its outcome and the bytes of its adapter."""
    weights = (folder / study / "final" / "adapter" / "adapter_model.safetensors").read_bytes()
    return (*outcome(folder, study), hashlib.sha256(weights).hexdigest())


def check_storage(study, is_elsewhere):
    """Check that the runs are where they should be, and that nothing in the folder has the password."""
    assert (study / "study.db").exists() != is_elsewhere
    for path in study.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path


def wait_until(is_time, process):
    """Wait for a moment in the life of a running process."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_time():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.02)


def is_calibrating(study):
    """Some members have ended, no decision yet."""
    return any(study.glob("members/*/state.json")) and not (study / "decision.json").exists()


def is_training(study):
    """The final run has written a checkpoint and is not done."""
    return (
        any(study.glob("final/checkpoints/checkpoint-*/adapter_state.safetensors"))
        and not (study / "final.json").exists()
    )
