"""What one call of `run_pack` does: observations, results, checkpoints, resuming, memory, divergence."""

import json
import math
from pathlib import Path

import pytest
import torch

from marslora.core.runs import Observation, ProgressEvent
from marslora.core.schedule import evaluation_steps
from marslora.core.spec import VALIDATION_WORK, PluginSpec
from marslora.engine import loop, worker
from marslora.engine.worker import run_pack
from tests.helpers.packs import go, member, tensors


def are_equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[key], second[key]) for key in first)


def are_close(first, second, tolerance=2e-4):
    assert first.keys() == second.keys()
    return all(
        float((first[key] - second[key]).abs().max()) <= tolerance * float(second[key].abs().max().clamp(min=1e-3))
        for key in first
    )


@pytest.fixture
def often(monkeypatch):
    """Checkpoints and progress events after every step."""
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "PROGRESS_SECONDS", 0.0)


def test_observations_come_at_the_scheduled_points(pack):
    spec = pack(member("a", language=4), member("b", until=24, vision=2, seed=1))
    seen = go(spec)
    steps = [0, *evaluation_steps(20, 5)]
    assert list(seen.curve("a")) == [8 * step for step in steps if step < 10] + [80]
    assert list(seen.curve("b")) == [8 * step for step in steps if step < 3] + [24]
    assert seen.curve("a")[0] == seen.curve("b")[0]
    assert seen.curve("a")[80] < seen.curve("a")[0] - 0.05
    assert all(0 <= value <= 1 for value in seen.curve("a", "validation_accuracy").values())
    assert list(seen.curve("a", "train_loss")) == list(seen.curve("a"))[1:]


def test_norms_of_updates_are_observed_only_if_asked_for(pack):
    members = (member("a", language=4), member("b", until=24, vision=2, seed=1))
    quiet = go(plain := pack(*members, folder="plain"))
    seen = go(measured := pack(*members, folder="measured"), measure_updates=True)
    assert seen.curve("a", "update_norm.language")[80] > 0
    assert seen.curve("b", "update_norm.vision")[24] > 0 and seen.curve("b", "update_norm.language")[24] == 0
    assert {event.metric for event in quiet.of(Observation)} == {
        "validation_loss", "validation_accuracy", "train_loss"
    }  # fmt: skip
    assert quiet.curve("a") == seen.curve("a") and are_equal(tensors(plain, "a"), tensors(measured, "a"))


def test_results_say_how_members_ended_and_what_it_cost(pack):
    seen = go(pack(member("a", language=4), member("b", until=24, language=2)))
    assert [seen.result(name).examples for name in "ab"] == [80, 24]
    assert {seen.result(name).status for name in "ab"} == {"complete"}
    total = seen.result("a").cost + seen.result("b").cost
    assert seen.pack.cost.examples == total.examples == 104
    assert seen.pack.cost.flops == pytest.approx(total.flops) and total.flops > 0
    assert seen.pack.cost.seconds == pytest.approx(total.seconds) and total.seconds > 0
    assert seen.pack.cost.peak_bytes > 0
    assert seen.pack.cost.work == 104 + VALIDATION_WORK * seen.pack.cost.validation_examples


def test_what_is_tried_out_before_training_is_paid_for(pack, monkeypatch):
    from marslora.engine import worker

    costs = [go(pack(member("a", language=4, until=16), member("b", language=2, until=16), folder="x")).pack.cost]
    monkeypatch.setattr(worker, "count_flops", lambda work: (work(), 0.0))
    costs.append(go(pack(member("a", language=4, until=16), member("b", language=2, until=16), folder="y")).pack.cost)
    assert costs[0].flops > costs[1].flops > 0


def test_a_member_is_the_same_in_any_pack(pack):
    a, b, c = member("a", language=4), member("b", vision=8, language=1, dropout=0.2, seed=7), member("c", projector=2)
    go(together := pack(a, b, c, folder="together"))
    go(alone := pack(b, folder="alone"))
    assert are_close(tensors(together, "b"), tensors(alone, "b"))


def test_a_member_that_ends_early_leaves_the_others_as_they_were(pack):
    a, short = member("a", language=4, dropout=0.1), member("short", until=20, language=8, seed=3)
    seen = go(mixed := pack(a, short, folder="mixed"))
    go(alone := pack(a, folder="alone"))
    assert seen.result("short").examples == 20 and list(seen.curve("short"))[-1] == 20
    assert are_close(tensors(mixed, "a"), tensors(alone, "a"))


def test_a_complete_member_is_told_again_and_not_trained(pack):
    spec = pack(member("a", language=4))
    first = go(spec)
    before = (Path(spec.checkpoint_folder) / "a" / "state.json").stat().st_mtime_ns
    second = go(spec)
    assert second.curve("a") == first.curve("a") and second.result("a") == first.result("a")
    assert (Path(spec.checkpoint_folder) / "a" / "state.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("die_after", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 9))])
def test_killed_and_started_again_ends_bit_for_bit_the_same(pack, often, die_after):
    members = (member("a", language=4, dropout=0.1), member("b", vision=8, language=1, seed=7))
    whole = go(kept := pack(*members, folder="kept"))
    go(killed := pack(*members, folder="killed"), die_after=die_after)
    again = go(killed)
    assert len(again.of(ProgressEvent)) == len(whole.of(ProgressEvent)) - (die_after - 1)
    for name in "ab":
        assert are_equal(tensors(killed, name), tensors(kept, name))
        assert are_equal(tensors(killed, name, "optimizer"), tensors(kept, name, "optimizer"))
        for metric in ("validation_loss", "train_loss"):
            assert again.curve(name, metric) == whole.curve(name, metric)


def test_a_longer_request_continues_the_shorter_one(pack):
    go(pack(member("a", until=24, language=4)))
    longer = go(spec := pack(member("a", language=4)))
    go(whole := pack(member("a", language=4), folder="whole"))
    assert are_equal(tensors(spec, "a"), tensors(whole, "a"))
    assert longer.result("a").cost.examples == 56
    assert {0, 24, 80} <= set(longer.curve("a"))


def test_members_behind_catch_up_and_go_on_together(pack):
    go(pack(member("a", until=24, language=4)))
    seen = go(spec := pack(member("a", language=4), member("b", language=2, seed=1)))
    go(alone := pack(member("b", language=2, seed=1), folder="alone"))
    assert [seen.result(name).examples for name in "ab"] == [80, 80]
    assert are_close(tensors(spec, "b"), tensors(alone, "b"))


def test_a_checkpoint_of_another_run_is_refused(pack):
    go(pack(member("a", until=8, language=4)))
    events = []
    run_pack(pack(member("a", until=8, language=2)), events.append)
    assert [event.error for event in events] == ["StudyError"] and "language=4" in events[0].message


def test_memory_that_is_too_small_splits_the_pack(pack):
    members = [member(name, language=4, seed=seed) for seed, name in enumerate("abc")]
    go(whole := pack(*members, folder="whole"))
    seen = go(split := pack(*members, folder="split", max_bytes=1))
    assert {seen.result(name).status for name in "abc"} == {"complete"}
    for name in "abc":
        assert are_close(tensors(split, name), tensors(whole, name))


def test_out_of_memory_splits_the_steps_and_then_halves_the_pack(pack, monkeypatch):
    real = loop.train_step
    sizes = []

    def small(pack, *args, **kwargs):
        sizes.append(pack.num_members)
        if pack.num_members > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(pack, *args, **kwargs)

    monkeypatch.setattr(loop, "train_step", small)
    seen = go(pack(*[member(name, until=16, language=4) for name in "abc"]))
    assert sizes == [3] * 4 + [1] * 6  # in 1, 2, 4 and 8 micro-batches, then alone
    assert {seen.result(name).status for name in "abc"} == {"complete"}


@pytest.mark.parametrize("said", ["could not create a primitive", "DefaultCPUAllocator: can't allocate memory"])
def test_a_run_that_does_not_fit_alone_says_what_would(pack, monkeypatch, said):
    def fail(*args, **kwargs):
        raise RuntimeError(said)

    monkeypatch.setattr(loop, "train_step", fail)
    events = []
    run_pack(pack(member("a", language=4), member("b", language=4), batch_size=8), events.append)
    failure = events[-1]
    assert failure.error == "OutOfMemoryError" and failure.may_pass
    assert failure.message.startswith(f"memory ran out while a was trained alone ({said}).")
    assert "What takes less: smaller rows (--max-pixels, --max-length), smaller --ranks" in failure.message


def test_a_pack_whose_members_cannot_be_compared_for_lack_of_memory_is_trained_one_by_one(pack, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(worker, "keeps_members_apart", fail)
    seen = go(pack(member("a", until=16, language=4), member("b", until=16, language=4)))
    assert {seen.result(name).status for name in "ab"} == {"complete"}


def test_a_diverged_member_is_frozen_and_the_others_do_not_notice(pack):
    good = member("good", language=4, dropout=0.1)
    wild = member("wild", language=8, seed=2, learning_rate=1e30)
    tame = member("wild", language=8, seed=2)
    seen = go(with_wild := pack(good, wild, folder="wild", clip_norm=0.0))
    go(without := pack(good, tame, folder="tame", clip_norm=0.0))
    result = seen.result("wild")
    assert result.status == "diverged" and result.examples < 80 and "NaN or infinite after" in result.message
    assert all(bool(tensor.isfinite().all()) for tensor in tensors(with_wild, "wild").values())
    assert are_equal(tensors(with_wild, "good"), tensors(without, "good"))
    assert go(with_wild).result("wild").status == "diverged"


def test_a_member_without_adapters_is_the_base(pack):
    seen = go(spec := pack(member("none"), member("a", language=4)))
    losses = list(seen.curve("none").values())
    assert losses == pytest.approx([losses[0]] * len(losses), abs=1e-6)
    assert tensors(spec, "none") == {}


def test_unequal_learning_rates_of_parts(pack):
    slow = go(pack(member("a", language=4, vision=4), part_learning_rates={"vision": 1e-5}), measure_updates=True)
    assert slow.curve("a", "update_norm.vision")[80] < 0.02 * slow.curve("a", "update_norm.language")[80]


@pytest.mark.parametrize(
    ("requested", "training", "error", "words"),
    [
        (member("a", language=4), {"part_learning_rates": {"voice": 1e-5}}, "ConfigError", "voice"),
        (member("a", voice=4), {}, "ConfigError", "voice"),
        (member("a", language=4), {"optimizer": PluginSpec(name="best")}, "ConfigError", "adamw"),
        (member("a", language=4), {"adapter": PluginSpec(name="best")}, "ConfigError", "lora"),
        (member("short", until=40, language=4), {}, "StudyError", "multiple of 8"),
    ],
)
def test_what_cannot_be_trained_is_one_failure(pack, requested, training, error, words):
    go(pack(member("short", until=20, language=4)))
    events = []
    run_pack(pack(requested, **training), events.append)
    assert events[-1].error == error and words in events[-1].message


def test_state_is_plain_json(pack):
    go(spec := pack(member("a", until=8, language=4, seed=5)))
    state = json.loads((Path(spec.checkpoint_folder) / "a" / "state.json").read_text())
    assert (state["examples"], state["step"], state["status"], state["seed"]) == (8, 1, "complete", 5)
    assert math.isfinite(state["points"][0][2])
