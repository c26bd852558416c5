"""The central test: members trained together end where PEFT takes each of them alone."""

import functools

import pytest
import torch

from tests.helpers.exactness import assert_twins, distance
from tests.twins.worlds import member, tiny_base, train_packed, trained_twice, varied


def three(base, **fields):
    """Ranks 1, 4, 16 with unequal seeds, learning rates, scales and dropout."""
    return [
        member(base, 1, seed=1, learning_rate=2**-10, decays=True, **{"dropout": 0.1, **fields}),
        member(base, 4, seed=2, learning_rate=2**-8, alpha_over_rank=1.0, **{"dropout": 0.3, **fields}),
        member(base, 16, seed=3, **fields),
    ]


def check(specs_of, num_steps, name="llava", **settings):
    """Members of a pack, ``specs_of(base)``, end where PEFT takes them."""

    def train(dtype):
        base, batch = tiny_base(name, dtype, **settings)
        return trained_twice(base, specs_of(base), varied(batch, num_steps, settings.get("accumulation", 1)))

    assert_twins(train)


@pytest.mark.parametrize("num_steps", [12, pytest.param(50, marks=pytest.mark.slow)])
def test_many_steps(num_steps):
    check(three, num_steps, clip_norm=0.5, warmup=0.1, weight_decay=0.01, part_learning_rates={"vision": 2**-10})


def test_clipping_is_at_work_in_them():
    base, batch = tiny_base(clip_norm=0.5)
    free, _ = tiny_base(clip_norm=0.0)
    steps = varied(batch, 3)
    assert distance(train_packed(base, three(base), steps)[0][2], train_packed(free, three(free), steps)[0][2]) > 1e-3


def test_accumulation():
    check(three, 4, accumulation=2)


def test_different_ranks_by_part_and_parts_left_alone():
    def specs(base):
        return [
            member(base, {"vision": 2, "projector": 0, "language": 8}, seed=5),
            member(base, {"vision": 0, "projector": 4, "language": 1}, seed=6),
            member(base, {"vision": 8, "projector": 16, "language": 0}, seed=7),
        ]

    check(specs, 5, dropout=0.2)


def test_stacked_experts():
    check(functools.partial(three, dropout=0.0), 4, "qwen3_vl_moe", experts=True)
    base, batch = tiny_base("qwen3_vl_moe", experts=True)
    (weights, *_), _ = train_packed(base, three(base, dropout=0.0), varied(batch, 1))
    assert len([key for key in weights if ".experts." in key]) == 2 * 2 * 2  # layers, parameters, factors


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_a_projector_trained_whole(name):
    check(three, 5, name, full=("projector",))
    base, batch = tiny_base(name, full=("projector",))
    before = base.model.model.multi_modal_projector
    trained_twice(base, three(base)[:1], varied(batch, 1))
    assert base.model.model.multi_modal_projector is before
    (one, *_), _ = train_packed(base, three(base), varied(batch, 1))
    projector = dict(before.named_parameters(prefix="model.multi_modal_projector"))
    assert len(projector) == (2 if name == "gemma3" else 4)
    assert all(not torch.equal(one[key], projector[key]) for key in projector)
