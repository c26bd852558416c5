"""The tasks of the embedded model: rows that need its vision tower, its language model, both, or neither.

Nothing is drawn here, so that the command line can list the tasks without loading NumPy: see `task_files`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from marslora.core.errors import ConfigError

_TRAINING = MappingProxyType(
    {"examples": 2400, "batch_size": 16, "learning_rate": 1e-3, "alpha_over_rank": 2.0, "evaluations": 8}
)
"""Set by hand so that every task is learned in one pass over its rows, in minutes on two CPU cores. Batches of 8 took
twice the time for the same examples (dev/LOG.md, 2026-11-23)."""


@dataclass(frozen=True, kw_only=True)
class DemoTask:
    """One task: what it asks of the model, how many rows it has, and settings that suit it."""

    description: str
    """What has to be learned, in a sentence; shown by ``marslora demo --help``."""
    styles: tuple[str, ...]
    """Styles of the pictures, drawn evenly (names of `drawing.STYLES`)."""
    questions: tuple[str, ...] = ("list",)
    """The questions about each picture, in order (names of `questions.QUESTIONS`)."""
    languages: tuple[str, ...] = ("english",)
    """Languages of the things' names, drawn evenly; the question names any other than English."""
    num_train: int = 2400
    num_validation: int = 128
    num_test: int = 384
    """Rows of each split unless `task_files.write_task` is told otherwise; set by hand."""
    training: Mapping[str, Any] = field(default_factory=lambda: _TRAINING)
    """Fields of `TrainingSpec` with which a full run of the task is cheap and learns. A search leaves out the learning
    rate and finds its own."""
    ranks: tuple[int, ...] = (1, 4, 16, 64)
    """The ranks of a part in the tables of finished runs. The model's matrices are 96 and 128 wide, so 64 is nearly
    unrestricted."""


TASKS: Mapping[str, DemoTask] = MappingProxyType(
    {
        "vision": DemoTask(
            description="Known things with known names in two new styles, negatives and exchanged colours.",
            styles=("negative", "recoloured"),
        ),
        "language": DemoTask(
            description="Known pictures, with every thing named in two new languages.",
            styles=("plain",),
            languages=("french", "german"),
        ),
        "both": DemoTask(
            description="Things in two new styles, named in English and, in a third of the rows, in French.",
            styles=("negative", "recoloured"),
            languages=("english", "english", "french"),
        ),
        "small": DemoTask(
            description="Like `both`, but with few rows that are seen many times: too high a rank memorises them.",
            styles=("negative", "recoloured"),
            languages=("english", "english", "french"),
            num_train=128,
        ),
        "null": DemoTask(
            description="One question that it knows and one that has no answer: every rank is enough.",
            styles=("plain",),
            questions=("background", "rain"),
            num_train=1600,
            training=MappingProxyType({**_TRAINING, "examples": 1600}),
        ),
    }
)


def find_task(name: str) -> DemoTask:
    """The task called ``name``. Raises `ConfigError` if there is none."""
    if name not in TASKS:
        raise ConfigError(f"The demo has no task `{name}`. Name one of {list(TASKS)}.")
    return TASKS[name]
