import json
import os
import subprocess
import sys

import pytest
import torch

from marslora.core.out_of_memory import is_out_of_memory
from marslora.engine import memory
from marslora.engine.pack import Member
from marslora.engine.planning import Limits, PackPlan, plan_pack
from marslora.engine.run_state import RunState
from marslora.engine.segments import Segment, next_segment
from marslora.engine.speedups import recomputed_layers
from marslora.models.memory import PROCESSOR_ACTIVATIONS
from tests.helpers import packs
from tests.twins.worlds import member, tiny_base


def test_more_rank_and_more_rows_take_more_and_recomputing_takes_less():
    base, batch = tiny_base()
    small = memory.measure_footprint(base, member(base, 1), base.batch(batch))
    assert memory.measure_footprint(base, member(base, 32), base.batch(batch)).bytes(2) > small.bytes(2)
    assert small.bytes(4) > 1.5 * small.bytes(2)
    twice = {name: torch.cat([value] * 2) for name, value in batch.items()}
    doubled = memory.measure_footprint(base, member(base, 1), base.batch(twice))
    assert doubled.bytes(4) == pytest.approx(small.bytes(4), rel=0.05)
    with recomputed_layers(base.model):
        assert memory.measure_footprint(base, member(base, 1), base.batch(batch)).bytes(2) < small.bytes(2)


def limits(room, **fields):
    given = {"members": 5, "batch_size": 16, "pieces": 1, "may_split": True, "on_cpu": False, "row_tokens": 10}
    return Limits(**{**given, "bytes": room, **fields})


PLAIN, RECOMPUTED = (memory.Footprint(parameters=1, state=40, copies=0, per_row=each) for each in (100.0, 10.0))


def measure(recompute):
    return RECOMPUTED if recompute else PLAIN


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (limits(1e9), PackPlan(5, 1)),
        (limits(PLAIN.bytes(4, 5)), PackPlan(5, 4)),
        (limits(PLAIN.bytes(1, 5)), PackPlan(5, 16)),
        (limits(PLAIN.bytes(1, 3)), PackPlan(3, 16)),
        (limits(PLAIN.bytes(16, 3), may_split=False), PackPlan(3, 1)),
        (limits(RECOMPUTED.bytes(4)), PackPlan(1, 4, recompute=True)),
        (limits(1), PackPlan(1, 16, recompute=True)),
        (limits(1, may_split=False, pieces=2), PackPlan(1, 2, recompute=True)),
        (limits(1e9, on_cpu=True, row_tokens=100), PackPlan(2, 1)),
    ],
)
def test_a_pack_is_split_then_made_smaller_then_recomputed(given, expected):
    assert plan_pack(measure, given) == expected


def test_on_a_cpu_a_step_is_split_before_its_activations_are_large():
    heavy = memory.Footprint(parameters=10, state=40, copies=0, per_row=PROCESSOR_ACTIVATIONS / 8)
    assert plan_pack(lambda _: heavy, limits(1e12, on_cpu=True, members=1)).pieces == 3
    assert plan_pack(lambda _: heavy, limits(1e12, on_cpu=False, members=1)).pieces == 1


def test_when_memory_ran_out_less_is_tried_until_nothing_is_left():
    plans, plan = [], PackPlan(3, 1)
    while plan := plan.shrink(plan.members, 4, may_split=True):
        plans.append(plan)
    recomputed = PackPlan(1, 4, recompute=True)
    assert plans == [PackPlan(3, 2), PackPlan(3, 4), PackPlan(1, 4), recomputed]
    assert PackPlan(2, 1).shrink(2, 4, may_split=False) == PackPlan(1, 1)


def test_only_memory_errors_are_memory_errors():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(real.value)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


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


@pytest.mark.slow
@pytest.mark.parametrize("share", [2.0, 0.05])
def test_in_a_real_address_space_the_steps_are_split_until_they_fit(pack, tmp_path, share):
    members = [packs.member(name, until=256, language=64, seed=seed) for seed, name in enumerate("abcd")]
    spec = pack(*members, batch_size=256, max_bytes=1 << 40, folder=f"limited-{share}")
    (tmp_path / "pack.json").write_text(spec.to_json())
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.helpers.limited_pack", str(tmp_path / "pack.json"), str(share)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    tried, *events = map(json.loads, done.stdout.splitlines())
    assert [event["status"] for event in events if event["kind"] == "MemberResult"] == ["complete"] * 4, events[-1]
    assert tried[0] == [4, 1] and (tried[-1] != [4, 1]) == (share < 1), tried
