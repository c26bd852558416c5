"""The files of the corpus, made when needed: pictures, sounds and files of rows, and what is right for each."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
from PIL import Image, ImageDraw
from pyarrow import parquet

RAMP = np.linspace(0, 1, 64 * 48).reshape(48, 64)
WAVE = 0.5 * np.sin(np.arange(4000) / 3)
ALPHA, DEEP, FRAMES = "pictures with alpha", "pictures of 16 bits", "pictures with several frames"


def write_media(folder: Path) -> None:
    """The pictures, the sound and the text that the corpus' rows name."""
    for seed, name in enumerate(("a.png", "b.png")):
        values = np.random.default_rng(seed).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / name)
    soundfile.write(folder / "tone.wav", WAVE, 8000)
    (folder / "text.txt").write_text("no picture")


def picture(kind: str, image: Image.Image, **options: Any) -> bytes:
    """The picture as a file of one kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sound(kind: str, samples: Any, subtype: str | None = None, rate: int = 8000) -> bytes:
    """The samples as a file of one kind."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def written(mode: str, ink: Any, paper: Any) -> Image.Image:
    """A word on paper."""
    image = Image.new(mode, (64, 48), paper)
    ImageDraw.Draw(image).text((4, 4), "word", fill=ink)
    return image


def colors() -> Image.Image:
    """A picture of many colours."""
    return Image.fromarray(np.stack([RAMP * 255, RAMP[::-1] * 255, RAMP.T.reshape(48, 64) * 255], -1).astype(np.uint8))


def ramp(high: float, dtype: Any) -> Image.Image:
    """A grey ramp from 0 to ``high``."""
    return Image.fromarray((RAMP * high).astype(dtype))


def turned(kind: str) -> bytes:
    """A picture that EXIF says is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(kind, colors(), exif=exif)


CLEAR = (0, 0, 0, 0)
PICTURES: dict[str, tuple[Callable[[], bytes], str]] = {
    "rgb.png": (lambda: picture("PNG", colors()), ""),
    "rgb.jpg": (lambda: picture("JPEG", colors()), ""),
    "rgb.webp": (lambda: picture("WEBP", colors()), ""),
    "rgb.bmp": (lambda: picture("BMP", colors()), ""),
    "rgb.tiff": (lambda: picture("TIFF", colors()), ""),
    "rgb.avif": (lambda: picture("AVIF", colors()), ""),
    "rgb.jp2": (lambda: picture("JPEG2000", colors()), ""),
    "rgb.ppm": (lambda: picture("PPM", colors()), ""),
    "rgb.tga": (lambda: picture("TGA", colors()), ""),
    "grey.png": (lambda: picture("PNG", colors().convert("L")), ""),
    "grey.jpg": (lambda: picture("JPEG", colors().convert("L")), ""),
    "bits.png": (lambda: picture("PNG", colors().convert("1")), ""),
    "palette.png": (lambda: picture("PNG", colors().quantize(16)), ""),
    "still.gif": (lambda: picture("GIF", colors().quantize(16)), ""),
    "rgb.gif": (lambda: picture("GIF", colors()), ""),
    "turned.jpg": (lambda: turned("JPEG"), ""),
    "turned.png": (lambda: turned("PNG"), ""),
    "turned.tiff": (lambda: turned("TIFF"), ""),
    "black on clear.png": (lambda: picture("PNG", written("RGBA", (0, 0, 0, 255), CLEAR)), ALPHA),
    "black on clear.webp": (lambda: picture("WEBP", written("RGBA", (0, 0, 0, 255), CLEAR)), ALPHA),
    "black on clear.tiff": (lambda: picture("TIFF", written("RGBA", (0, 0, 0, 255), CLEAR)), ALPHA),
    "black on clear, grey.png": (lambda: picture("PNG", written("LA", (0, 255), (0, 0))), ALPHA),
    "clear grey.png": (lambda: picture("PNG", written("L", 0, 1), transparency=1), ALPHA),
    "clear colour.png": (lambda: picture("PNG", written("RGB", (0, 0, 0), (1, 1, 1)), transparency=(1, 1, 1)), ALPHA),
    "white on clear.png": (lambda: picture("PNG", written("RGBA", (255,) * 4, CLEAR)), "! of one colour on white"),
    "16 bits.png": (lambda: picture("PNG", ramp(65535, np.uint16)), DEEP),
    "16 bits.tiff": (lambda: picture("TIFF", ramp(65535, np.uint16)), DEEP),
    "16 bits that use 7.png": (lambda: picture("PNG", ramp(100, np.uint16)), "! of one colour in 8 bits"),
    "32 bits.tiff": (lambda: picture("TIFF", ramp(2**31 - 1, np.int32)), "pictures of 32-bit integers"),
    "floats.tiff": (lambda: picture("TIFF", ramp(1, np.float32)), "pictures of floating-point numbers"),
    "floats to 255.tiff": (lambda: picture("TIFF", ramp(255, np.float32)), "pictures of floating-point numbers"),
    "no numbers.tiff": (lambda: picture("TIFF", ramp(np.nan, np.float32)), "! not finite numbers"),
    "cmyk.jpg": (lambda: picture("JPEG", colors().convert("CMYK")), "CMYK pictures"),
    "cmyk.tiff": (lambda: picture("TIFF", colors().convert("CMYK")), "CMYK pictures"),
    "moving.gif": (
        lambda: picture("GIF", colors(), save_all=True, append_images=[colors().rotate(90), colors().rotate(180)]),
        FRAMES,
    ),
    "moving.webp": (
        lambda: picture("WEBP", colors(), save_all=True, append_images=[colors().rotate(90), colors().rotate(180)]),
        FRAMES,
    ),
    "moving.png": (
        lambda: picture("PNG", colors(), save_all=True, append_images=[colors().rotate(90), colors().rotate(180)]),
        FRAMES,
    ),
    "pages.tiff": (lambda: picture("TIFF", colors(), save_all=True, append_images=[colors().rotate(90)]), FRAMES),
    "program.eps": (lambda: picture("EPS", colors()), "! as a grid of pixels"),
    "program called.png": (lambda: picture("EPS", colors()), "! as a grid of pixels"),
    "document.pdf": (lambda: picture("PDF", colors()), "! as a grid of pixels"),
    "cut.png": (lambda: picture("PNG", colors())[:900], "! cannot be decoded"),
    "cut.jpg": (lambda: picture("JPEG", colors())[:900], "! cannot be decoded"),
    "empty.png": (lambda: b"", "! as a grid of pixels"),
    "text.png": (lambda: b"no picture", "! as a grid of pixels"),
    "sound.png": (lambda: sound("WAV", WAVE), "! as a grid of pixels"),
}
"""Name -> how the file is made, and the beginning of what is said of it; what begins with ``!`` is a reason."""
BOTH = np.stack([WAVE, WAVE], axis=1)
SOUNDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "16 bits.wav": (lambda: sound("WAV", WAVE, "PCM_16"), ""),
    "8 bits.wav": (lambda: sound("WAV", WAVE, "PCM_U8"), ""),
    "24 bits.wav": (lambda: sound("WAV", WAVE, "PCM_24"), ""),
    "32 bits.wav": (lambda: sound("WAV", WAVE, "PCM_32"), ""),
    "floats.wav": (lambda: sound("WAV", WAVE, "FLOAT"), ""),
    "doubles.wav": (lambda: sound("WAV", WAVE, "DOUBLE"), ""),
    "lossless.flac": (lambda: sound("FLAC", WAVE), ""),
    "lossy.ogg": (lambda: sound("OGG", WAVE), ""),
    "lossy.mp3": (lambda: sound("MP3", WAVE), ""),
    "aiff.aiff": (lambda: sound("AIFF", WAVE), ""),
    "stereo.wav": (lambda: sound("WAV", BOTH), "sounds with several channels"),
    "opposed.wav": (lambda: sound("WAV", BOTH * [1, -1], "FLOAT"), "! silent once its 2 channels"),
    "loud.wav": (lambda: sound("WAV", WAVE * 30000, "FLOAT"), "! must have samples from -1 to 1"),
    "no numbers.wav": (lambda: sound("WAV", WAVE * np.nan, "FLOAT"), "! not finite"),
    "empty.wav": (lambda: sound("WAV", WAVE[:0]), "! is empty"),
    "cut.wav": (lambda: sound("WAV", WAVE)[:1000], "! cut off"),
    "cut.flac": (lambda: sound("FLAC", WAVE)[:1000], "! cannot be decoded"),
    "text.wav": (lambda: b"no sound", "! is not a sound that libsndfile can open"),
}
"""The same of sounds."""
ROWS = [{"question": f"what {number}?", "answer": "red"} for number in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CELLS = b"question,answer\n" + b"".join(f"what {number}?,red\n".encode() for number in range(3))


def table() -> bytes:
    """The rows as Parquet."""
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(ROWS), buffer)
    return buffer.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return buffer.getvalue()


def pairs() -> dict[str, bytes]:
    """Three pictures, each with its caption."""
    shown = picture("PNG", Image.fromarray((RAMP * 255).astype(np.uint8)))
    return {f"{number}.{kind}": content for number in range(3) for kind, content in (("png", shown), ("txt", b"grey"))}


def talks() -> dict[str, bytes]:
    """Three conversations, each with the picture that it names."""
    shown = picture("PNG", Image.fromarray((RAMP * 255).astype(np.uint8)))
    turns = [{"role": "user", "content": "<image>what?"}, {"role": "assistant", "content": "red"}]
    members = {}
    for number in range(3):
        members[f"all/{number}.json"] = json.dumps({"messages": turns, "images": [f"{number}.png"]}).encode()
        members[f"all/{number}.png"] = shown
    return members


DATA: dict[str, tuple[Callable[[], bytes], str]] = {
    "rows.jsonl": (lambda: LINES, ""),
    "rows.JSONL": (lambda: LINES, ""),
    "rows.ndjson": (lambda: LINES, ""),
    "rows.json": (lambda: json.dumps(ROWS).encode(), ""),
    "rows.csv": (lambda: CELLS, ""),
    "rows.tsv": (lambda: CELLS.replace(b",", b"\t"), ""),
    "rows.parquet": (table, ""),
    "rows.jsonl.gz": (lambda: gzip.compress(LINES), ""),
    "rows.json.gz": (lambda: gzip.compress(json.dumps(ROWS).encode()), ""),
    "rows.csv.gz": (lambda: gzip.compress(CELLS), ""),
    "with mark.jsonl": (lambda: LINES.replace(b"\n", b"\r\n"), ""),
    "pictures.tar": (lambda: archive(pairs()), ""),
    "pictures.tar.gz": (lambda: gzip.compress(archive(pairs())), ""),
    "pictures.tgz": (lambda: gzip.compress(archive(pairs())), ""),
    "conversations.tar": (lambda: archive(talks()), ""),
    "cut.tar": (lambda: archive(pairs())[:3000], "! is damaged after"),
    "no archive.tar": (lambda: LINES, "! is damaged after 0 files"),
    "cut.jsonl": (lambda: LINES[:-5], "! not valid JSON"),
    "cut.json": (lambda: json.dumps(ROWS).encode()[:-5], "! not valid JSON"),
    "cut.parquet": (lambda: table()[:-9], "! not a Parquet file"),
    "cut.jsonl.gz": (lambda: gzip.compress(LINES * 99)[:-9], "! cannot be read after row"),
    "no archive.jsonl.gz": (lambda: LINES, "! cannot be read after row 0"),
    "empty.jsonl": (lambda: b"", "! the file is empty"),
    "latin.csv": (lambda: CELLS.replace(b"red", b"\xe9t\xe9"), "! not valid CSV"),
}
"""The same of files of rows, three in each."""
