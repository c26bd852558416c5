"""A Slurm of one node with two CPUs, in which jobs of the partition `high` preempt those of `low`."""

import os
import shutil
import socket
import subprocess
import time

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmctldPort={control_port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=15
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def small_slurm(tmp_path_factory):
    """Import it into a module of tests that submit jobs."""
    if os.geteuid() or any(shutil.which(program) is None for program in PROGRAMS):
        pytest.skip("needs root, and Debian's packages munge, slurmctld, slurmd and slurm-client")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    configuration, key = folder / "slurm.conf", folder / "munge.key"
    host = socket.gethostname().partition(".")[0]
    configuration.write_text(
        CONFIGURATION.format(folder=folder, host=host, control_port=free_port(), node_port=free_port())
    )
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = {"key-file": key, "socket": folder / "munge.sock", "seed-file": folder / "seed"}
    files |= {f"{kind}-file": folder / f"munged.{kind}" for kind in ("pid", "log")}
    munged = ["munged", "--force", "--foreground", *(f"--{kind}={path}" for kind, path in files.items())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(configuration))
        commands = (munged, ["slurmctld", "-D"], ["slurmd", "-D"])
        processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
        try:
            wait_for_node()
            yield
        finally:
            subprocess.run(["scancel", "--me"], check=False)
            for process in reversed(processes):
                process.terminate()
                process.wait(timeout=30)


def wait_for_node():
    deadline = time.monotonic() + 30
    while True:
        done = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True)
        if "idle" in done.stdout:
            return
        assert time.monotonic() < deadline, done
        time.sleep(0.2)
