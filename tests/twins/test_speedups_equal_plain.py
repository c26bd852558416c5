"""Each speedup against the plain path."""

import pytest
import torch

from marslora.engine import images
from marslora.engine.check import keeps_members_apart
from marslora.engine.flops import count_flops
from marslora.engine.pack import Member, Pack
from marslora.engine.speedups import Speedups, recomputed_layers
from marslora.models.answers import AnswerHead
from tests.helpers.tiny_models import TINY
from tests.twins.worlds import member, packed_gradients, tiny_base, train_packed, varied

TOWER_PLANS = {"llava": "items", "qwen2_5_vl": "items", "qwen2_audio": "items", "mistral3": "plain", "gemma3": "items"}
ROOM = 1 << 30


def language_only(base, rank, seed):
    return member(base, {part.name: rank if part.name == "language" else 0 for part in base.info.parts}, seed=seed)


def losses_with_towers(name, room=ROOM):
    """Losses of three members with the towers plain, then twice with them frozen; the towers."""
    base, batch = tiny_base(name)
    speedups = Speedups.of(base, room)
    moved = base.batch(batch)
    speedups.find_used_outputs(base, moved)
    found = []
    with Pack(base, [Member(language_only(base, 4, seed)) for seed in range(3)]) as pack:
        for _, _, factor in pack.factors():
            factor.parameter.data.normal_(generator=torch.Generator().manual_seed(0)).mul_(0.1)
        found.append(pack.nats(moved))
        with speedups.apply(base, 3, pack.parts):
            found += [pack.nats(moved), pack.nats(moved)]
    return found, [tower for tower in speedups.towers.values() if tower.plan is not None]


@pytest.mark.parametrize("name", TOWER_PLANS)
def test_a_frozen_tower_gives_what_it_gave(name):
    (plain, first, again), towers = losses_with_towers(name)
    assert torch.allclose(plain, first, rtol=1e-5) and torch.allclose(plain, again, rtol=1e-5)
    assert towers[0].plan == TOWER_PLANS[name]
    assert (towers[0].num_bytes > 0) == (towers[0].plan == "items")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TINY if name not in TOWER_PLANS])
def test_all_frozen_towers(name):
    (plain, first, again), _ = losses_with_towers(name)
    assert torch.allclose(plain, first, rtol=1e-5) and torch.allclose(plain, again, rtol=1e-5)


def test_features_are_computed_once_and_only_what_is_read_is_kept():
    base, batch = tiny_base("llava")  # reads the last hidden state but one
    speedups = Speedups.of(base, ROOM)
    moved = base.batch(batch)
    speedups.find_used_outputs(base, moved)
    tower = speedups.towers["model.vision_tower"]
    with Pack(base, [Member(language_only(base, 4, 0))]) as pack, speedups.apply(base, 1, pack.parts):
        pack.nats(moved)
        spent = tower.flops
        pack.nats(moved)
    assert spent > 0 and tower.flops == spent
    width, tokens, rows = 32, 5, 2
    assert tower.num_bytes < 2 * rows * tokens * width * 4


@pytest.mark.parametrize("adapted", ["language", "projector"])
def test_what_lies_before_the_adapted_parts_costs_nothing_the_second_time(adapted):
    base, batch = tiny_base("llava")
    moved, model = base.batch(batch), base.model
    speedups = Speedups.of(base, ROOM)
    speedups.find_used_outputs(base, moved)
    pictures = moved.inputs["pixel_values"]
    prefix = model.get_image_features if adapted == "language" else model.model.vision_tower
    _, saved = count_flops(lambda: prefix(pixel_values=pictures))
    ranks = {part.name: 4 if part.name in (adapted, "language") else 0 for part in base.info.parts}
    with Pack(base, [Member(member(base, ranks, seed=seed)) for seed in range(4)]) as pack:
        _, plain = count_flops(lambda: pack.nats(moved))
        with speedups.apply(base, 4, pack.parts):
            pack.nats(moved)
            _, again = count_flops(lambda: pack.nats(moved))
    assert saved > 0 and plain - again == pytest.approx(4 * saved)


def test_no_room_means_computed_again():
    (plain, first, again), towers = losses_with_towers("llava", room=0)
    assert torch.allclose(plain, again, rtol=1e-5) and torch.equal(first, again)
    assert towers[0].num_bytes == 0


def test_a_tower_before_an_adapted_projector_is_frozen_and_one_behind_an_adapted_tower_is_not():
    base, _ = tiny_base("llava")
    speedups = Speedups.of(base, ROOM)
    tower, projector = (base.model.get_submodule(path) for path in speedups.towers)

    def replaced(*adapted):
        with speedups.apply(base, 2, adapted):
            return ["forward" in vars(module) for module in (tower, projector)]

    assert replaced("model.language_model.layers.0.q_proj") == [True, True]
    assert replaced("model.multi_modal_projector.linear_1") == [True, False]
    assert replaced("model.vision_tower.encoder.layers.0.fc1") == [False, False]


def test_logits_at_answers_equal_all_logits():
    for name in ("llava", "qwen2_vl", "florence2"):
        base, batch = tiny_base(name)
        specs = [member(base, rank, seed=rank) for rank in (2, 3)]
        assert base.head is not None
        _, few = packed_gradients(base, specs, batch)
        base.head = None
        _, all_of_them = packed_gradients(base, specs, batch)
        for ours, plain in zip(few, all_of_them, strict=True):
            assert all(torch.allclose(ours[key], plain[key], rtol=1e-4, atol=1e-5) for key in plain)


def test_logits_at_answers_cost_less():
    base, batch = tiny_base("llava")
    moved = base.batch(batch)
    costs = []
    for head in (AnswerHead(base.model), None):
        base.head = head
        with Pack(base, [Member(member(base, 2))]) as pack:
            costs.append(count_flops(lambda pack=pack: pack.nats(moved))[1])
    assert costs[0] < costs[1]


def test_recomputed_layers_train_the_same_with_dropout():
    base, batch = tiny_base(dropout=0.2)
    specs = [member(base, rank, seed=rank) for rank in (2, 5)]
    steps = varied(batch, 4)
    plain, _ = train_packed(base, specs, steps)
    with recomputed_layers(base.model):
        again, _ = train_packed(base, specs, steps)
    for ours, theirs in zip(again, plain, strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_model_that_runs_a_part_once_for_every_image_is_found_out(monkeypatch):
    for name, known, apart in (
        ("llava", images.BY_IMAGE, True),
        ("qwen2_5_vl", images.BY_IMAGE, True),
        ("phi4_multimodal", images.BY_IMAGE, True),
        ("phi4_multimodal", {}, False),
    ):
        monkeypatch.setattr(images, "BY_IMAGE", known)
        base, batch = tiny_base(name)
        specs = (member(base, 4, seed=1), member(base, 2, seed=2))
        assert keeps_members_apart(base, specs, base.batch(batch)) is apart
