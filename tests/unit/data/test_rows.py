"""Splits are encoded in one place, and steps take them in the nested order."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marslora.core.spec import DataSpec, TrainingSpec
from marslora.data.encode import encode
from marslora.data.order import iterate_batches_of_like_lengths, nested_order, split_evenly
from marslora.data.rows import iterate_batches_by_length, list_refused_rows, load_encoded_splits
from marslora.data.splits import load_splits, register_rows
from tests.helpers import tiny_processors as tiny
from tests.unit.data.conftest import picture, row


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What `load_encoded_splits` takes: 12 training rows, 5 of validation (one too long), 3 to test."""
    many = " ".join(["long"] * 60)
    data = DataSpec(
        train=(register_rows("rows train", [row(f"what {k}?", f"it is {k}", picture(k)) for k in range(12)]),),
        validation=(
            register_rows("rows validation", [row("a?", many), *(row("b?", "c" * (5 - k)) for k in range(4))]),
        ),
        test=(register_rows("rows test", [row("t?", "u")] * 3),),
        max_length=60,
        max_bad_share=0.5,
        seed=3,
    )
    return data, tiny.llava_processor(), str(tmp_path_factory.mktemp("rows"))


def test_every_split_is_what_encode_makes_of_it(world):
    data, processor, cache = world
    seen = []
    rows = load_encoded_splits(data, processor, cache, progress=lambda *what: seen.append(what))
    assert [len(rows.split(name)) for name in ("train", "validation", "test")] == [12, 4, 3]
    assert rows.train.digest == encode(load_splits(data).train, processor, max_length=60).digest
    assert ("train", 12, 12) in seen and ("test", 3, 3) in seen
    assert [bad.row for bad in list_refused_rows(rows)] == [1]
    assert rows.report == load_splits(data).report


def test_a_split_that_is_not_asked_for_is_not_encoded(world):
    seen = []
    rows = load_encoded_splits(
        world[0], world[1], world[2] + "/new", splits=("train",), progress=lambda *what: seen.append(what)
    )
    assert len(rows.train) == 12 and not len(rows.validation) and not len(rows.test)
    assert {split for split, _, total in seen if total} == {"train"}


def test_micro_batches_are_the_rows_of_the_steps(world):
    rows = load_encoded_splits(*world)
    training = TrainingSpec(batch_size=5, accumulation=3)
    steps = list(rows.steps(training, 7, 0, 22, 8))
    assert [len(step) for step in steps] == [5, 5, 5, 5, 2]
    assert set(chain(*steps)) <= set(nested_order(12, 3)[:8])
    micro = list(rows.micro_batches(training, 7, 0, 22, 8))
    assert [[len(batch["labels"]) for batch in step] for step in micro] == [[1, 2, 2]] * 4 + [[1, 1]]
    answers = [sum(int((batch["labels"] != -100).sum()) for batch in step) for step in micro]
    assert answers == [int(rows.train.num_answer_tokens[step].sum()) for step in steps]


def test_rows_of_like_length_share_a_batch_if_asked(world):
    rows = load_encoded_splits(*world)
    plain, grouped = (TrainingSpec(batch_size=2, group_by_length=each) for each in (False, True))
    nested = nested_order(12, 3)[:8]
    expected = iterate_batches_of_like_lengths(rows.train.num_tokens[nested], 2, 7, 0, 40)
    found = list(rows.steps(grouped, 7, 0, 40, 8))
    assert found == [nested[batch].tolist() for batch in expected] != list(rows.steps(plain, 7, 0, 40, 8))


def test_first_batches_follow_the_nested_order(world):
    rows = load_encoded_splits(*world)
    first = rows.first_batches(2, 4)
    wanted = [rows.train.batch(nested_order(12, 3)[start : start + 4]) for start in (0, 4)]
    assert len(first) == 2
    assert all(mine["labels"].equal(theirs["labels"]) for mine, theirs in zip(first, wanted, strict=True))


def test_validation_batches_hold_every_row_once_shortest_first(world):
    validation = load_encoded_splits(*world).validation
    lengths = [
        int(length) for batch in iterate_batches_by_length(validation, 3) for length in batch["attention_mask"].sum(1)
    ]
    assert lengths == sorted(validation.num_tokens.tolist())


@given(num_rows=st.integers(0, 40), count=st.integers(1, 12))
def test_pieces_are_all_rows_nearly_evenly(num_rows, count):
    found = split_evenly(list(range(num_rows)), count)
    assert list(chain(*found)) == list(range(num_rows))
    assert len(found) == count
    assert max(map(len, found)) - min(map(len, found)) <= 1
