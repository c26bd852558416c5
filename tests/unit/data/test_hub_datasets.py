"""Data sets on the hub by name, with revision, subset and split, from a small hub on this machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time

import pyarrow as pa
import pytest
from huggingface_hub import constants
from pyarrow import parquet

from marslora.core import hub
from marslora.core.data_files import HubSource, data_fingerprint, parse_hub_source
from marslora.core.errors import DataError
from marslora.core.spec import DataSpec
from marslora.data.splits import load_splits
from tests.helpers import small_hub
from tests.unit.data.conftest import picture, row, write_lines

NAMES = {
    "owner/name": HubSource("owner/name", None, None, None),
    "owner/na.me-2#validation": HubSource("owner/na.me-2", None, None, "validation"),
    "owner/name@v1.0": HubSource("owner/name", "v1.0", None, None),
    "owner/name@refs/convert/parquet:sub set#test": HubSource("owner/name", "refs/convert/parquet", "sub set", "test"),
    "hf://datasets/name:sub": HubSource("name", None, "sub", None),
    "name": None,
    "train.jsonl": None,
    "./owner/name": None,
    "/owner/name": None,
    "a/b/c": None,
    "here/name": None,
    "here/name#entry": None,
    "owner/dataset_info.json:talk": None,
}


@pytest.mark.parametrize("source", NAMES)
def test_a_source_is_a_name_on_the_hub_unless_it_may_be_here(tmp_path, monkeypatch, source):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_hub_source(source) == NAMES[source]


def test_a_folder_here_comes_first(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    write_lines(tmp_path / "owner" / "name" / "rows.jsonl", [row("a?", str(number)) for number in range(4)])
    monkeypatch.chdir(tmp_path)
    assert load_splits(DataSpec(train=("owner/name",), validation_share=0.5)).report.num_train == 2


@pytest.mark.parametrize("source", ["owner/name", "owner/name#train", "hf://datasets/name"])
def test_without_a_network_it_says_so_in_a_second(monkeypatch, source):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_checked", {})
    began = time.monotonic()
    with pytest.raises(DataError, match=r"neither a file or folder here, nor .*cannot be reached") as error:
        load_splits(DataSpec(train=(source,)))
    assert time.monotonic() - began < 1 and "\n" not in str(error.value)


def test_a_missing_file_is_no_name_on_the_hub():
    with pytest.raises(DataError, match="does not exist"):
        load_splits(DataSpec(train=("data/train.jsonl",)))


def test_other_parts_of_a_name_are_other_data():
    prints = {data_fingerprint(DataSpec(train=(source,))) for source in NAMES if NAMES[source]}
    assert len(prints) == 5


def lines(*rows):
    return "".join(json.dumps(each) + "\n" for each in rows).encode()


def png(seed):
    buffer = io.BytesIO()
    picture(seed, 20, 20).save(buffer, "PNG")
    return buffer.getvalue()


def table(*rows):
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


CARD = b"""---
configs:
- config_name: plain
  default: true
  data_files:
  - {split: train, path: plain/train.jsonl}
  - {split: dev, path: plain/dev.jsonl}
- config_name: short
  data_files: [{split: train, path: short.jsonl}]
---
"""
TALK = {
    "README.md": CARD,
    "plain/train.jsonl": lines(*({"question": f"{number}?", "answer": "train"} for number in range(70))),
    "plain/dev.jsonl": lines({"question": "dev?", "answer": "dev"}),
    "short.jsonl": lines({"question": "short?", "answer": "short"}, {"image": "here.png", "caption": "stranger"}),
}
SEEN = {"train.parquet": table({"question": "?", "answer": "seen", "image": {"bytes": png(1), "path": "1.png"}})}
BESIDE = {"train/metadata.jsonl": lines({"file_name": "2.png", "caption": "beside"}), "train/2.png": png(2)}
REPOSITORIES = {
    "o/talk": {"main": TALK, "old": {"train.jsonl": lines({"question": "old?", "answer": "old"})}},
    "o/seen": {"main": SEEN},
    "o/beside": {"main": BESIDE},
}
READ = """
import json, sys
from marslora.core.errors import DataError
from marslora.core.spec import DataSpec
from marslora.data.splits import load_splits, register_rows
held = register_rows("held", [{"question": "a?", "answer": "b"}])
for source in sys.argv[1:]:
    try:
        train = load_splits(DataSpec(train=(source,), validation=(held,), max_bad_share=0.5)).train
        pictures = [image.open().tobytes().hex() for image in train[0].images]
        print(json.dumps([len(train), train[0].messages[1]["content"][0]["text"], train[0].place, pictures]))
    except DataError as error:
        print(json.dumps(str(error)))
"""


def test_rows_come_from_the_hub_by_revision_subset_and_split(tmp_path):
    sources = ["o/talk", "o/talk@old", "o/talk:short", "o/talk:plain#dev", "o/seen", "o/beside"]
    sources += ["o/talk@none", "o/talk:none", "o/talk#none", "o/none"]
    picture(3).save(tmp_path / "here.png")  # a row from the hub names no file here
    with small_hub.serve(REPOSITORIES) as address:
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", READ, *sources],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    main, old, short, dev, seen, beside, *problems = map(json.loads, done.stdout.splitlines())
    assert main == [70, "train", "o/talk row 1", []]
    assert old == [1, "old", "o/talk@old row 1", []]
    assert short == [1, "short", "o/talk:short row 1", []]
    assert dev == [1, "dev", "o/talk:plain#dev row 1", []]
    assert seen == [1, "seen", "o/seen row 1", [picture(1, 20, 20).tobytes().hex()]]
    assert beside == [1, "beside", "o/beside row 1", [picture(2, 20, 20).tobytes().hex()]]
    told = ["'none' doesn't exist", "'none' not found", "no split called `none`; its splits are ['dev', 'train']"]
    for problem, words in zip(problems, [*told, "doesn't exist on the Hub"], strict=True):
        assert words in problem and "owner/name@revision:subset#split" in problem
