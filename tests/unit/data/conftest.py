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


def film(path: Path, num_frames: int = 12, fps: int = 6, size: tuple[int, int] = (64, 48), blank: bool = False) -> Path:
    """A video whose frames get brighter on a pattern of stripes; a blank one is grey."""
    import av

    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(num_frames):
            pixels = np.full((height, width, 3), 100, dtype=np.uint8)
            if not blank:
                pixels[:, : width // 2] = 20 + 200 * number // num_frames
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
