"""Turn easy-vqa (5,000 drawn images, 48,248 questions, by Victor Zhou, MIT licence) into JSONL that marslora reads.

Get the package and unpack it; none of its code is run:

    pip download --no-deps easy-vqa==1.0 -d easy-vqa
    python -m zipfile -e easy-vqa/easy_vqa-1.0-py3-none-any.whl easy-vqa
    python examples/easy_vqa_to_jsonl.py easy-vqa/easy_vqa/data

This writes `train.jsonl` and `test.jsonl` into the data folder, with image paths relative to it. Then:

    marslora search --model MODEL --train easy-vqa/easy_vqa/data/train.jsonl --test easy-vqa/easy_vqa/data/test.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def make_row(question: str, answer: str, image: str) -> dict[str, object]:
    """One row in TRL's form: the picture, the question, the answer."""
    question_parts = [{"type": "image"}, {"type": "text", "text": question}]
    answer_parts = [{"type": "text", "text": answer}]
    messages = [{"role": "user", "content": question_parts}, {"role": "assistant", "content": answer_parts}]
    return {"messages": messages, "images": [image]}


def convert_split(folder: Path, split: str) -> int:
    """Write ``folder/split.jsonl`` from ``folder/split/questions.json``; returns the number of rows."""
    questions = json.loads((folder / split / "questions.json").read_text())
    with (folder / f"{split}.jsonl").open("w") as file:
        for question, answer, image in questions:
            file.write(json.dumps(make_row(question, answer, f"{split}/images/{image}.png")) + "\n")
    return len(questions)


def main() -> None:
    """Convert both splits of the folder named on the command line."""
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "train" / "questions.json").is_file():
        sys.exit(f"Usage: {Path(sys.argv[0]).name} FOLDER, the folder that holds train/questions.json")
    folder = Path(sys.argv[1])
    for split in ("train", "test"):
        sys.stdout.write(f"{folder / split}.jsonl: {convert_split(folder, split)} rows\n")


if __name__ == "__main__":
    main()
