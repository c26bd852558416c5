import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marslora.core.errors import ConfigError
from marslora.finetune.sampler import BlankingCollate, check_divisible, plan_micro_batches


@given(
    st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=17), max_size=6), st.integers(1, 4), st.integers(1, 3)
)
def test_every_row_is_seen_once_and_every_process_takes_part(steps, accumulation, num_processes):
    shares = [plan_micro_batches(steps, accumulation, rank, num_processes) for rank in range(num_processes)]
    assert all(len(share) == accumulation * len(steps) for share in shares)
    assert all(batch for share in shares for batch in share)
    for index, step in enumerate(steps):
        pieces = [batch for share in shares for batch in share[index * accumulation : (index + 1) * accumulation]]
        assert sorted(row for batch in pieces for row in batch if row >= 0) == sorted(step)


def test_full_steps_are_shared_out_evenly():
    assert plan_micro_batches([range(8)], accumulation=2, rank=1, num_processes=2) == [[2, 3], [6, 7]]


def test_blank_rows_count_nothing():
    def collate(rows):
        return {"labels": torch.tensor([[row, row] for row in rows])}

    batch = BlankingCollate(collate)([3, -1 - 4])
    assert batch["labels"].tolist() == [[3, 3], [-100, -100]]


def test_more_micro_batches_than_examples_are_refused():
    with pytest.raises(ConfigError, match=r"at least `accumulation` x processes = 4 x 2, found 6"):
        check_divisible(6, 4, 2)
