import pytest
import torch

from marslora.core.packs import GPU_SHARE
from marslora.engine import memory
from marslora.engine.pack import Member
from marslora.engine.run_state import RunState
from marslora.engine.segments import Segment, next_segment
from marslora.engine.speedups import recomputed_layers
from tests.helpers import packs
from tests.twins.worlds import member, tiny_base


def test_more_rank_and_more_rows_take_more_and_recomputing_takes_less():
    base, batch = tiny_base()
    small = memory.member_bytes(base, member(base, 1), base.batch(batch))
    assert memory.member_bytes(base, member(base, 32), base.batch(batch)) > small
    twice = {name: torch.cat([value] * 2) for name, value in batch.items()}
    assert memory.member_bytes(base, member(base, 1), base.batch(twice)) > 1.5 * small
    with recomputed_layers(base.model):
        assert memory.member_bytes(base, member(base, 1), base.batch(batch)) < small


def test_the_pack_is_as_large_as_fits():
    base, batch = tiny_base()
    specs, moved = [member(base, rank) for rank in (1, 8, 2)], base.batch(batch)
    largest = memory.member_bytes(base, member(base, 8), moved)
    for room, expected in ((0, 1), (2.3, 2), (5.3, 5)):
        assert memory.largest_pack(base, specs, moved, max(1, int(room * largest))) == expected
    assert memory.largest_pack(base, specs, moved, None) > 3


@pytest.mark.parametrize(("share", "free"), [(None, 60), ("1.0", 60), ("0.5", 40), ("0.1", 0)])
def test_a_share_of_a_gpu_is_all_that_is_free(monkeypatch, share, free):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (60, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10)
    monkeypatch.delenv(GPU_SHARE, raising=False)
    if share:
        monkeypatch.setenv(GPU_SHARE, share)
    assert memory.free_bytes(torch.device("cuda")) == free


def test_only_memory_errors_are_memory_errors():
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert memory.is_out_of_memory(RuntimeError("DefaultCPUAllocator: not enough memory: tried to allocate"))
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert memory.is_out_of_memory(real.value)
    assert not memory.is_out_of_memory(RuntimeError("shapes do not fit"))


def at(examples, until, status="running"):
    return RunState(Member(packs.member("m", until=until, language=1)), examples=examples, status=status)


@pytest.mark.parametrize(
    ("members", "limit", "expected"),
    [
        ([at(0, 80), at(0, 80)], 9, Segment((0, 1), 0, 80)),
        ([at(0, 80), at(0, 24)], 9, Segment((0, 1), 0, 24)),
        ([at(0, 80), at(0, 20)], 9, Segment((0, 1), 0, 16)),
        ([at(16, 80), at(16, 20)], 9, Segment((1,), 16, 20)),
        ([at(16, 80), at(0, 80)], 9, Segment((1,), 0, 16)),
        ([at(0, 80, "diverged"), at(8, 80)], 9, Segment((1,), 8, 80)),
        ([at(0, 80)] * 5, 4, Segment((0, 1, 2), 0, 80)),
        ([at(80, 80, "complete")], 9, None),
    ],
)
def test_segments(members, limit, expected):
    assert next_segment(members, 8, limit) == expected
