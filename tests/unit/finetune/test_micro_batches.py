"""`--micro-batch`: a number of rows, or as many as fit into memory."""

import json

import pytest

from marslora.core.spec import TrainingSpec
from marslora.finetune import micro_batches
from tests.helpers.exactness import assert_exact
from tests.unit.finetune.tiny import run, weights


@pytest.mark.parametrize(("rows", "pieces"), [(16, 1), (8, 2), (5, 4), (1, 16), (40, 1), ("4", 4)])
def test_rows_of_a_micro_batch_are_a_number_of_micro_batches(rows, pieces):
    spec = TrainingSpec(batch_size=16, micro_batch=rows)
    assert spec.accumulation == pieces
    assert TrainingSpec.parse(json.loads(spec.to_json())) == spec


def test_two_numbers_that_disagree_are_refused():
    with pytest.raises(ValueError, match=r"`micro_batch` 4 makes 4 micro-batches of `batch_size` 16, but .* is 2"):
        TrainingSpec(batch_size=16, micro_batch=4, accumulation=2)
    with pytest.raises(ValueError, match="micro_batch"):
        TrainingSpec(micro_batch="some")


@pytest.mark.parametrize("room", ["plenty", "little", "none"])
def test_a_final_run_splits_its_steps_where_memory_is_short(exact_spec, monkeypatch, room):
    found = []
    real = micro_batches.split_for_memory

    def split(*args):
        per_row = micro_batches._bytes_per_row(args[2], args[3], args[4])
        fixed = micro_batches._bytes_of_update(args[4], args[5])
        free = {"plenty": 1e12, "little": (fixed + 3.5 * 1.15 * per_row) / 0.7, "none": 0.0}[room]
        monkeypatch.setattr(micro_batches, "free_bytes", lambda _: free)
        spec = real(*args)
        found.append((spec.training.accumulation, args[1].gradient_accumulation_steps))
        assert spec.inputs_digest() == args[0].inputs_digest()
        return spec

    monkeypatch.setattr("marslora.finetune.worker.split_for_memory", split)
    training = {"dropout": 0.0, "batch_size": 8}
    auto = exact_spec(f"auto {room}", training={**training, "micro_batch": "auto"})
    run(auto)
    assert found == [{"plenty": (1, 1), "little": (3, 3), "none": (8, 8)}[room]]
    plain = exact_spec("plain", training=training)
    run(plain)
    assert_exact(weights(auto), weights(plain))
