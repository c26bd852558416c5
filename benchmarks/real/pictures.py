"""Pictures with names, for alignment: clip art, cartoons and emoji, as one array and a list beside it.

Pictures of Tux Paint are none of them: they are a task of fine-tuning.
"""

from __future__ import annotations

import gzip
import html
import io
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 112
"""Width and height of a picture in pixels."""
EMOJI = ("noto", "twemoji", "fluent-emoji-flat", "emojione")
KINDS = {
    "activities": "activity", "animals & nature": "nature", "nature": "nature", "food & drink": "food", "food": "food",
    "objects": "object", "people & body": "person", "people": "person", "smileys & emotion": "face",
    "symbols": "symbol", "travel & places": "travel", "travel": "travel", "flags": "flag",
    "animals": "nature", "fruit_n_veg": "food", "jobs": "person", "body": "person", "clothes": "object",
    "construction": "object", "sport": "activity", "transport": "travel", "actions": "activity",
}  # fmt: skip
"""Categories of the sources, in common words."""
VARIANTS = re.compile(
    r"skin|(^|-)(light|medium|dark|medium-light|medium-dark)$|^(man|woman|men|women|couple|family|kiss)-.+|facing-right"
    r"|^regional|^keycap|^(input|a|b|o|ab|ng|ok|up|new|cool|free|sos|vs|on|end|soon|top|back)-?button|^japanese|^flag-for"
)
"""Emoji that repeat another one, or show letters."""
DENIED = re.compile(
    r"collection|theme|gramastar|^card$|etiquette|clipart by|aiga|unsorted|^$|stripper|nude|naked|nazi|swastika|^clip"
    r"|sexy",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Picture:
    """What is known of a picture."""

    source: str
    name: str
    kind: str
    keywords: str
    is_held: bool = False
    """Whether it is kept out of alignment; pictures of one source and name share it."""


def fit(image: Image.Image) -> np.ndarray:
    """A picture on a white square: [SIZE, SIZE, 3], bytes."""
    image = image.convert("RGBA")
    scale = 0.94 * SIZE / max(image.size)
    image = image.resize([max(1, round(scale * side)) for side in image.size], Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SIZE, SIZE), "white")
    square.alpha_composite(image, ((SIZE - image.width) // 2, (SIZE - image.height) // 2))
    return np.asarray(square.convert("RGB"))


def draw(svg: str) -> Image.Image:
    import resvg_py

    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIZE))))


SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
Source = Iterator[tuple[Picture, Callable[[], Image.Image]]]


def list_icons(unpacked: Path) -> Source:
    """Emoji in four styles, and the symbols of games."""
    for source in (*EMOJI, "game-icons"):
        folder = unpacked / source / "package"
        icons, info = (json.loads((folder / f"{name}.json").read_text()) for name in ("icons", "metadata"))
        kinds = {name: kind for kind, names in (info.get("categories") or {}).items() for name in names}
        for key, icon in icons["icons"].items():
            kind = KINDS.get(kinds.get(key, "").lower(), "")
            if VARIANTS.search(key) or (source in EMOJI and kind in ("", "flag")) or kind == "symbol":
                continue
            width, height = (icon.get(side) or icons.get(side) or 16 for side in ("width", "height"))
            body = icon["body"].replace("currentColor", "#000")
            svg = f'<svg {SPACES} viewBox="0 0 {width} {height}">{body}</svg>'
            yield Picture(source, key.replace("-", " "), kind, ""), lambda svg=svg: draw(svg)


def list_cartoons(unpacked: Path) -> Source:
    """Named cartoons of a game for children."""
    for path in sorted(unpacked.glob("pysiogame/usr/share/games/pysiogame/res/images/art4apps/*/*.jpg")):
        kind = KINDS.get(path.parent.name, path.parent.name)
        yield Picture("art4apps", path.stem.replace("_", " "), kind, ""), lambda path=path: Image.open(path)


def list_clip_art(unpacked: Path) -> Source:
    """Clip art whose SVG tells a title and keywords."""
    drawn, told = (unpacked / f"openclipart-{kind}/usr/share/openclipart/{kind}" for kind in ("png", "svg"))
    twins = {str(p.relative_to(told)).removesuffix("z").removesuffix(".svg"): p for p in told.glob("**/*.svg*")}
    for path in sorted(drawn.glob("**/*.png")):
        key = str(path.relative_to(drawn)).removesuffix(".png")
        if path.is_symlink() or key not in twins or path.stat().st_size > 1_000_000:
            continue
        if re.match(r"computer|shapes|special|unsorted|logos|decorations|buttons", key):
            continue
        title, keywords = read_titles(twins[key].read_bytes())
        if not DENIED.search(title) and keywords and not any(DENIED.search(word) for word in keywords):
            yield Picture("openclipart", title, "", ", ".join(keywords[:4])), lambda path=path: Image.open(path)


def read_titles(svg: bytes) -> tuple[str, list[str]]:
    """Title and keywords in the metadata of an SVG file, in small letters."""
    text = (gzip.decompress(svg) if svg[:2] == b"\x1f\x8b" else svg).decode("utf8", "replace")
    data = re.search(r"<rdf:RDF.*?</rdf:RDF>|<metadata.*?</metadata>", text, re.DOTALL)
    if data is None:
        return "", []
    title = re.search(r"<dc:title>(.*?)</dc:title>", data.group(), re.DOTALL)
    subject = re.search(r"<dc:subject>(.*?)</dc:subject>", data.group(), re.DOTALL)
    words = map(clean, re.findall(r"<rdf:li>(.*?)</rdf:li>", subject.group(1), re.DOTALL) if subject else [])
    return re.sub(r"[#_\d]+", " ", clean(title.group(1))).strip() if title else "", [word for word in words if word]


def clean(text: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", text)).strip().lower()


HELD = {"openclipart": 160, "art4apps": 60, "noto": 80}
"""About how many pictures of a source are held out."""


def hold_out(pictures: list[Picture], held: dict[str, int]) -> list[Picture]:
    """The pictures, some of them held out: all of a source and name, or none."""
    chosen: set[tuple[str, str]] = set()
    for source, number in held.items():
        counts = Counter(picture.name for picture in pictures if picture.source == source)
        names, taken = sorted(counts), 0
        random.Random(0).shuffle(names)
        for name in names:
            if taken >= number:
                break
            chosen.add((source, name))
            taken += counts[name]
    return [Picture(**{**asdict(p), "is_held": (p.source, p.name) in chosen}) for p in pictures]


def make_pictures(unpacked: Path, folder: Path) -> tuple[np.ndarray, list[Picture]]:
    """All pictures [N, SIZE, SIZE, 3] and what is known of them; drawn once, and kept in `folder`."""
    drawn, listed = folder / "pictures.npy", folder / "pictures.json"
    if not listed.exists():
        pixels, pictures, unreadable = [], [], 0
        seen: set[bytes] = set()
        for source in (list_cartoons, list_icons, list_clip_art):
            for picture, open_ in source(unpacked):
                try:
                    square = fit(open_())
                except Exception:  # a file of others may be broken in any way
                    unreadable += 1
                    continue
                if square.tobytes() not in seen and square.std() > 1:
                    seen.add(square.tobytes())
                    pixels.append(square)
                    pictures.append(picture)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(drawn, np.stack(pixels))
        listed.write_text(json.dumps([asdict(picture) for picture in hold_out(pictures, HELD)]))
        print(f"{len(pictures)} pictures, {unreadable} unreadable", flush=True)
    return np.load(drawn, mmap_mode="r"), [Picture(**each) for each in json.loads(listed.read_text())]
