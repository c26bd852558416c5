"""The folder in which the corpus of bad input is typed: a good model and good rows as ``m`` and ``rows.jsonl``, and
beside them what people have by mistake."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from marslora.core.spec import StudySpec
from marslora.demo.model import embedded_folder
from marslora.store.study import Study
from tests.corpus.files import write_media
from tests.helpers import toy_tables

MODELS: dict[str, str] = {
    "text_only": json.dumps({"model_type": "llama", "hidden_size": 32, "num_attention_heads": 2}),
    "no_json": "{model_type: llava",
    "list": "[]",
    "empty_object": "{}",
    "unknown_type": json.dumps({"model_type": "no_such_type"}),
    "number_type": json.dumps({"model_type": 5}),
}
"""Folder in ``models`` -> its config.json."""


class ReadTooEarlyError(Exception):
    """Model and rows would have been read, though the input could have been refused before."""


def refuse_to_read(spec: Any, emit: Any) -> None:
    """Take the place of the work that loads the model and reads the rows."""
    raise ReadTooEarlyError(f"{spec.model.path} and {spec.data.train} would have been read")


def make_row(**more: Any) -> dict[str, Any]:
    """A row of one question and its answer about a picture."""
    turns = [{"role": "user", "content": "<image> what is this ?"}, {"role": "assistant", "content": "red"}]
    return {"messages": turns, "images": ["a.png"], **more}


def build_world(folder: Path) -> None:
    """Make everything that the corpus names."""
    write_media(folder)
    (folder / "m").symlink_to(embedded_folder())
    _write_rows(folder)
    _write_models(folder)
    _write_studies(folder)
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo.jsonl")
    (folder / "tables").mkdir()
    toy_tables.table("toy", seeds=(0,), ranks=(2, 4)).save(folder / "tables" / "toy.parquet")


def _write_rows(folder: Path) -> None:
    good = "".join(f"{json.dumps(make_row(id=number))}\n" for number in range(16))
    texts = {
        "rows.jsonl": good,
        "rows.xyz": good,
        "no_suffix": good,
        "one.jsonl": f"{json.dumps(make_row())}\n",
        "blank.jsonl": "\n\n",
        "zero.jsonl": "",
        "broken.jsonl": f"{json.dumps(make_row())}\n{{not json\n",
        "lost.jsonl": f"{json.dumps(make_row(images=['nowhere.png']))}\n",
        "damaged.parquet": "PAR1 no parquet",
        "number.json": "5",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "latin.jsonl").write_bytes('{"messages": "é"}\n'.encode("latin-1"))
    (folder / "damaged.jsonl.gz").write_bytes(gzip.compress(good.encode())[:40])
    (folder / "archive.zip").write_bytes(b"PK\x03\x04" + bytes(60))
    (folder / "rows.pkl").write_bytes(pickle.dumps([make_row()]))
    parquet.write_table(pa.table({"x": [1]}), folder / "numbers.parquet")
    (folder / "folder").mkdir()
    (folder / "folder" / "dataset_info.json").write_text(
        json.dumps({"known": {"file_name": "../rows.jsonl"}, "odd": {"file_name": 5}})
    )


def _write_models(folder: Path) -> None:
    for name, text in MODELS.items():
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "config.json").write_text(text)
    (folder / "models" / "binary").mkdir()
    (folder / "models" / "binary" / "config.json").write_bytes(bytes(range(128, 255)))
    (folder / "models" / "no_weights").mkdir()
    for path in embedded_folder().iterdir():
        if path.suffix != ".safetensors":
            (folder / "models" / "no_weights" / path.name).write_bytes(path.read_bytes())
    (folder / "peft").mkdir()
    (folder / "peft" / "adapter_config.json").write_text("{}")


def _write_studies(folder: Path) -> None:
    spec = StudySpec.parse(
        {
            "model": {"path": str(embedded_folder())},
            "data": {"train": ["other.jsonl"]},
            "space": {"vision": [4], "projector": [4], "language": [4, 8]},
        }
    )
    with Study.create(folder / "other_study", spec) as study:
        study.write_json("plan/round-01.json", [], "")
    (folder / "damaged_study").mkdir()
    (folder / "damaged_study" / "spec.json").write_text('{"model": ')
    (folder / "damaged_study" / ".lock").touch()
