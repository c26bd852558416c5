"""A row format or a file type is one new file: the folders are the registries."""

from __future__ import annotations

import pytest

from marslora.core.spec import DataSpec
from marslora.data import _formats, _readers
from marslora.data._formats import list_formats
from marslora.data._readers import list_file_types
from marslora.data.splits import load_splits, register_rows

FORMAT = '''
"""Questions and answers under those names."""
COLUMNS = ("question", "answer|reply")
PRECEDENCE = 5


def read_turns(row):
    answer = row.get("answer") or row["reply"]
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": answer}]
'''
READER = '''
"""Tab-separated questions and answers, one pair per line."""
from marslora.data._readers._base import AbstractFile


class PairFile(AbstractFile):
    """A file of pairs."""

    suffixes = (".pairs",)

    def rows(self):
        """(line, row)."""
        for number, line in enumerate(self.path.read_text().splitlines(), start=1):
            prompt, completion = line.split("\\t")
            yield number, {"prompt": prompt, "completion": completion}

    def num_rows(self):
        """The number of lines."""
        return len(self.path.read_text().splitlines())
'''


@pytest.fixture
def add_file(tmp_path, monkeypatch):
    """Adds a file to a registry, for one test."""

    def add(package, name: str, text: str) -> None:
        folder = tmp_path / "plugins"
        folder.mkdir()
        (folder / f"{name}.py").write_text(text.lstrip())
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])

    return add


def answers(*sources: str) -> list[str]:
    splits = load_splits(DataSpec(train=sources, validation=sources))
    return [example.messages[-1]["content"][0]["text"] for example in splits.train]


def test_formats_are_tried_in_this_order():
    names = [row_format.__name__.rpartition(".")[2] for row_format in list_formats()]
    assert names == ["messages", "prompt_completion", "conversations", "alpaca", "question_answer", "described"]


def test_a_row_that_fits_two_formats_is_read_by_the_first():
    row = {"prompt": "?", "completion": "by prompt", "instruction": "?", "output": "by alpaca"}
    assert answers(register_rows("two formats", [row])) == ["by prompt"]


def test_these_endings_are_read():
    assert sorted(list_file_types()) == [".csv", ".json", ".jsonl", ".ndjson", ".parquet", ".tar", ".tgz", ".tsv"]


def test_a_new_format_is_one_file(add_file):
    add_file(_formats, "test_format", FORMAT)
    rows = [
        {"question": "?", "answer": "one"},
        {"question": "?", "reply": "two"},
        {"prompt": "?", "completion": "three"},
    ]
    assert answers(register_rows("new format", rows)) == ["one", "two", "three"]
    assert list_formats()[0].COLUMNS == ("question", "answer|reply")


def test_a_new_file_type_is_one_file(add_file, tmp_path):
    add_file(_readers, "test_reader", READER)
    for folder in ("alone", "in folder"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.pairs").write_text("what?\tthis\nwhere?\tthere\n")
    assert answers(str(tmp_path / "alone" / "rows.pairs"), str(tmp_path / "in folder")) == ["this", "there"] * 2


def test_two_classes_for_one_ending_are_refused_by_name(add_file):
    add_file(_readers, "test_second_reader", READER.replace(".pairs", ".csv"))
    with pytest.raises(TypeError, match=r"CsvFile and PairFile both read `\.csv`"):
        list_file_types()
