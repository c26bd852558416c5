"""The documented way from easy-vqa to a study reads back what the package says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from marslora.core.spec import DataSpec
from marslora.data.splits import load_splits
from tests.unit.data.conftest import picture

SCRIPT = Path(__file__).parents[3] / "examples" / "easy_vqa_to_jsonl.py"


def test_the_converted_files_are_read_back(tmp_path):
    for split, seeds in (("train", range(4)), ("test", range(4, 6))):
        (tmp_path / split / "images").mkdir(parents=True)
        for index, seed in enumerate(seeds):
            picture(seed).save(tmp_path / split / "images" / f"{index}.png")
        questions = [["what shape?", f"{split} {index}", index] for index in range(len(seeds))]
        (tmp_path / split / "questions.json").write_text(json.dumps(questions))
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], check=True, capture_output=True)
    spec = DataSpec(train=(str(tmp_path / "train.jsonl"),), test=(str(tmp_path / "test.jsonl"),), validation_share=0.25)
    splits = load_splits(spec)
    assert (splits.report.num_train, splits.report.num_validation, splits.report.num_test) == (3, 1, 2)
    for example in splits.test:
        answer = example.messages[1]["content"][0]["text"]
        assert example.images[0].open().tobytes() == picture(4 + int(answer[-1])).tobytes()
    assert splits.test[0].messages[0]["content"] == [{"type": "image"}, {"type": "text", "text": "what shape?"}]


def test_a_wrong_folder_is_one_line_on_stderr(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode != 0 and "train/questions.json" in done.stderr
