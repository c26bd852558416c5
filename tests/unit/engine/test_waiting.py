"""How often the CPU waits for the device. There is no GPU here: a pretended device counts."""

import pytest
import torch

from marslora import optim
from marslora.core import plugins
from marslora.engine.evaluate import evaluate
from marslora.engine.pack import Base, Member, Pack
from marslora.engine.speedups import Speedups
from marslora.engine.step import train_step
from marslora.engine.towers import FrozenTower
from marslora.models.answers import running_on
from tests.helpers.pretend_device import DEVICE, OURS, pretend_device
from tests.twins.worlds import member, tiny_base, varied


def train(base, specs, steps, places, wait_for=0):
    """The losses of each step, and where the CPU waited in those after the first ``wait_for``."""
    losses, waits = [], []
    speedups = Speedups.of(base, 1 << 30)
    alive = torch.ones(len(specs), dtype=torch.bool)
    with Pack(base, [Member(spec) for spec in specs]) as pack, speedups.apply(base, len(specs), pack.parts):
        for step, batches in enumerate(steps):
            pack.position.step = step
            pack.set_rates(step, 100)
            before = len(places)
            result = train_step(pack, [base.batch(batch) for batch in batches], alive)
            alive = alive & result.is_finite_K
            losses.append(result.loss_K)
            if step >= wait_for:
                waits.append([place for place in places[before:] if OURS in place])
    return torch.stack(losses), waits


def train_far(monkeypatch, name, specs_of, steps_of, *, wait_for=0, **training):
    with pretend_device(monkeypatch) as places:
        base, batch = tiny_base(name, **training)
        far = Base(base.model.to(DEVICE), base.info, base.training, DEVICE, base.dtype, base.head)
        return train(far, specs_of(far), steps_of(batch), places, wait_for)


CASES = {
    **{f"optimizer {name}": {"optimizer": name} for name in plugins.names(optim)},
    "dora": {"adapter": "lora:use_dora=true"},
    "no clipping": {"clip_norm": 0.0},
}


def ranks(count):
    """Members of different ranks and rates."""

    def specs(base):
        return [
            member(base, {"vision": k, "projector": 0, "language": 1 + k}, seed=k, learning_rate=2.0**-8 / (1 + k))
            for k in range(count)
        ]

    return specs


@pytest.mark.parametrize("training", CASES.values(), ids=CASES)
def test_a_step_waits_once_however_many_members_train(monkeypatch, training):
    losses, waits = train_far(monkeypatch, "llava", ranks(4), lambda batch: varied(batch, 2, 2), **training)
    assert losses.isfinite().all()
    assert [len(places) for places in waits] == [1, 1], waits


def test_a_member_that_diverged_costs_no_more_waiting(monkeypatch):
    def specs(base):
        first, second = ranks(2)(base)
        return [first.model_copy(update={"learning_rate": 1e30}), second]

    losses, waits = train_far(monkeypatch, "llava", specs, lambda batch: varied(batch, 4), wait_for=2)
    assert not losses[-1, 0].isfinite() and losses[-1, 1].isfinite()
    assert [len(places) for places in waits] == [1, 1], waits


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "qwen2_audio"])
def test_remembered_features_are_found_without_waiting(monkeypatch, name):
    """The first steps find out how the tower may be run; from then on its pictures are known on the CPU."""

    def specs(base):
        return [member(base, {**{part.name: 0 for part in base.info.parts}, "language": 1 + k}) for k in range(3)]

    def steps(batch):
        return varied(batch, 2) * 2

    far, waits = train_far(monkeypatch, name, specs, steps, wait_for=1)
    assert [len(places) for places in waits] == [1, 1, 1], waits
    base, batch = tiny_base(name)
    near, _ = train(base, specs(base), steps(batch), [])
    torch.testing.assert_close(far, near, rtol=1e-4, atol=1e-5)


def test_pictures_that_differ_are_told_apart_by_what_the_cpu_has(monkeypatch):
    with pretend_device(monkeypatch):
        tower, module = FrozenTower(1 << 20, plan="items"), torch.nn.Identity()
        with tower.replace_forward(module, 1):
            for value in (0.0, 1.0, 0.0):
                pixels = torch.full((2, 3), value)
                with running_on({"pixels": pixels}):
                    assert torch.equal(module(pixels.to(DEVICE)).cpu(), pixels)
    assert len(tower._features) == 2


def test_a_validation_waits_once(monkeypatch):
    with pretend_device(monkeypatch) as places:
        base, batch = tiny_base("llava")
        far = Base(base.model.to(DEVICE), base.info, base.training, DEVICE, base.dtype, base.head)
        with Pack(far, [Member(spec) for spec in ranks(3)(far)]) as pack:
            places.clear()
            evaluate(far, [piece for (piece,) in varied(batch, 4)], pack)
    assert sum(OURS in place for place in places) == 1, places
