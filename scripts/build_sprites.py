"""Draw the sprites of the demo's tasks once and keep them as ``src/marslora/demo/assets/sprites.npz``.

Needs the Noto Color Emoji font (Debian: ``fonts-noto-color-emoji``) and scikit-learn (the UCI handwritten digits), so
that users of the package need neither. Run: ``python scripts/build_sprites.py [FONT]``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

ASSETS = Path(__file__).parents[1] / "src/marslora/demo/assets"
FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
"""Where Debian's package puts the font."""
FONT_SIZE = 109
"""The only size of which the font has bitmaps."""
SPRITE_PIXELS = 20
"""Height and width of a sprite, as `marslora.demo.drawing.SPRITE_PIXELS`."""


def draw_emoji_sprite(emoji: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """One emoji, cropped to its ink and fitted into a transparent square: (20, 20, 4), uint8."""
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((10, 10), emoji, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise SystemExit(f"The font has no picture of {emoji!r} (U+{ord(emoji[0]):X}). Name a newer Noto Color Emoji.")
    ink = canvas.crop(box)
    square = Image.new("RGBA", (max(ink.size), max(ink.size)))
    square.paste(ink, ((square.width - ink.width) // 2, (square.height - ink.height) // 2))
    return np.asarray(square.resize((SPRITE_PIXELS, SPRITE_PIXELS), Image.Resampling.LANCZOS))


def main() -> None:
    """Write the sprites of all emoji and digits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("font", nargs="?", default=FONT, help="the file of the font Noto Color Emoji")
    font = ImageFont.truetype(parser.parse_args().font, FONT_SIZE)
    lines = (ASSETS / "words.tsv").read_text(encoding="utf-8").splitlines()[1:]
    emoji_NHWC = np.stack([draw_emoji_sprite(line.split("\t")[0], font) for line in lines])
    digits = load_digits()
    path = ASSETS / "sprites.npz"
    np.savez_compressed(
        path,
        emoji=emoji_NHWC,
        digit_images=digits.images.astype(np.uint8),
        digit_labels=digits.target.astype(np.uint8),
    )
    print(f"{path}: {len(emoji_NHWC)} emoji, {len(digits.images)} digits, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
