"""Pictures and rows that the tests of this package share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image


def picture(seed: int = 0, width: int = 48, height: int = 48) -> Image.Image:
    """Noise that no two seeds share."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def row(question: str, answer: str, *images: object) -> dict[str, object]:
    """One question and its answer, the pictures in front."""
    question_parts = [{"type": "image"}] * len(images) + [{"type": "text", "text": question}]
    return {
        "messages": [{"role": "user", "content": question_parts}, {"role": "assistant", "content": answer}],
        "images": list(images),
    }


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with pictures 0.png to 9.png."""
    for seed in range(10):
        picture(seed).save(tmp_path / f"{seed}.png")
    return tmp_path


def write_lines(path: Path, rows: list[object]) -> str:
    """Rows as JSONL; the path as text."""
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def tone(path: Path, seconds: float = 0.5, frequency: float = 440, rate: int = 8000, channels: int = 1) -> Path:
    """A sound file with one tone."""
    times_T = np.arange(round(seconds * rate)) / rate
    samples_T = 0.5 * np.sin(2 * np.pi * frequency * times_T)
    soundfile.write(path, np.stack([samples_T] * channels, axis=1), rate)
    return path
