"""The memory that is estimated for a pack is what the process takes."""

import subprocess
import sys
from pathlib import Path

import pytest

HELPER = "tests.helpers.real_memory"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux, which says what a process took")
@pytest.mark.parametrize(
    ("name", "members", "pieces", "dtype"),
    [
        ("llava", 2, 1, "float32"),
        ("qwen2_5_vl", 2, 1, "float32"),
        ("qwen2_audio", 2, 1, "float32"),
        ("llava", 4, 4, "bfloat16"),
        ("qwen2_5_vl", 1, 1, "bfloat16"),
    ],
)
def test_the_estimate_is_right_within_a_quarter(name, members, pieces, dtype):
    words = [sys.executable, "-m", HELPER, name, str(members), str(pieces), dtype]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    estimated, taken = map(int, done.stdout.split())
    assert 0.75 <= estimated / taken <= 1.25, f"estimated {estimated / 1e6:.0f} MB, taken {taken / 1e6:.0f} MB"
