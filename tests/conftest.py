"""One thread a process: tests run side by side, and sums come out in one order."""

import gc
import os
import signal

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script; tests send it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def libraries_are_no_garbage():
    """Leave what is imported out of every later collection: accelerate asks for one in each run."""
    gc.collect()
    gc.freeze()
