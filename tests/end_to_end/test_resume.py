"""A study that is killed at any moment ends, when it is started again, as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.unit.finetune import tiny

pytestmark = pytest.mark.slow
PATIENCE_SECONDS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model and a file of rows."""
    root = tmp_path_factory.mktemp("resume")
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


@pytest.fixture(scope="module")
def undisturbed(folder):
    finish(start(folder, "undisturbed"))
    return outcome(folder, "undisturbed")


def kill_when(process, is_time):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_time():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def is_calibrating(study):
    """Some members have ended, no decision yet."""
    return any(study.glob("members/*/state.json")) and not (study / "decision.json").exists()


def is_training(study):
    """The final run has written a checkpoint and is not done."""
    return (
        any(study.glob("final/checkpoints/checkpoint-*/adapter_state.safetensors"))
        and not (study / "final.json").exists()
    )


@pytest.mark.parametrize("moment", [is_calibrating, is_training])
def test_kill_nine_changes_nothing(folder, undisturbed, moment):
    study = moment.__name__
    process = start(folder, study)
    kill_when(process, lambda: moment(folder / study))
    assert not (folder / study / "final.json").exists()
    finish(start(folder, study))
    assert outcome(folder, study) == undisturbed


@pytest.mark.parametrize("more", [(), ("--workers", "2")])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(folder, undisturbed, number, code, more):
    study = f"interrupted-{code}{''.join(more)}"
    process = start(folder, study, *more)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_calibrating(folder / study):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == code, out
    assert "Traceback" not in out
    assert "To continue:" in out and "marslora search --model model" in out
    assert not psutil.wait_procs(children, timeout=20)[1]
    command = out[out.index("To continue:") :].splitlines()[1]
    subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)  # as a user pastes it
    chosen, candidates, curve, loss = outcome(folder, study)
    assert (chosen, candidates) == undisturbed[:2]
    rounding = 1e-6 if more else 0.0  # in another process sums over a batch may be rounded differently
    assert [*curve, loss] == pytest.approx([*undisturbed[2], undisturbed[3]], rel=rounding, abs=0)
