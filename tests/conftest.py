"""One thread a process: tests run side by side, and sums come out in one order."""

import gc
import os

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True, scope="module")
def libraries_are_no_garbage():
    """Leave what is imported out of every later collection: accelerate asks for one in each run."""
    gc.collect()
    gc.freeze()
