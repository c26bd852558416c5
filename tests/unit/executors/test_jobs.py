"""Jobs for a cluster: where they run, and what they may take there."""

import os

import pytest

from marslora.core.errors import StudyError
from marslora.core.packs import GPU_SHARE
from marslora.core.spec import FinalSpec, PackSpec, PluginSpec
from marslora.executors._jobs import Job

SEEN = []


def note(spec, emit):
    SEEN.append((spec, os.getcwd(), os.environ[GPU_SHARE]))


@pytest.fixture(autouse=True)
def nothing_seen(monkeypatch):
    SEEN.clear()
    monkeypatch.setenv(GPU_SHARE, "1.0")


def test_a_job_runs_where_its_study_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job.of(f"{__name__}:note", PluginSpec(name="x"), gpus=0.25, final_gpus=None)
    monkeypatch.chdir("/")
    job.run(lambda _: None)
    assert [(PluginSpec(name="x"), str(tmp_path), "0.25")] == SEEN


@pytest.mark.parametrize(
    ("gpus", "final_gpus", "of_pack", "of_final"),
    [(0.0, None, (0, 1), (0, 1)), (0.25, None, (0.25, 1), (1, 1)), (1, 4, (1, 1), (4, 4)), (1, 0, (1, 1), (0, 1))],
)
def test_final_runs_take_whole_gpus_each_with_a_process(gpus, final_gpus, of_pack, of_final):
    specs = PackSpec.model_construct(id="p"), FinalSpec.model_construct(output_folder="o")
    jobs = [Job.of("m:f", spec, gpus, final_gpus) for spec in specs]
    assert [(job.gpus, job.num_processes) for job in jobs] == [of_pack, of_final]


def test_a_study_that_is_not_on_this_machine_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job.of(f"{__name__}:note", PackSpec.model_construct(cache_folder="study/cache"), 0.0, None)
    with pytest.raises(StudyError, match=rf"does not have the study folder {tmp_path}/study\. .*\(--study\)"):
        job.run(lambda _: None)
    (tmp_path / "study").mkdir()
    job.run(lambda _: None)
    assert len(SEEN) == 1
