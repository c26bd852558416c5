"""Draw the rows of a task from a seed and write them as ordinary Parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marslora.core.seeds import derive
from marslora.demo.drawing import Scenes, Split, draw_scenes, load_names
from marslora.demo.questions import QUESTIONS, Scene, Turn, get_background_name
from marslora.demo.rows import write_rows
from marslora.demo.tasks import DemoTask, find_task

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
"""Every split of a task, in the order of their sizes' arguments."""


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
        write_rows(paths[split], *draw_rows(task, split, num, seed))
    return paths


def ensure_task(name: str, folder: str | Path) -> dict[str, Path]:
    """The three files of a task in its default sizes, by split; all are written if one is missing."""
    task = find_task(name)
    paths: dict[str, Path] = {split: Path(folder) / f"{name}-{split}.parquet" for split in SPLITS}
    if all(path.is_file() for path in paths.values()):
        return paths
    return write_task(
        name, folder, num_train=task.num_train, num_validation=task.num_validation, num_test=task.num_test
    )


def make_conversations(
    scenes: Scenes, questions: Sequence[str], languages: Sequence[str], rng: np.random.Generator
) -> list[list[Turn]]:
    """One conversation per scene; if its names are not English, each question ends with their language."""
    languages_N = rng.integers(len(languages), size=len(scenes))
    conversations = []
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
        conversations.append(turns)
    return conversations


def draw_rows(task: DemoTask, split: Split, num: int, seed: int) -> tuple[list[list[Turn]], NDArray[np.uint8]]:
    """``num`` conversations of a task's split and their pictures, (N, 48, 48, 3), drawn by ``seed`` and ``split``."""
    rng = np.random.default_rng(derive(seed, "scenes", split))
    shares = np.array_split(np.arange(num), len(task.styles))
    parts = [draw_scenes(len(rows), split, rng, style=style) for style, rows in zip(task.styles, shares, strict=True)]
    conversations = [
        turns for scenes in parts for turns in make_conversations(scenes, task.questions, task.languages, rng)
    ]
    order = rng.permutation(num)
    return [conversations[n] for n in order], np.concatenate([scenes.images_NHWC for scenes in parts])[order]
