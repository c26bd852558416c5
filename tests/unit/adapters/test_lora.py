import math

import pytest
import torch
from torch import nn

from marslora.adapters import MemberSettings, TrainingPosition, _products
from marslora.adapters._dropout import drop
from marslora.adapters._full import WholeLinear
from marslora.adapters.lora import Lora

MEMBERS = (MemberSettings(2, 2.0, seed=1), MemberSettings(0, 2.0, seed=2), MemberSettings(5, 0.5, dropout=0.4, seed=3))


def frozen(inputs=6, outputs=4, bias=True):
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


def randomise(adapter):
    for factor in adapter.factors():
        for k in range(adapter.num_members):
            view = adapter.member_view(factor, k)
            view.copy_(torch.randn(view.shape, generator=torch.Generator().manual_seed(k)))
    return adapter


def test_a_fresh_adapter_changes_no_bit():
    x = torch.randn(9, 7, 6)
    assert torch.equal(Lora(base := frozen(), "fc", MEMBERS, TrainingPosition())(x), base(x))


def test_a_starts_as_peft_draws_it_and_b_at_zero():
    A_KRI, B_KOR = (
        factor.parameter for factor in Lora(frozen(300), "fc", (MemberSettings(64),), TrainingPosition()).factors()
    )
    bound = 1 / math.sqrt(300)
    assert A_KRI.abs().max().item() <= bound and A_KRI.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not B_KOR.any()


def test_every_module_starts_with_its_own_numbers():
    alone = Lora(frozen(), "fc", MEMBERS[2:], TrainingPosition())
    elsewhere = Lora(frozen(), "other", MEMBERS[2:], TrainingPosition())
    assert not torch.equal(alone.A_KRI, elsewhere.A_KRI)


def test_members_are_chunks_and_ranks_are_their_own():
    adapter = randomise(Lora(base := frozen(), "fc", MEMBERS, TrainingPosition()))
    x = torch.randn(6, 3, 6)
    for k, (chunk, member) in enumerate(zip(x.chunk(3), MEMBERS, strict=True)):
        A, B = (adapter.member_view(factor, k) for factor in adapter.factors())
        expected = base(chunk) + member.scale * chunk @ A.T @ B.T
        assert torch.allclose(adapter(x).chunk(3)[k], expected, atol=1e-6)
    assert torch.equal(adapter(x).chunk(3)[1], base(x).chunk(3)[1])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_concatenated_ranks_give_what_padded_ones_give(monkeypatch, dropout):
    members = [MemberSettings(rank, 0.5 + rank, dropout, seed=rank) for rank in (1, 0, 6, 2)]
    found = []
    for limit in (0.0, 1.1):
        monkeypatch.setattr(_products, "PADDING_WORTH_AVOIDING", limit)
        adapter = randomise(Lora(frozen(), "fc", members, TrainingPosition(training=True)))
        x = torch.randn(8, 3, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
        y = adapter(x * 1.0)
        y.sin().sum().backward()
        found.append((y.detach(), x.grad, adapter.A_KRI.grad, adapter.B_KOR.grad))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_dropout_depends_on_the_clock_and_the_member_alone():
    x = torch.randn(3, 50, 6)
    packed = randomise(Lora(base := frozen(), "fc", MEMBERS, position := TrainingPosition(training=True)))
    alone = randomise(Lora(base, "fc", MEMBERS[2:], position))
    alone.load_member(0, {f"fc.{f.key}": packed.member_view(f, 2) for f in packed.factors()})
    first = packed(x)
    assert torch.equal(packed(x), first)
    assert torch.allclose(alone(x[2:]), first[2:], atol=1e-6)
    position.micro_step = 1
    second = packed(x)
    assert torch.equal(second[:2], first[:2]) and not torch.equal(second[2], first[2])
    position.training = False
    assert not torch.equal(packed(x)[2], second[2])


def test_masks_do_not_depend_on_the_precision():
    members = (MemberSettings(1, dropout=0.1, seed=3),)
    exact, half = (
        drop(torch.ones(1, 50, 6, dtype=t), members, "fc", TrainingPosition(training=True))
        for t in (None, torch.bfloat16)
    )
    assert torch.equal(exact > 0, half > 0) and float(half.max()) == float(torch.tensor(1 / 0.9, dtype=torch.bfloat16))


def test_dropout_keeps_the_mean():
    members = (MemberSettings(1, dropout=0.25),)
    adapter = Lora(frozen(400, 1), "fc", members, TrainingPosition(training=True))
    adapter.A_KRI.data.fill_(1.0)
    adapter.B_KOR.data.fill_(1.0)
    x = torch.ones(1, 200, 400)
    change = adapter(x) - adapter.base(x)
    assert change.mean().item() == pytest.approx(400, rel=0.01) and change.std().item() > 1


def test_half_precision_linears_have_float32_factors():
    adapter = randomise(Lora(frozen().to(torch.bfloat16), "fc", MEMBERS, TrainingPosition()))
    x = torch.randn(3, 2, 6, dtype=torch.bfloat16)
    assert {factor.parameter.dtype for factor in adapter.factors()} == {torch.float32}
    assert adapter(x).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(adapter(x).float(), adapter(x).float(), atol=0.1)


def test_what_a_model_reads_of_its_linear_is_still_there():
    adapter = Lora(base := frozen(), "fc", MEMBERS, TrainingPosition())
    assert adapter.weight is base.weight and adapter.in_features == 6
    with pytest.raises(AttributeError):
        _ = adapter.nonsense


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_trained_whole(bias):
    adapter = WholeLinear(base := frozen(bias=bias), "fc", MEMBERS, TrainingPosition())
    x = torch.randn(6, 3, 6)
    assert torch.allclose(adapter(x), base(x), atol=1e-6)
    adapter.weight_K.data[1] *= 2
    assert torch.allclose(adapter(x).chunk(3)[0], base(x).chunk(3)[0], atol=1e-6)
    assert not torch.allclose(adapter(x).chunk(3)[1], base(x).chunk(3)[1], atol=1e-2)
    assert [factor.key for factor in adapter.factors()] == ["weight", "bias"][: 1 + bias]


def test_conv1d_of_gpt2():
    from transformers.pytorch_utils import Conv1D

    base = Conv1D(4, 6).requires_grad_(False)
    x = torch.randn(3, 2, 6)
    assert torch.equal(Lora(base, "fc", MEMBERS, TrainingPosition())(x), base(x))
    assert torch.allclose(WholeLinear(base, "fc", MEMBERS, TrainingPosition())(x), base(x), atol=1e-6)
