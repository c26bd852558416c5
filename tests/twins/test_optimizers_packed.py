"""Every optimizer in a pack of different ranks, against the same optimizer on PEFT alone."""

import pytest
import torch

from marslora import optim
from marslora.core import plugins
from marslora.engine.flops import count_flops
from marslora.engine.pack import Member, Pack
from marslora.engine.step import train_step
from tests.helpers.exactness import assert_exact, assert_twins, keep_float64
from tests.twins.worlds import member, tiny_base, train_alone, train_packed, trained_twice, varied

WITH_EXACT_STEPS = {"mars_m": {"exact": True}, "muon_mvr": {}, "mars_adamw": {"exact": True}}


@pytest.mark.parametrize("name", plugins.names(optim))
def test_a_pack_is_its_members_on_peft(name):
    def train(dtype):
        base, batch = tiny_base(dtype=dtype, optimizer={"name": name}, weight_decay=0.1)
        specs = [member(base, 2, seed=1), member(base, 8, seed=2, learning_rate=2**-8)]
        return trained_twice(base, specs, varied(batch, 3))

    assert_twins(train)


def exact_world(name="mars_m", *, clip_norm=0.05, **options):
    """A float64 base whose members drop, decay and accumulate over two micro-batches; two members, and a batch."""
    base, batch = tiny_base(
        dtype=torch.float64,
        optimizer={"name": name, "options": {**WITH_EXACT_STEPS[name], **options}},
        learning_rate=2**-10,
        clip_norm=clip_norm,
        dropout=0.3,
        accumulation=2,
        weight_decay=0.1,
    )
    return base, [member(base, 2, seed=1), member(base, 8, seed=2, learning_rate=2**-8)], batch


@pytest.mark.parametrize(
    ("name", "count"), [("mars_m", 4), *(pytest.param(name, 50, marks=pytest.mark.slow) for name in WITH_EXACT_STEPS)]
)
def test_exact_steps_of_a_pack_are_its_members_on_peft(name, count):
    base, specs, batch = exact_world(name)
    with keep_float64():
        packed, alone = trained_twice(base, specs, varied(batch, count, accumulation=2))
    for ours, theirs in zip(packed, alone, strict=True):
        assert_exact(ours, theirs)


def test_the_previous_point_sees_the_same_masks():
    """Of members that stand still, L is the gradient itself, so that gamma changes nothing."""
    momenta = []
    for gamma in (0.0, 1.0):
        base, specs, batch = exact_world(gamma=gamma)

        def stand_still(pack, _step, kept=momenta):
            kept.append([state["momentum"].clone() for state in pack.optimizer.state.values()])
            for group in pack.optimizer.param_groups:
                group["lr"] = 0.0

        train_packed(base, specs, varied(batch, 4, accumulation=2), pack_hook=stand_still)
    assert max(float(momentum.abs().max()) for momentum in momenta[3]) > 0
    for a, b in zip(momenta[3], momenta[7], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-15)


def test_a_member_whose_previous_point_is_broken_stops_alone():
    base, specs, batch = exact_world()
    steps = varied(batch, 4, accumulation=2)

    def break_first(pack, step):
        for state in pack.optimizer.state.values() if step == 2 else ():
            state["last_point"][0] = torch.inf

    with keep_float64():
        packed, _ = train_packed(base, specs, steps, pack_hook=break_first)
        assert_exact(packed[0], train_alone(base, specs[0], steps[:2])[0])
        assert_exact(packed[1], train_alone(base, specs[1], steps)[0])


def test_exact_steps_go_on_from_a_checkpoint():
    base, specs, batch = exact_world()
    steps = varied(batch, 4, accumulation=2)
    members = [Member(spec) for spec in specs]
    for half in (range(2), range(2, 4)):
        with Pack(base, members) as pack:
            for pack.position.step in half:
                pack.set_rates(pack.position.step, 100)
                batches = [base.batch(one) for one in steps[pack.position.step]]
                train_step(pack, batches, torch.ones(2, dtype=torch.bool))
            members = pack.copy_members(half.stop)
    straight, _ = train_packed(base, specs, steps)
    for found, weights in zip(members, straight, strict=True):
        assert_exact(found.weights, weights)


def test_exact_steps_cost_two_passes():
    def flops(exact):
        base, specs, batch = exact_world(exact=exact, precondition="polar")
        return count_flops(lambda: train_packed(base, specs, varied(batch, 2, accumulation=2)))[1]

    assert 1.9 < flops(exact=True) / flops(exact=False) <= 2.0
