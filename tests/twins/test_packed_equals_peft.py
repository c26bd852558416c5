"""The central test: members trained together end where PEFT takes each of them alone."""

import pytest
import torch

from tests.twins.worlds import distance, member, tiny_base, train_alone, train_packed, varied

EXACT = 1e-5
ROUNDING = 1e-4
"""Of weights where a model computes in float32 inside: Adam divides tiny gradients by their own size."""


def three(base, **fields):
    """Ranks 1, 4, 16 with unequal seeds, learning rates, scales and dropout."""
    return [
        member(base, 1, seed=1, learning_rate=1e-3, decays=True, **{"dropout": 0.1, **fields}),
        member(base, 4, seed=2, learning_rate=4e-3, alpha_over_rank=1.0, **{"dropout": 0.3, **fields}),
        member(base, 16, seed=3, **fields),
    ]


def check(base, specs, steps, tolerance=EXACT):
    together, losses = train_packed(base, specs, steps)
    for index, spec in enumerate(specs):
        alone, own_losses = train_alone(base, spec, steps)
        assert torch.allclose(losses[:, index].to(own_losses), own_losses, rtol=1e-5), spec.id
        assert distance(together[index], alone) < tolerance, spec.id


@pytest.mark.parametrize("num_steps", [12, pytest.param(50, marks=pytest.mark.slow)])
def test_many_steps(num_steps):
    base, batch = tiny_base(clip_norm=0.5, warmup=0.1, weight_decay=0.01, part_learning_rates={"vision": 1e-3})
    check(base, three(base), varied(batch, num_steps))


def test_clipping_is_at_work_in_them():
    base, batch = tiny_base(clip_norm=0.5)
    free, _ = tiny_base(clip_norm=0.0)
    steps = varied(batch, 3)
    assert distance(train_packed(base, three(base), steps)[0][2], train_packed(free, three(free), steps)[0][2]) > 1e-3


def test_accumulation():
    base, batch = tiny_base(accumulation=2)
    check(base, three(base), varied(batch, 4, accumulation=2))


def test_different_ranks_by_part_and_parts_left_alone():
    base, batch = tiny_base(dropout=0.2)
    specs = [
        member(base, {"vision": 2, "projector": 0, "language": 8}, seed=5),
        member(base, {"vision": 0, "projector": 4, "language": 1}, seed=6),
        member(base, {"vision": 8, "projector": 16, "language": 0}, seed=7),
    ]
    check(base, specs, varied(batch, 5))


def test_stacked_experts():
    base, batch = tiny_base("qwen3_vl_moe", experts=True)
    check(base, three(base, dropout=0.0), varied(batch, 4), ROUNDING)
    (weights, *_), _ = train_packed(base, three(base, dropout=0.0), varied(batch, 1))
    assert len([key for key in weights if ".experts." in key]) == 2 * 2 * 2  # layers, parameters, factors


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_a_projector_trained_whole(name):
    base, batch = tiny_base(name, torch.float64, full=("projector",))
    before = base.model.model.multi_modal_projector
    check(base, three(base), varied(batch, 5), ROUNDING)
    assert base.model.model.multi_modal_projector is before
    (one, *_), _ = train_packed(base, three(base), varied(batch, 1))
    projector = dict(before.named_parameters(prefix="model.multi_modal_projector"))
    assert len(projector) == (2 if name == "gemma3" else 4)
    assert all(not torch.equal(one[key], projector[key]) for key in projector)
