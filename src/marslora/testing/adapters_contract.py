"""What every packed adapter promises: members of a pack never influence each other, and start and load by themselves.

Subclass the class in a test file of your own and return your plugin from the fixture `kind`; pytest runs the rest. An
adapter is also trained in the final run: `MethodContract` states what it promises there.
"""

import dataclasses

import pytest
import torch
from torch import nn

from marslora.adapters import MemberSettings, TrainingPosition, member_generator
from marslora.core.errors import ConfigError, StudyError
from marslora.core.linears import RANK_DIMS

MEMBERS = (MemberSettings(2, 2.0, seed=1), MemberSettings(0, 2.0, seed=2), MemberSettings(5, 0.5, seed=3))
PATH = "fc"
ROLES = {"A", "B", "magnitude", "full"}


def frozen_linear(dtype=torch.float32):
    linear = nn.Linear(6, 4).requires_grad_(False)
    for name, parameter in linear.named_parameters():
        nn.init.normal_(parameter, generator=member_generator(0, PATH, name))
    return linear.to(dtype)


def draw_inputs(members=len(MEMBERS), dtype=torch.float32):
    """Two rows of three vectors for each member."""
    return torch.randn(2 * members, 3, 6, generator=torch.Generator().manual_seed(0)).to(dtype)


def move(adapter):
    """Move what each member trains by random numbers that depend on the member alone."""
    for factor in adapter.factors():
        for k, member in enumerate(adapter.members):
            if adapter.owns(k):
                view = adapter.member_view(factor, k)
                generator = member_generator(member.seed, PATH, f"move {factor.name}")
                view.add_(0.5 * torch.randn(view.shape, generator=generator, dtype=view.dtype))
    return adapter


def stored(adapter, member):
    """What a checkpoint holds of a member."""
    views = {factor.key: adapter.to_peft(factor, adapter.member_view(factor, member)) for factor in adapter.factors()}
    return {f"{PATH}.{key}": view.clone() for key, view in views.items()}


def gradients(adapter, x):
    """The gradient of each factor of a loss that adds up the members' losses."""
    adapter(x).sin().sum().backward()
    return {factor.name: factor.parameter.grad for factor in adapter.factors()}


class AdapterContract:
    """What every packed adapter promises: members of a pack never influence each other."""

    @pytest.fixture
    def kind(self):
        """Return the class to check."""
        raise NotImplementedError("Define the fixture `kind` in a subclass.")

    @pytest.fixture
    def options(self):
        """Return the options to check the class with."""
        return {}

    @pytest.fixture
    def make(self, kind, options):
        """Return a function that makes an adapter for some members."""

        def make(members=MEMBERS, base=None, position=None):
            return kind(base or frozen_linear(), PATH, members, position or TrainingPosition(), **options)

        return make

    def test_it_says_whether_it_merges_and_what_serves_it(self, kind):
        assert kind.merges in ("yes", "by task", "no")
        assert "server" in kind.serves or "Python" in kind.serves

    def test_an_unknown_option_is_refused(self, kind):
        with pytest.raises(ConfigError, match=r"has no option \['nonsense'\]"):
            kind(frozen_linear(), PATH, MEMBERS, TrainingPosition(), nonsense=1)

    def test_a_fresh_adapter_computes_what_the_linear_computes(self, make):
        x = draw_inputs()
        torch.testing.assert_close(make()(x), frozen_linear()(x))

    def test_factors_are_stacked_over_members_and_padded_to_the_largest_rank(self, make):
        adapter = make()
        factors = adapter.factors()
        assert len({factor.name for factor in factors}) == len({factor.key for factor in factors}) == len(factors) > 0
        for factor in factors:
            assert factor.role in ROLES
            assert factor.parameter.requires_grad and len(factor.parameter) == len(MEMBERS)
            if (dim := RANK_DIMS.get(factor.role)) is not None:
                assert factor.parameter.shape[dim] == max(adapter.ranks)
                assert [adapter.member_view(factor, k).shape[dim] for k in range(3)] == [2, 0, 5]

    def test_a_member_starts_the_same_in_every_pack(self, make):
        packed = make()
        for k in (0, 2):
            alone = make(MEMBERS[k : k + 1])
            for name, tensor in stored(alone, 0).items():
                assert torch.equal(stored(packed, k)[name], tensor), name

    def test_a_pack_computes_what_its_members_compute_alone(self, make):
        packed, x = move(make()), draw_inputs()
        outputs = packed(x).chunk(3)
        packed_gradients = gradients(packed, x)
        for k, chunk in enumerate(x.chunk(3)):
            alone = move(make(MEMBERS[k : k + 1]))
            torch.testing.assert_close(outputs[k], alone(chunk), atol=1e-5, rtol=1e-5)
            alone_gradients = gradients(alone, chunk)
            for factor in packed.factors() if packed.owns(k) else ():
                dim, gradient = RANK_DIMS.get(factor.role), packed_gradients[factor.name][k]
                own = gradient if dim is None else gradient.narrow(dim, 0, MEMBERS[k].rank)
                torch.testing.assert_close(own, alone_gradients[factor.name][0], atol=1e-4, rtol=1e-4)

    def test_training_changes_every_member_but_those_of_rank_0(self, make):
        x = draw_inputs()
        outputs, base = move(make())(x).chunk(3), frozen_linear()(x).chunk(3)
        torch.testing.assert_close(outputs[1], base[1])
        assert all(not torch.allclose(outputs[k], base[k], atol=1e-3) for k in (0, 2))

    def test_padding_gets_no_gradient(self, make):
        adapter = move(make())
        found = gradients(adapter, draw_inputs())
        for factor in adapter.factors():
            if (dim := RANK_DIMS.get(factor.role)) is not None:
                for k, member in enumerate(MEMBERS):
                    gradient = found[factor.name][k]
                    assert not gradient.narrow(dim, member.rank, max(adapter.ranks) - member.rank).any(), factor.name

    def test_a_member_is_loaded_from_what_was_stored_and_others_do_not_change(self, make):
        trained, fresh = move(make()), make()
        others = {k: stored(fresh, k) for k in (0, 1)}
        fresh.load_member(2, stored(trained, 2))
        assert all(torch.equal(fresh_one, stored(trained, 2)[name]) for name, fresh_one in stored(fresh, 2).items())
        for k, before in others.items():
            assert all(torch.equal(tensor, before[name]) for name, tensor in stored(fresh, k).items())

    def test_tensors_of_another_run_are_refused(self, make):
        with pytest.raises(StudyError, match="belongs to another run"):
            make().load_member(0, {})
        misshapen = {name: tensor[..., None] for name, tensor in stored(make(), 0).items()}
        with pytest.raises(StudyError, match="belongs to another run"):
            make().load_member(0, misshapen)

    def test_half_precision_linears_have_float32_factors_and_their_own_outputs(self, make):
        adapter = move(make(base=frozen_linear(torch.bfloat16)))
        assert {factor.parameter.dtype for factor in adapter.factors()} == {torch.float32}
        assert adapter(draw_inputs(dtype=torch.bfloat16)).dtype == torch.bfloat16

    def test_dropout_depends_on_the_position_alone_and_only_in_training(self, kind, make):
        position = TrainingPosition(training=True)
        dropping = tuple(dataclasses.replace(member, dropout=0.5) for member in MEMBERS)
        adapter, x = move(make(dropping, position=position)), draw_inputs()
        first, without = adapter(x), move(make())(x)
        assert torch.equal(adapter(x), first)
        assert torch.allclose(first, without, atol=1e-5) == (not kind.takes_dropout)
        position.step = 1
        assert torch.equal(adapter(x), first) == (not kind.takes_dropout)
        position.training = False
        torch.testing.assert_close(adapter(x), without)
