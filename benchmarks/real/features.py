"""What the frozen tower makes of the pictures, computed once for several views of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pictures import SIZE
from PIL import Image, ImageEnhance
from torch import Tensor

MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def change(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another view of a picture: mirrored or not, moved, scaled, turned a little, its colours changed a little."""
    image = Image.fromarray(pixels)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR, fillcolor="white")
    side = int(SIZE * rng.uniform(0.75, 1.1))
    left, top = (int(rng.uniform(min(0, SIZE - side), max(0, SIZE - side) + 1)) for _ in range(2))
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, (-left, -top))
    image = square.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    for kind in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        image = kind(image).enhance(rng.uniform(0.8, 1.2))
    return np.asarray(image)


def normalise(pixels: Sequence[np.ndarray] | np.ndarray) -> Tensor:
    """Pictures as the tower takes them: [B, 3, SIZE, SIZE]."""
    x = torch.from_numpy(np.ascontiguousarray(np.stack(list(pixels)))).float() / 255
    return ((x - MEAN) / DEVIATION).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def see(tower, pixels_B: Sequence[np.ndarray] | np.ndarray) -> Tensor:
    """Patches of pictures without the class token: [B, 64, 384], bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        return tower(normalise(pixels_B)).last_hidden_state[:, 1:].bfloat16()


def make_view(tower, pixels: np.ndarray, view: int, folder: Path, batch: int = 64) -> Tensor:
    """Patches of one view of every picture: [N, 64, 384]. View 0 is the picture itself; kept in `folder`."""
    path = folder / f"view{view}.pt"
    if not path.exists():
        rng, start, seen = np.random.default_rng(view), time.perf_counter(), []
        for first in range(0, len(pixels), batch):
            rows = pixels[first : first + batch]
            seen.append(see(tower, [change(row, rng) for row in rows] if view else rows))
        torch.save(torch.cat(seen), path)
        print(f"view {view} of {len(pixels)} pictures: {time.perf_counter() - start:.0f} s", flush=True)
    return torch.load(path, mmap=True)
