"""Draw the pictures of the demo: emoji and handwritten digits on a 2x2 grid of 48 x 48 pixels, in several styles.

A *scene* says which thing is in each of four cells, and on which background. Each split shows the digits of different
people, so no test picture is a training picture. A *style* changes a whole picture in a way that the model has never
seen, which gives the vision tower something to learn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "validation", "test"]

IMAGE_PIXELS = 48
"""Height and width of a picture: small enough for a CPU, large enough for four things."""
CELL_PIXELS = 24
"""Height and width of a cell, of which a picture has 2 x 2."""
SPRITE_PIXELS = 20
"""Height and width of a thing; it may be anywhere in its cell."""
EMPTY = -1
"""What `Scenes.cells_NC` holds for an empty cell."""
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (240, 240, 240),
    "black": (20, 20, 20),
    "red": (205, 70, 70),
    "green": (90, 190, 100),
    "blue": (80, 110, 215),
    "yellow": (235, 215, 95),
}
"""The background colours (red, green, blue), by name."""
PLACES = ("top left", "top right", "bottom left", "bottom right")
"""The names of the four cells."""
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The names of the digits, which are things too."""
_DIGIT_SHARES: dict[Split, tuple[float, float]] = {"train": (0, 0.7), "validation": (0.7, 0.8), "test": (0.8, 1)}
"""Which handwritten instances of each digit a split may show, as (from, to) shares of all."""
_TILE = 4
"""Height and width of a mosaic's tile: a patch of the model's tower (12 pixels) holds 3 x 3 tiles."""


@dataclass(frozen=True)
class Scenes:
    """N scenes: which thing is in each of the four cells, on which background, and the picture of it."""

    cells_NC: NDArray[np.int64]
    """Index into `list_things`, or `EMPTY`; C = 4 cells in the order of `PLACES`."""
    backgrounds_N: NDArray[np.int64]
    images_NHWC: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.cells_NC)


@cache
def load_names() -> dict[str, tuple[str, ...]]:
    """The names of all things by language (english, french, german, spanish); digits come last, with English names."""
    text = (files("marslora.demo") / "assets" / "words.tsv").read_text(encoding="utf-8")
    head, *rows = (line.split("\t") for line in text.splitlines())
    return {
        language: (*column, *DIGITS)
        for language, column in zip(head[1:], list(zip(*rows, strict=True))[1:], strict=True)
    }


def list_things() -> tuple[str, ...]:
    """The English names of everything that can be in a cell; their order numbers the things."""
    return load_names()["english"]


@cache
def _load_sprites() -> tuple[NDArray[np.float32], tuple[NDArray[np.float32], ...]]:
    """Emoji as (N, 20, 20, 4) in [0, 1], and per digit its handwritten instances as (n, 20, 20) ink shares."""
    with (files("marslora.demo") / "assets" / "sprites.npz").open("rb") as file, np.load(file) as arrays:
        emoji_NHWC = arrays["emoji"].astype(np.float32) / 255
        ink_NHW, labels_N = arrays["digit_images"].astype(np.float32) / 16, arrays["digit_labels"]
    at = np.clip((np.arange(SPRITE_PIXELS) + 0.5) * 8 / SPRITE_PIXELS - 0.5, 0, 7)
    low, share = np.floor(at).astype(int), at - np.floor(at)
    weights_SI = np.zeros((SPRITE_PIXELS, 8), np.float32)  # bilinear: each of 20 pixels is a mix of two of 8
    np.add.at(weights_SI, (np.arange(SPRITE_PIXELS), low), 1 - share)
    np.add.at(weights_SI, (np.arange(SPRITE_PIXELS), np.minimum(low + 1, 7)), share)
    large_NSS = np.einsum("ai,nij,bj->nab", weights_SI, ink_NHW, weights_SI)
    return emoji_NHWC, tuple(large_NSS[labels_N == digit] for digit in range(10))


def _pick_sprite(thing: int, split: Split, ink: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """One (20, 20, 4) sprite; a digit's handwriting comes from the split's own share of the instances."""
    emoji_NHWC, digits = _load_sprites()
    if thing < len(emoji_NHWC):
        emoji: NDArray[np.float32] = emoji_NHWC[thing]
        return emoji
    instances = digits[thing - len(emoji_NHWC)]
    low, high = (int(share * len(instances)) for share in _DIGIT_SHARES[split])
    alpha_SS = instances[rng.integers(low, high)]
    return np.concatenate([np.broadcast_to(ink, (SPRITE_PIXELS, SPRITE_PIXELS, 3)), alpha_SS[..., None]], axis=-1)


def draw_scenes(
    num: int,
    split: Split,
    rng: np.random.Generator,
    *,
    things_used: NDArray[np.int64] | None = None,
    style: str = "plain",
) -> Scenes:
    """Draw ``num`` scenes of one to four things in ``style`` (a name of `STYLES`), with the split's own handwriting.

    ``things_used`` are the indices of the things that may be shown; None: all.
    """
    used = np.arange(len(list_things())) if things_used is None else things_used
    cells_NC = rng.choice(used, (num, 4))
    cells_NC[rng.random((num, 4)) < 0.2] = EMPTY
    without_thing = np.flatnonzero((cells_NC == EMPTY).all(axis=1))
    cells_NC[without_thing, rng.integers(4, size=len(without_thing))] = rng.choice(used, len(without_thing))
    backgrounds_N = rng.integers(len(BACKGROUNDS), size=num)
    colours = np.array(list(BACKGROUNDS.values()), np.float32)
    canvas_NHWC = np.broadcast_to(colours[backgrounds_N][:, None, None], (num, IMAGE_PIXELS, IMAGE_PIXELS, 3)).copy()
    jitter_NC2 = rng.integers(CELL_PIXELS - SPRITE_PIXELS + 1, size=(num, 4, 2))
    bright_NC = rng.uniform(0.8, 1.0, (num, 4))
    inks_NC3 = rng.uniform(0, 1, (num, 4, 3)).astype(np.float32)
    for n, c in zip(*np.nonzero(cells_NC != EMPTY), strict=True):
        ink = 1 - np.round(colours[backgrounds_N[n]].mean() / 255) + (inks_NC3[n, c] - 0.5) * 0.4
        sprite = _pick_sprite(int(cells_NC[n, c]), split, np.clip(ink, 0, 1).astype(np.float32), rng)
        y, x = jitter_NC2[n, c] + (CELL_PIXELS * (c // 2), CELL_PIXELS * (c % 2))
        window = canvas_NHWC[n, y : y + SPRITE_PIXELS, x : x + SPRITE_PIXELS]
        window += (sprite[..., :3] * (255 * bright_NC[n, c]) - window) * sprite[..., 3:]
    return Scenes(cells_NC, backgrounds_N, STYLES[style](canvas_NHWC).clip(0, 255).astype(np.uint8))


def _draw_outline(x_NHWC: NDArray[np.float32]) -> NDArray[np.float32]:
    """A chalk drawing: the length of the gradient of the brightness, in grey."""
    dy, dx = np.gradient(x_NHWC.mean(axis=-1), axis=(1, 2))
    return np.repeat(np.minimum(255, 2.5 * np.hypot(dy, dx))[..., None], 3, axis=-1)


def _shuffle_tiles(x_NHWC: NDArray[np.float32]) -> NDArray[np.float32]:
    """A shuffled mosaic: the 4x4-pixel tiles of every 12x12 patch change places, in the same way in all patches."""
    num, size = len(x_NHWC), IMAGE_PIXELS // 12
    x = x_NHWC.reshape(num, size, 3, _TILE, size, 3, _TILE, 3).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    x = x.reshape(num, size, size, 9, _TILE, _TILE, 3)[:, :, :, [5, 0, 7, 2, 8, 3, 6, 1, 4]]
    x = x.reshape(num, size, size, 3, 3, _TILE, _TILE, 3).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(x_NHWC.shape)


STYLES: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "plain": lambda x: x,
    "negative": lambda x: 255 - x,
    "turned": lambda x: np.rot90(x, axes=(1, 2)),
    "upside down": lambda x: x[:, ::-1],
    "recoloured": lambda x: x[..., [1, 2, 0]],
    "turned negative": lambda x: 255 - np.rot90(x, axes=(1, 2)),
    "outline": _draw_outline,
    "tiles": _shuffle_tiles,
}
"""What a style does to whole pictures (N, H, W, 3) with values from 0 to 255, by name."""
