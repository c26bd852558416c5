"""A study on a Ray cluster whose nodes are killed ends like one in a single process, bit for bit."""

import signal
import subprocess

import psutil
import pytest

from marslora.core.errors import StudyError
from marslora.executors.ray import Ray
from tests.helpers.small_postgres import PASSWORD, small_postgres, storage  # noqa: F401
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
cluster_utils = pytest.importorskip("ray.cluster_utils", reason="needs the extra ray")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("ray"))


@pytest.fixture(scope="module")
def undisturbed(folder):
    """What comes of the study that nobody disturbs, by the number of packs into which its rounds are split."""
    finish(start(folder, "one-pack"))
    finish(start(folder, "two-packs", "--workers", "2"))
    return {1: everything(folder, "one-pack"), 2: everything(folder, "two-packs")}


@pytest.fixture
def cluster(monkeypatch):
    """A cluster whose head does no work, with one node that does."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def find_workers(node):
    """The processes of a node that do work for a study."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    return [child for child in raylet.children() if "_run_task" in " ".join(child.cmdline())]


@pytest.mark.parametrize(("moment", "packs"), [(is_calibrating, 1), (is_calibrating, 2), (is_training, 1)])
def test_a_node_that_is_lost_changes_nothing(folder, undisturbed, cluster, moment, packs, request):
    """With two packs, the runs are in PostgreSQL."""
    more = ("--storage", request.getfixturevalue("storage")) if packs == 2 else ()
    study = f"{moment.__name__}-{packs}"
    nodes = [*cluster.worker_nodes, *(cluster.add_node(num_cpus=1) for _ in range(packs - 1))]
    process = start(folder, study, "--executor", f"ray:num_workers={packs},address={cluster.address}", *more)
    wait_until(lambda: moment(folder / study) and all(map(find_workers, nodes)), process)
    cluster.add_node(num_cpus=1)
    cluster.remove_node(nodes[0], allow_graceful=False)
    assert not (folder / study / "final.json").exists()
    assert PASSWORD not in finish(process)
    assert everything(folder, study) == undisturbed[packs]
    check_storage(folder / study, bool(more))


def test_ctrl_c_leaves_a_checkpoint_and_nobody_at_work(folder, undisturbed, cluster):
    executor = f"ray:num_workers=1,address={cluster.address}"
    process = start(folder, "interrupted", "--executor", executor)
    wait_until(lambda: is_calibrating(folder / "interrupted"), process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130 and "To continue:" in out and "Traceback" not in out, out
    assert not find_workers(cluster.worker_nodes.pop())
    command = out[out.index("To continue:") :].splitlines()[1].replace(executor, "inline")
    subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)
    assert everything(folder, "interrupted") == undisturbed[1]


def test_the_final_run_takes_several_gpus_of_a_node(folder, undisturbed, cluster):
    """The GPUs are names here: its two processes train on the CPU."""
    study = "launched"
    node = cluster.add_node(num_cpus=2, num_gpus=2)
    executor = f"ray:num_workers=1,gpus=0,final_gpus=2,address={cluster.address}"
    process = start(folder, study, "--executor", executor)
    wait_until(lambda: is_training(folder / study) and find_workers(node), process)
    (worker,) = find_workers(node)
    launched = [child for child in worker.children(recursive=True) if "executors._jobs" in " ".join(child.cmdline())]
    assert len(launched) == 3  # torchrun and the two that it started
    worker.kill()
    assert not psutil.wait_procs(launched, timeout=20)[1]
    finish(process)
    decision, candidates, curve, loss, _ = everything(folder, study)
    assert (decision, candidates) == undisturbed[1][:2]
    assert [*curve, loss] == pytest.approx([*undisturbed[1][2], undisturbed[1][3]], rel=1e-4)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:none"])
def test_a_cluster_that_is_not_there_is_said(address):
    with pytest.raises(StudyError, match=f"no connection to the Ray cluster {address} .*ray status"):
        Ray(address=address).run("marslora.testing.executors_contract:double", [], lambda _: None)
