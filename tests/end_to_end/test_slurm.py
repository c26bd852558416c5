"""A study in Slurm's jobs that are killed, preempted or left behind ends like one in a single process, bit for bit."""

import json
import signal
import subprocess

import psutil
import pytest

from tests.helpers.small_postgres import PASSWORD, small_postgres, storage  # noqa: F401
from tests.helpers.small_slurm import small_slurm  # noqa: F401
from tests.helpers.tiny_studies import (
    PATIENCE_SECONDS,
    check_storage,
    everything,
    finish,
    is_calibrating,
    is_training,
    start,
    wait_until,
    write_world,
)

pytestmark = pytest.mark.slow
pytest.importorskip("submitit", reason="needs the extra slurm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(folder):
    """What comes of the study that nobody disturbs, by the number of packs into which its rounds are split."""
    finish(start(folder, "one-pack"))
    finish(start(folder, "two-packs", "--workers", "2"))
    return {1: everything(folder, "one-pack"), 2: everything(folder, "two-packs")}


def find_jobs(study):
    """The processes in which jobs of a study do their work."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "submitit.core._submit" in words and any(word.startswith(str(study)) for word in words):
            found.append(process)
    return [each for each in found if "srun" not in each.info["cmdline"][0]]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR2])
@pytest.mark.parametrize("moment", [is_calibrating, is_training])
def test_a_job_that_is_killed_or_preempted_goes_on(folder, undisturbed, moment, number):
    study = folder / f"{moment.__name__}-{number.name}"
    process = start(folder, study.name, "--executor", "slurm:cluster=local,num_workers=1,gpus=0")
    wait_until(lambda: moment(study) and find_jobs(study), process)
    (job,) = find_jobs(study)
    job.send_signal(number)
    assert not psutil.wait_procs([job], timeout=30)[1]
    assert not (study / "final.json").exists()
    finish(process)
    assert everything(folder, study.name) == undisturbed[1]


@pytest.mark.usefixtures("small_slurm")
@pytest.mark.parametrize(("moment", "packs"), [(is_calibrating, 2), (is_training, 1)])
def test_jobs_that_slurm_preempts_are_queued_again(folder, undisturbed, moment, packs, request):
    """With two packs, the runs are in PostgreSQL."""
    more = ("--storage", request.getfixturevalue("storage")) if packs == 2 else ()
    study = folder / f"preempted-{packs}"
    process = start(folder, study.name, "--executor", f"slurm:num_workers={packs},gpus=0,cpus=1,partition=low", *more)
    wait_until(lambda: moment(study) and len(find_jobs(study)) == packs, process)
    jobs = find_jobs(study)
    subprocess.run(["sbatch", "--partition=high", "--exclusive", "--wrap=sleep 1"], check=True, cwd=study)
    assert not psutil.wait_procs(jobs, timeout=60)[1]
    assert not (study / "final.json").exists()
    assert PASSWORD not in finish(process)
    assert everything(folder, study.name) == undisturbed[packs]
    check_storage(study, bool(more))


@pytest.mark.usefixtures("small_slurm")
def test_jobs_of_a_driver_that_was_killed_are_cancelled(folder, undisturbed):
    study = folder / "left"
    executor = ("--executor", "slurm:num_workers=1,gpus=0,cpus=1")
    process = start(folder, study.name, *executor)
    wait_until(lambda: is_calibrating(study) and find_jobs(study), process)
    left = find_jobs(study)
    process.kill()
    process.wait()
    assert json.loads((study / "slurm" / "running.json").read_text())
    again = start(folder, study.name, *executor)
    assert not psutil.wait_procs(left, timeout=PATIENCE_SECONDS)[1]
    finish(again)
    assert everything(folder, study.name) == undisturbed[1]
    assert json.loads((study / "slurm" / "running.json").read_text()) == []


@pytest.mark.usefixtures("small_slurm")
def test_ctrl_c_cancels_the_jobs(folder):
    study = folder / "interrupted"
    process = start(folder, study.name, "--executor", "slurm:num_workers=1,gpus=0,cpus=1")
    wait_until(lambda: is_calibrating(study) and find_jobs(study), process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130 and "To continue:" in out and "Traceback" not in out, out
    assert not find_jobs(study)


@pytest.mark.usefixtures("small_slurm")
def test_options_that_slurm_refuses_are_said(folder):
    process = start(folder, "refused", "--executor", "slurm:gpus=0,partition=nowhere")
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2 and "Traceback" not in out, out
    assert "Slurm does not take the jobs" in out and "invalid partition" in out.lower(), out
