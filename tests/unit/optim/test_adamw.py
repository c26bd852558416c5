"""AdamW against torch's own, and one member's state on its own."""

import pytest
import torch
from tests.helpers.exactness import assert_as_near, assert_exact

from marslora.core.errors import ConfigError
from marslora.optim.adamw import AdamW


def train(kind, dtype, **options):
    """Parameters and state after 50 steps with gradients of three sizes, in turn."""
    make = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(4, 7, generator=make, dtype=torch.float64).to(dtype)

    params = [draw().requires_grad_() for _ in range(3)]
    optimizer = kind(params, lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1, **options)
    for step in range(50):
        for param in params:
            param.grad = draw() * 10.0 ** (step % 3)
        optimizer.step()
    states = [optimizer.state[param] for param in params]
    assert all(state["step"] == 50 for state in states)
    moments = {f"{name} {i}": state[name] for i, state in enumerate(states) for name in ("exp_avg", "exp_avg_sq")}
    return moments | {str(i): param.detach() for i, param in enumerate(params)}


def test_equals_torch():
    exact = train(torch.optim.AdamW, torch.float64, foreach=True)
    assert_exact(train(AdamW, torch.float64), exact)
    assert_as_near(train(AdamW, torch.float32), train(torch.optim.AdamW, torch.float32, foreach=True), exact)


def test_a_members_state_continues_alone():
    torch.manual_seed(0)
    pack = torch.nn.Parameter(torch.randn(2, 4, 5, dtype=torch.float64))
    with torch.no_grad():
        pack[0, 2:] = 0
    packed = AdamW([{"params": [pack], "members": 2, "ranks": (2, 4), "role": "A"}], lr=1e-2)
    for _ in range(3):
        pack.grad = torch.randn_like(pack)
        packed.step()
    solo = torch.nn.Parameter(pack.detach()[0, :2].clone())
    alone = AdamW([solo], lr=1e-2)
    alone.load_member_state(solo, 0, packed.member_state(pack, 0))
    pack.grad = torch.randn_like(pack)
    solo.grad = pack.grad[0, :2].clone()
    packed.step()
    alone.step()
    assert torch.equal(pack[0, :2], solo)
    assert not pack[0, 2:].any()
    assert alone.member_state(solo)["step"] == 4


def test_state_of_another_rank_is_refused():
    param = torch.nn.Parameter(torch.zeros(2, 4, 5))
    optimizer = AdamW([{"params": [param], "members": 2, "ranks": (2, 4), "role": "A"}])
    state = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3, 5), "exp_avg_sq": torch.zeros(3, 5)}
    with pytest.raises(ConfigError, match=r"must have shape \(2, 5\)"):
        optimizer.load_member_state(param, 0, state)
