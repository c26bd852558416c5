"""A study that is killed at any moment ends, when it is started again, as if nothing had happened."""

import signal
import subprocess

import psutil
import pytest

from tests.helpers.tiny_studies import (
    PATIENCE_SECONDS,
    finish,
    is_calibrating,
    is_training,
    outcome,
    start,
    wait_until,
    write_world,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def undisturbed(folder):
    finish(start(folder, "undisturbed"))
    return outcome(folder, "undisturbed")


def kill_when(process, is_time):
    wait_until(is_time, process)
    process.send_signal(signal.SIGKILL)
    process.wait()


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
    wait_until(lambda: is_calibrating(folder / study), process)
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
