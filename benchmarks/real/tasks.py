"""Four tasks of real data that nobody here made, as rows that marslora reads.

    python benchmarks/real/tasks.py [--folder real-work]

After `build.py`, it writes `train.jsonl`, `validation.jsonl` and `test.jsonl` for each into `real-work/tasks/NAME`:

- `stamps`: Tux Paint's pictures; captions in English and French, and the category (GPL-2)
- `shapes`: easy-vqa, questions about one coloured shape (MIT)
- `textile`: conformal-clip-data, textiles with local, global or no defects: seeing should be what matters (MIT)
- `translation`: Tux Paint's captions from English into German and Spanish, no pictures: language alone matters (GPL-2)

Splits are by object: all rows of a picture, and all pictures of one caption, are in one of them.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pictures import draw, fit
from PIL import Image

Item = TypeVar("Item")
Row = dict[str, object]
SHARES = {"test": 0.15, "validation": 0.12}
"""Shares of the items that are not trained on."""


def split(items: Sequence[Item], key: Callable[[Item], Hashable]) -> dict[str, list[Item]]:
    """The items in three parts; those of one key stay together."""
    counts = Counter(map(key, items))
    keys = sorted(counts, key=str)
    random.Random(1).shuffle(keys)
    parts: dict[str, list[Item]] = {name: [] for name in (*SHARES, "train")}
    place, sizes = {}, Counter()
    for each in keys:
        place[each] = next((n for n, share in SHARES.items() if sizes[n] < share * len(items)), "train")
        sizes[place[each]] += counts[each]
    for item in items:
        parts[place[key(item)]].append(item)
    return parts


def make_row(question: str, answer: str, image: str | None = None) -> Row:
    """One row in TRL's form."""
    asked = [{"type": "image"}] * (image is not None) + [{"type": "text", "text": question}]
    answered = [{"type": "text", "text": answer}]
    row: Row = {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}
    return row | ({"images": [image]} if image else {})


def write(folder: Path, rows: dict[str, Iterable[Row]]) -> None:
    """Shuffled rows of each part, each row once."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, own in rows.items():
        lines = list(dict.fromkeys(json.dumps(row, ensure_ascii=False) for row in own))
        random.Random(2).shuffle(lines)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf8")
        print(f"{folder.name}: {len(lines)} {name} rows", flush=True)


def read_captions(path: Path) -> dict[str, str]:
    """The captions of a stamp by language; English is the first line."""
    first, *rest = path.read_text(encoding="utf8").splitlines()
    found = (re.match(r"([A-Za-z_@]+)\.utf8=(.+)", line.strip()) for line in rest)
    return {"en": first.strip(), **{match.group(1): match.group(2).strip() for match in found if match}}


def find_stamps(unpacked: Path) -> list[tuple[Path, str, dict[str, str]]]:
    """Pictures with a category and captions, without mirrored ones."""
    folder = unpacked / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    pictures = sorted(path for path in folder.glob("**/*") if path.suffix in (".png", ".svg"))
    stamps = []
    for path in pictures:
        is_variant = re.search(r"_(mirror|flip)$", path.stem) is not None
        if not is_variant and path.with_suffix(".txt").exists():
            category = path.relative_to(folder).parts[0]
            stamps.append((path, category, read_captions(path.with_suffix(".txt"))))
    return stamps


def make_stamps(unpacked: Path, folder: Path) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    stamps, unreadable = [], 0
    for path, category, captions in find_stamps(unpacked):
        image = f"images/{category}-{path.parent.name}-{path.stem}.png"
        try:
            opened = draw(path.read_text(encoding="utf8")) if path.suffix == ".svg" else Image.open(path)
            Image.fromarray(fit(opened)).save(folder / image)
        except Exception:  # a file of others may be broken in any way
            unreadable += 1
            continue
        stamps.append((image, category, captions))
    print(f"stamps: {len(stamps)} pictures, {unreadable} unreadable")

    def ask(image: str, category: str, captions: dict[str, str]) -> Iterable[Row]:
        yield make_row("Describe the stamp.", captions["en"], image)
        yield make_row("What category is the stamp in?", category, image)
        if "fr" in captions:
            yield make_row("Décris le tampon.", captions["fr"], image)

    parts = split(stamps, lambda stamp: stamp[2]["en"])
    write(folder, {name: [row for stamp in own for row in ask(*stamp)] for name, own in parts.items()})


def make_shapes(unpacked: Path, folder: Path) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    source = unpacked / "easy-vqa/easy_vqa/data"

    def read(part: str) -> list[tuple[str, str, str]]:
        questions = json.loads((source / part / "questions.json").read_text())
        return [(question, answer, f"images/{part}-{image}.png") for question, answer, image in questions]

    parts = split(read("train"), lambda asked: asked[2])
    parts = {"train": parts["train"], "validation": parts["validation"], "test": read("test")}
    for image in sorted({image for own in parts.values() for *_, image in own}):
        part, _, name = image.removeprefix("images/").partition("-")
        Image.fromarray(fit(Image.open(source / part / "images" / name))).save(folder / image)
    write(folder, {name: [make_row(q.capitalize(), a, image) for q, a, image in own] for name, own in parts.items()})


def make_textile(unpacked: Path, folder: Path) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    source = unpacked / "conformal-clip-data/conformal_clip_data/data/textile_images/simulated"
    pictures = [(path, {"nominal": "none"}.get(path.parent.name, path.parent.name)) for path in source.glob("*/*.jpg")]

    def make(path: Path, defect: str) -> Row:
        image = f"images/{path.parent.name}-{path.stem}.png"
        Image.open(path).convert("RGB").resize((112, 112), Image.Resampling.LANCZOS).save(folder / image)
        return make_row("Which defect does it have?", defect, image)

    parts = split(sorted(pictures), lambda picture: picture[0])
    write(folder, {name: [make(*picture) for picture in own] for name, own in parts.items()})


def make_translation(unpacked: Path, folder: Path) -> None:
    captions = [captions for _, _, captions in find_stamps(unpacked)]
    languages = {"de": "German", "es": "Spanish"}

    def ask(captions: dict[str, str]) -> Iterable[Row]:
        for code, language in languages.items():
            if code in captions:
                yield make_row(f"Translate into {language}: {captions['en']}", captions[code])

    parts = split(captions, lambda each: each["en"])
    write(folder, {name: [row for each in own for row in ask(each)] for name, own in parts.items()})


TASKS = {"stamps": make_stamps, "shapes": make_shapes, "textile": make_textile, "translation": make_translation}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("real-work"))
    given = parser.parse_args()
    for name, make in TASKS.items():
        make(given.folder / "unpacked", given.folder / "tasks" / name)


if __name__ == "__main__":
    main()
