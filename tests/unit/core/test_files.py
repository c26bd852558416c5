"""Files are whole or not there, whoever writes them at the same time, and a full disk loses nothing."""

import errno
import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from tests.helpers.toy_tables import table

from marslora.adapters import Checkpoint, write_checkpoints
from marslora.core.errors import MarsloraError, WriteError
from marslora.core.files import (
    explain_write_errors,
    open_atomically,
    publish_folder,
    replace_folder,
    write_bytes,
    write_text,
)
from marslora.core.parts import ModelInfo
from marslora.core.spec import DataSpec, ModelSpec, StudySpec
from marslora.data._ragged import RaggedWriter
from marslora.demo import rows as demo_rows
from marslora.engine import prepare
from marslora.finetune.checkpoints import FinalRunState, mark_complete
from marslora.store.study import Study

FULL = OSError(errno.ENOSPC, "No space left on device")
SENTENCE = (
    "Cannot write {path}: No space left on device. Free some space and run the command again; "
    "nothing written before is lost."
)


def raise_full(*_, **__):
    raise FULL


def fill_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", raise_full)


def files_in(folder: Path) -> dict[str, bytes]:
    """Everything in the folder but SQLite's files, which come and go."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".db"}


def write_artifact(folder: Path, value: float) -> Path:
    spec = StudySpec(model=ModelSpec(path="m"), data=DataSpec(train=("t",)), space={"language": (0, 4)})
    with Study.create(folder, spec) if not (folder / "spec.json").exists() else Study.open(folder) as study:
        study.write("data.json", DataSpec(train=(str(value),)), "digest")
    return folder / "data.json"


def write_marker(folder: Path, value: float) -> Path:
    state = FinalRunState(
        spec_digest="d", started_at_examples=0, base_validation_loss=value, base_validation_accuracy=0.5
    )
    mark_complete(folder / "checkpoint-1", state)
    return folder / "checkpoint-1" / "progress.json"


def write_parts(folder: Path, value: float) -> Path:
    info = ModelInfo(architecture=f"a{value}", modalities=(), num_parameters=1, parts=())
    rows = SimpleNamespace(train=MagicMock(digest="d", batch=lambda _: {}, __len__=lambda _: 4))
    loaded = SimpleNamespace(model=None, device=torch.device("cpu"), dtype=torch.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "discover", lambda *_, **__: None)
        patch.setattr(prepare, "probe", lambda *_: info)
        for known in folder.glob("parts-*"):
            patch.setattr(Path, "exists", lambda path, known=known: path != known)
        prepare.probe_parts(ModelSpec(path="m"), loaded, rows, str(folder))
    return next(folder.glob("parts-*.json"))


def write_demo_rows(folder: Path, value: float) -> Path:
    image = np.full((1, 4, 4, 3), int(value), np.uint8)
    demo_rows.write_rows(folder / "train.parquet", [[("What?", f"It is {value}.")]], image)
    return folder / "train.parquet"


def write_table(folder: Path, value: float) -> Path:
    table(seeds=[int(value)]).save(folder / "toy.parquet")
    return folder / "toy.parquet"


def write_members(folder: Path, value: float) -> Path:
    tensor = torch.full((2, 3), value)
    checkpoint = Checkpoint({"q.lora_A.weight": tensor}, {"q.lora_A.exp_avg": tensor}, {"examples": int(value)})
    write_checkpoints(folder, {"a": (checkpoint, {"r": 2, "target_modules": ["q"]})})
    return folder


WRITERS = {
    "store": write_artifact,
    "final run": write_marker,
    "engine": write_parts,
    "demo": write_demo_rows,
    "replay": write_table,
    "checkpoints": write_members,
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_leaves_the_old_file_and_is_explained(tmp_path, monkeypatch, writer):
    path = writer(tmp_path, 1.0)
    before = files_in(tmp_path)
    with monkeypatch.context() as patch:
        fill_the_disk(patch)
        with pytest.raises(MarsloraError) as caught:
            writer(tmp_path, 2.0)
    assert str(caught.value) == SENTENCE.format(path=path)
    after = files_in(tmp_path)
    assert {name: data for name, data in after.items() if not name.startswith(".next-")} == before
    writer(tmp_path, 2.0)
    assert files_in(tmp_path).keys() == before.keys() and files_in(tmp_path) != before


def test_a_full_disk_while_rows_are_encoded_is_explained(tmp_path, monkeypatch):
    writer = RaggedWriter(tmp_path / "rows")
    writer.add("texts.labels", 0, np.arange(3))
    monkeypatch.setattr("numpy.save", raise_full)
    with pytest.raises(WriteError, match="Free some space"):
        writer.close({"texts": 1}, {})


@pytest.mark.parametrize(
    "text", ['Error while serializing: "No space left on device"', "PytorchStreamWriter failed writing"]
)
def test_a_full_disk_is_known_by_the_words_of_other_libraries(tmp_path, text):
    with pytest.raises(WriteError) as caught, explain_write_errors(tmp_path / "x"):
        raise RuntimeError(text)
    assert str(caught.value) == SENTENCE.format(path=tmp_path / "x")


def test_other_errors_of_a_writer_pass(tmp_path):
    with pytest.raises(ZeroDivisionError), open_atomically(tmp_path / "x") as file:
        file.write(b"half")
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_names_the_way_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"Cannot write .*file/x: .* or choose another folder and run"):
        write_text(tmp_path / "file" / "x", "text")


def write_often(path: Path, text: str) -> None:
    for _ in range(100):
        write_text(path, text)


def test_two_processes_that_write_the_same_path_never_collide(tmp_path):
    path, texts = tmp_path / "x", ["a" * 100_000, "b" * 100_000]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_often, args=(path, text)) for text in texts]
    for process in processes:
        process.start()
    seen = set()
    while any(process.is_alive() for process in processes):
        if path.exists():
            seen.add(path.read_text())
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert seen | {path.read_text()} <= set(texts)
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


def make_folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_a_folder_is_replaced_as_a_whole(tmp_path, monkeypatch):
    path = make_folder(tmp_path / "adapter", "old")
    new = make_folder(tmp_path / "new", "new")
    real = Path.rename

    def refuse_new(self, target):
        if self == new:
            raise FULL
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse_new)
        with pytest.raises(WriteError):
            replace_folder(new, path)
    assert (path / "file").read_text() == "old"
    replace_folder(new, path)
    assert (path / "file").read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["adapter"]


def test_the_first_of_two_published_folders_stays(tmp_path):
    publish_folder(make_folder(tmp_path / "a", "first"), tmp_path / "rows")
    publish_folder(make_folder(tmp_path / "b", "second"), tmp_path / "rows")
    assert (tmp_path / "rows" / "file").read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["rows"]
    with pytest.raises(WriteError):
        publish_folder(make_folder(tmp_path / "c", "third"), tmp_path / "absent" / "rows")


def test_bytes_are_written_as_they_are(tmp_path):
    write_bytes(tmp_path / "deep" / "x", b"\x00\r\n")
    assert (tmp_path / "deep" / "x").read_bytes() == b"\x00\r\n"
