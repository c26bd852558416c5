import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marslora.core.errors import ConfigError
from marslora.methods import StepInfo
from marslora.methods._geometry import Factors, diagonalise, grow, rank_within, ranks_within, shorten
from marslora.methods.geolora import GeoLora
from tests.unit.methods.worlds import world

double = {"dtype": torch.float64}


def random_factors(seed, inputs=9, outputs=7, rank=3):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, **double)  # noqa: E731
    return Factors(
        torch.linalg.qr(draw(inputs, rank)).Q, draw(rank, rank), torch.linalg.qr(draw(outputs, rank)).Q
    ), draw


def is_orthonormal(factors):
    eye = torch.eye(factors.rank, **double)
    return all(torch.allclose(X.T @ X, eye, atol=1e-10) for X in (factors.U_IR, factors.V_OR))


@given(seed=st.integers(0, 2**31), rank=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_cutting_nothing_changes_nothing(seed, rank):
    factors, _ = random_factors(seed, rank=rank)
    ordered = diagonalise(factors)
    assert rank_within(ordered.S_RR.diagonal(), 0.0, 1) == rank
    torch.testing.assert_close(shorten(ordered, rank).dense(), factors.dense())
    assert is_orthonormal(ordered)


@given(seed=st.integers(0, 2**31), tau=st.floats(0.01, 0.9))
@settings(max_examples=20, deadline=None)
def test_a_cut_loses_less_than_tau_and_is_the_nearest_matrix(seed, tau):
    factors, _ = random_factors(seed, rank=5)
    ordered = diagonalise(factors)
    rank = rank_within(ordered.S_RR.diagonal(), tau, 1)
    error = (shorten(ordered, rank).dense() - factors.dense()).norm()
    values = torch.linalg.svdvals(factors.dense())
    torch.testing.assert_close(error, values[rank:5].norm(), atol=1e-9, rtol=1e-6)
    assert rank == 1 or values[rank - 1 :].norm() >= tau * values.norm() * (1 - 1e-9)


@given(seed=st.integers(0, 2**31), rate=st.floats(1e-3, 1.0))
@settings(max_examples=20, deadline=None)
def test_a_step_is_the_gradient_step_seen_through_the_new_directions(seed, rate):
    """Projected on old and new directions, all blocks but the last are those of ``W - rate G``."""
    factors, draw = random_factors(seed)
    G = draw(9, 7)
    U, _, V = factors
    grown = grow(factors, G @ V, G.T @ U, U.T @ G @ V, rate, 6)
    assert grown.rank == 6 and is_orthonormal(grown)
    torch.testing.assert_close(grown.U_IR[:, :3], U)
    wanted = grown.U_IR.T @ (factors.dense() - rate * G) @ grown.V_OR
    wanted[3:, 3:] = 0
    torch.testing.assert_close(grown.S_RR, wanted)
    residual = G @ V - grown.U_IR @ (grown.U_IR.T @ G @ V)
    assert float(residual.norm()) < 1e-9


def test_from_zero_it_grows_along_the_gradient():
    factors, draw = random_factors(1)
    factors = factors._replace(S_RR=torch.zeros(3, 3, **double))
    G = draw(9, 7)
    grown = grow(factors, G @ factors.V_OR, G.T @ factors.U_IR, factors.U_IR.T @ G @ factors.V_OR, 0.1, 4)
    assert grown.rank == 4
    assert float((grown.dense() * G).sum()) < 0


def test_a_budget_keeps_the_largest_values_of_all():
    d = [torch.tensor([5.0, 4.0, 0.1]), torch.tensor([3.0, 2.0, 1.0])]
    assert ranks_within(d, [3, 3], 4, 1) == [2, 2]
    assert ranks_within(d, [3, 3], 2, 1) == [1, 1]
    assert ranks_within(d, [2, 3], 9, 1) == [2, 3]
    assert ranks_within(d, [3, 1], 3, 1) == [2, 1]


def make_step_info(step, rate=0.05):
    forgotten = []
    return StepInfo(step, lambda parameter: rate, forgotten.append), forgotten


def test_the_gradients_looked_at_are_those_of_the_weight():
    model, _, plan, _ = world(language=3)
    change = GeoLora().apply(model, plan)
    linear = change.linears()[0]
    with torch.no_grad():
        linear.S_MM[:3, :3].normal_()
    x = torch.randn(2, 5, 64)
    out_weight = torch.randn(2, 5, linear.base.out_features)
    (linear(x) * out_weight).sum().backward()
    G = linear.scale * x.flatten(0, 1).T @ out_weight.flatten(0, 1)
    U, _, V = linear.factors()
    torch.testing.assert_close(linear.K_IM.grad[:, :3], G @ V, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(linear.L_OM.grad[:, :3], G.T @ U, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(linear.S_MM.grad[:3, :3], U.T @ G @ V, atol=1e-4, rtol=1e-4)
    change.remove()


def test_cycles_grow_cut_and_keep_the_budget():
    model, batch, plan, _ = world(language=3)
    change = GeoLora(cycles=5, tau=0.5).apply(model, plan)
    parameters = [one.parameter for one in change.trainables()]
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    ranks, losses = [], []
    for step in range(1, 21):
        info, forgotten = make_step_info(step)
        optimizer.zero_grad()
        loss = change.model(**batch).loss
        loss.backward()
        change.before_step(info)
        if change.grows_at(step):
            assert all(parameter.grad is None for parameter in parameters)
            assert len(forgotten) == len(parameters)
        optimizer.step()
        change.after_step(info)
        ranks.append(sum(change.ranks().values()))
        losses.append(loss.item())
    budget = sum(plan.ranks.values())
    assert change.cycle_length == 4
    assert [step for step in range(1, 21) if change.grows_at(step)] == [1, 5, 9, 13]
    assert ranks[0] == 2 * budget
    assert all(ranks[step - 1] <= budget for step in (4, 8, 12, 16, 20))
    assert losses[-1] < losses[0] - 0.5
    for linear in change.linears():
        U, _, V = linear.factors()
        for X in (U, V):
            torch.testing.assert_close(X.T @ X, torch.eye(linear.rank), atol=1e-4, rtol=1e-4)
    change.remove()


def test_between_growing_the_base_of_the_memory_is_s_alone():
    model, batch, plan, _ = world(language=3)
    change = GeoLora().apply(model, plan)
    change._request_gradients(2)
    change.model(**batch).loss.backward()
    assert all(linear.K_IM.grad is None and linear.S_MM.grad is not None for linear in change.linears())
    change.remove()


@pytest.mark.parametrize("options", [{"tau": 1.0}, {"room": 0.5}, {"cycles": 1}, {"smallest": 0}])
def test_wrong_options(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        GeoLora(**options)


def test_a_rank_that_a_linear_has_not():
    model, _, plan, _ = world(language=65)
    with pytest.raises(ConfigError, match="at most 64, found 65"):
        GeoLora().apply(model, plan)
