"""Seeded tasks for the embedded model: rows that need its vision tower, its language model, both, or neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marslora.core.errors import ConfigError
from marslora.core.seeds import derive
from marslora.demo import rows
from marslora.demo.drawing import Scenes, Split, draw_scenes, list_things, load_names
from marslora.demo.questions import QUESTIONS, Scene, Turn, get_background_name

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_TRAINING = MappingProxyType(
    {"examples": 2400, "batch_size": 16, "learning_rate": 1e-3, "alpha_over_rank": 2.0, "evaluations": 8}
)


@dataclass(frozen=True, kw_only=True)
class DemoTask:
    """One task: what it asks of the model, and settings that suit it."""

    description: str
    styles: tuple[str, ...]
    """Styles of the pictures, drawn evenly (see `scenes_draw.STYLES`)."""
    questions: tuple[str, ...] = ("list",)
    """The questions about each picture, in order (see `scenes_talk.QUESTIONS`)."""
    languages: tuple[str, ...] = ("english",)
    """Languages of the things' names, drawn evenly; the question names any other than English."""
    num_train: int = 2400
    num_validation: int = 128
    num_test: int = 384
    training: Mapping[str, Any] = field(default_factory=lambda: _TRAINING)
    """Fields of `TrainingSpec` with which a full run of the task is cheap and learns."""
    ranks: tuple[int, ...] = (1, 4, 16, 64)


TASKS: Mapping[str, DemoTask] = MappingProxyType(
    {
        "vision": DemoTask(
            description="Known things with known names in two new styles: negatives and exchanged colours.",
            styles=("negative", "recoloured"),
        ),
        "language": DemoTask(
            description="Known pictures, every thing named in two new languages.",
            styles=("plain",),
            languages=("french", "german"),
        ),
        "both": DemoTask(
            description="Things in two new styles, named in English and, in a third of the rows, in French.",
            styles=("negative", "recoloured"),
            languages=("english", "english", "french"),
        ),
        "small": DemoTask(
            description="As `both` with few rows, seen many times over: too much rank learns them by heart.",
            styles=("negative", "recoloured"),
            languages=("english", "english", "french"),
            num_train=128,
        ),
        "null": DemoTask(
            description="A question it knows and one that nobody can answer: every rank is enough.",
            styles=("plain",),
            questions=("background", "rain"),
            num_train=1600,
            training=MappingProxyType({**_TRAINING, "examples": 1600}),
        ),
    }
)


def make_conversations(
    scenes: Scenes, questions: Sequence[str], languages: Sequence[str], rng: np.random.Generator
) -> list[list[Turn]]:
    """One conversation per scene; where the names are not English the question ends with their language."""
    languages_N = rng.integers(len(languages), size=len(scenes))
    talks = []
    for n in range(len(scenes)):
        language = languages[languages_N[n]]
        scene = Scene(
            tuple(scenes.cells_NC[n].tolist()),
            get_background_name(int(scenes.backgrounds_N[n])),
            load_names()[language],
            rng,
        )
        turns = [QUESTIONS[question](scene) for question in questions]
        if language != "english":
            turns = [(f"{question} {language}", answer) for question, answer in turns]
        talks.append(turns)
    return talks


def draw_rows(task: DemoTask, split: Split, num: int, seed: int) -> tuple[list[list[Turn]], NDArray[np.uint8]]:
    """``num`` conversations of a task's split and their pictures, (N, 48, 48, 3)."""
    rng = np.random.default_rng(derive(seed, "scenes", split))
    share = np.array_split(np.arange(num), len(task.styles))
    parts = [draw_scenes(len(rows), split, rng, style=style) for style, rows in zip(task.styles, share, strict=True)]
    talks = [turns for scenes in parts for turns in make_conversations(scenes, task.questions, task.languages, rng)]
    order = rng.permutation(num)
    return [talks[n] for n in order], np.concatenate([scenes.images_NHWC for scenes in parts])[order]


def find_task(name: str) -> DemoTask:
    """The task called ``name``. Raises `ConfigError` where there is none."""
    if name not in TASKS:
        raise ConfigError(f"`{name}` is no embedded task. It must be one of {list(TASKS)}.")
    return TASKS[name]


def write_task(
    name: str, folder: str | Path, *, num_train: int, num_validation: int, num_test: int, seed: int = 0
) -> dict[str, Path]:
    """Write a task's three splits as parquet files into ``folder``; returns their paths by split.

    The same arguments give the same rows; a split's rows do not depend on the other splits' sizes.
    """
    task = find_task(name)
    paths: dict[str, Path] = {}
    for split, num in zip(SPLITS, (num_train, num_validation, num_test), strict=True):
        paths[split] = Path(folder) / f"{name}-{split}.parquet"
        rows.write_rows(paths[split], *draw_rows(task, split, num, seed))
    return paths


def ensure_task(name: str, folder: str | Path) -> dict[str, Path]:
    """The three files of a task in its default sizes; written where one of them is missing."""
    task = find_task(name)
    paths: dict[str, Path] = {split: Path(folder) / f"{name}-{split}.parquet" for split in SPLITS}
    if all(path.is_file() for path in paths.values()):
        return paths
    return write_task(
        name, folder, num_train=task.num_train, num_validation=task.num_validation, num_test=task.num_test
    )


def all_texts() -> list[str]:
    """Every name in every language: what the embedded tokenizer and `ask_repeat` questions are made of."""
    return sorted({name for names in load_names().values() for name in names} | set(list_things()))
