"""Recognise that memory ran out, on any device, and say what takes less. Without torch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from marslora.core.errors import OutOfMemoryError
from marslora.core.training import TrainingSettings

MESSAGES = re.compile(
    "out of memory|not enough memory|can(no|')t allocate memory|could not allocate|bad_alloc|alloc_failed|"
    "could not create a (primitive|memory object)(?! desc)|insufficient memory|unable to allocate",
    re.IGNORECASE,
)
"""What errors say without having a class of their own: torch's CPU allocator on Linux and Windows, CUDA, cuBLAS and
cuDNN, oneDNN ("could not create a primitive": its scratchpad), mmap and NumPy."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, means that memory ran out, on a device or in this process."""
    while error is not None:
        names = {each.__name__ for each in type(error).__mro__}
        if names & {"MemoryError", "OutOfMemoryError"}:
            return True
        if names & {"RuntimeError", "OSError"} and MESSAGES.search(str(error)):
            return True
        error = error.__cause__
    return False


def advise(training: TrainingSettings) -> str:
    """What a user can change, in one sentence, so that training takes less memory."""
    rows = max(1, training.batch_size // training.accumulation)
    ways = []
    if rows > 1:
        ways.append(f"--accumulation {2 * training.accumulation} (half of the {rows} rows at a time, the same result)")
    if not training.gradient_checkpointing:
        ways.append("--gradient-checkpointing")
    ways += ["smaller rows (--max-pixels, --max-length)", "smaller --ranks", "--quantize", "another --device"]
    return f"What takes less: {', '.join(ways[:-1])} or {ways[-1]}."


@contextlib.contextmanager
def explain_out_of_memory(what: str, training: TrainingSettings | None = None) -> Iterator[None]:
    """Turn an error in the block that means that memory ran out into `OutOfMemoryError`, which says what takes less."""
    try:
        yield
    except OutOfMemoryError:
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise describe_shortage(what, error, "" if training is None else advise(training)) from error


def describe_shortage(what: str, error: BaseException, advice: str) -> OutOfMemoryError:
    """The error for memory that ran out while ``what`` was done."""
    said = " ".join(str(error).split())[:160] or type(error).__name__
    advice = advice or "Use a machine or a device with more, or let other programs end."
    return OutOfMemoryError(f"memory ran out while {what} ({said}). {advice}")
