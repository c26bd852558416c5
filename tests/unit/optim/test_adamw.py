"""AdamW against torch's own, and one member's state on its own."""

import pytest
import torch

from marslora.core.errors import ConfigError
from marslora.optim.adamw import AdamW


def twins(dtype, count=3):
    ours = [torch.randn(4, 7, dtype=dtype, requires_grad=True) for _ in range(count)]
    return ours, [param.detach().clone().requires_grad_() for param in ours]


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-14), (torch.float32, 5e-7)])
def test_equals_torch(dtype, atol):
    torch.manual_seed(0)
    ours, theirs = twins(dtype)
    mine = AdamW(ours, lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1)
    oracle = torch.optim.AdamW(theirs, lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1, foreach=True)
    for step in range(50):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a) * 10.0 ** (step % 3)
            b.grad = a.grad.clone()
        mine.step()
        oracle.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=atol)
        for name in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.allclose(mine.state[a][name], oracle.state[b][name], rtol=1e-6, atol=atol)


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
