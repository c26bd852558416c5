"""What the methods state of their combinations, and closed forms against solvers."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from marslora.core.errors import ConfigError
from marslora.gradients import Block
from marslora.gradients._min_norm import _by_least_squares, min_norm_weights
from marslora.gradients.cagrad import CAGrad, _worst
from marslora.gradients.gradnorm import GradNorm
from marslora.gradients.imtl_g import IMTLG
from marslora.gradients.mgda import MGDA
from marslora.gradients.mmpareto import MMPareto
from marslora.gradients.nash_mtl import NashMTL, bargain
from marslora.gradients.pareto_lora import ParetoLora
from marslora.gradients.pcgrad import PCGrad

SETTINGS = settings(max_examples=30, deadline=None)


def block_of(*tensors_PKN, losses=None, name="all"):
    """A block from the gradients themselves: one (K, N) array for every tensor."""
    grams = np.stack([tensor_KN @ tensor_KN.T for tensor_KN in map(np.asarray, tensors_PKN)])
    number = grams.shape[1]
    return Block(name, tuple("abcdef"[:number]), grams, np.ones(number) if losses is None else np.array(losses))


@st.composite
def gradients(draw, number=2):
    """(K, N) gradients whose norms differ by up to four orders of magnitude and whose cosine is anything."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    g_KN = rng.normal(size=(number, draw(st.integers(number, 8))))
    g_KN[1:] += draw(st.floats(-3, 3)) * g_KN[0]
    return g_KN * 10 ** rng.uniform(-2, 2, size=(number, 1))


def norm(g):
    return float(np.linalg.norm(g))


@SETTINGS
@given(gradients())
def test_mgda_is_a_convex_combination_that_helps_both_and_is_shorter_than_either(g_KN):
    weights_K = MGDA().weigh(block_of(g_KN)).weights
    g = weights_K @ g_KN
    assert weights_K.min() >= 0
    assert weights_K.sum() == pytest.approx(1.0)
    assert (g_KN @ g >= g @ g - 1e-9 * (g_KN**2).sum()).all()
    assert norm(g) <= min(map(norm, g_KN)) * (1 + 1e-9)


@SETTINGS
@given(gradients())
def test_the_closed_form_of_two_is_what_a_solver_finds(g_KN):
    scale = (g_KN**2).sum()
    closed = min_norm_weights(block_of(g_KN).gram_KK) @ g_KN
    found = minimize_scalar(
        lambda w: norm(w * g_KN[0] + (1 - w) * g_KN[1]), bounds=(0, 1), method="bounded", options={"xatol": 1e-10}
    )
    assert closed @ closed <= found.fun**2 + 1e-9 * scale


@SETTINGS
@given(gradients())
def test_the_solver_for_many_agrees_with_the_closed_form(g_KN):
    gram_KK = block_of(g_KN).gram_KK
    assert _by_least_squares(gram_KK) @ gram_KK @ _by_least_squares(gram_KK) == pytest.approx(
        min_norm_weights(gram_KK) @ gram_KK @ min_norm_weights(gram_KK), abs=1e-9 * np.trace(gram_KK)
    )


@SETTINGS
@given(gradients(number=4))
def test_mgda_of_four_satisfies_the_optimality_conditions(g_KN):
    weights_K = MGDA().weigh(block_of(g_KN)).weights
    g = weights_K @ g_KN
    assert weights_K.min() >= 0
    assert weights_K.sum() == pytest.approx(1.0)
    assert (g_KN @ g >= g @ g - 1e-7 * (g_KN**2).sum()).all()


def test_mgda_does_not_mind_a_repeated_objective():
    g_KN = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    g = MGDA().weigh(block_of(g_KN)).weights @ g_KN
    np.testing.assert_allclose(g, [0.8, 0.4], atol=1e-9)


@SETTINGS
@given(gradients())
def test_pareto_lora_cases(g_KN):
    answer = ParetoLora(tau=0.5).weigh(block_of(g_KN))
    g, (first, second), cosine = answer.weights @ g_KN, map(norm, g_KN), g_KN[0] @ g_KN[1]
    if cosine < 0:
        assert answer.case == "conflict"
        np.testing.assert_allclose(answer.weights, MGDA().weigh(block_of(g_KN)).weights)
    elif first / second > 0.5:
        assert answer.case == "imbalance"
        sizes = [norm(weight * row) for weight, row in zip(answer.weights, g_KN, strict=True)]
        np.testing.assert_allclose(sizes, max(first, second))
    else:
        assert answer.case == "sum"
        np.testing.assert_array_equal(answer.weights, [1, 1])
    assert (g_KN @ g >= -1e-9 * (g_KN**2).sum()).all()


def two(ratio, cosine=0.0):
    return block_of([[ratio, 0.0], [cosine, np.sqrt(1 - cosine**2)]])


@pytest.mark.parametrize(
    ("options", "block", "case"),
    [
        ({}, two(0.5), "sum"),
        ({}, two(0.5001), "imbalance"),
        ({}, two(1e-6), "sum"),
        ({}, two(1e6), "imbalance"),
        ({}, two(1.0, -1e-9), "conflict"),
        ({"ratio": "max_over_min", "tau": 10}, two(10.0), "sum"),
        ({"ratio": "max_over_min", "tau": 10}, two(0.05), "imbalance"),
        ({"ratio": "max_over_min", "tau": 10}, two(20.0), "imbalance"),
    ],
)
def test_where_the_cases_of_pareto_lora_meet(options, block, case):
    assert ParetoLora(**options).weigh(block).case == case


def test_the_weight_of_the_first_gradient_in_conflict_is_the_corrected_one():
    g_KN = np.array([[3.0, 0.0], [-0.5, 1.0]])
    first, second = g_KN
    expected = (second - first) @ second / ((first - second) @ (first - second))
    weights_K, _ = ParetoLora().weigh(block_of(g_KN))
    np.testing.assert_allclose(weights_K, [expected, 1 - expected])
    exchanged = np.array([1 - expected, expected])
    assert norm(weights_K @ g_KN) < norm(exchanged @ g_KN)
    assert min(g_KN @ (exchanged @ g_KN)) < 0 < min(g_KN @ (weights_K @ g_KN))


def test_pareto_lora_limits_and_lengthens_where_asked():
    np.testing.assert_allclose(ParetoLora(max_scale=5).weigh(two(100.0)).weights, [1, 5])
    opposed = two(3.0, -0.5)
    plain, long = (ParetoLora(conflict_rescale=how).weigh(opposed).weights for how in ("none", "sum_norm"))
    assert long @ opposed.gram_KK @ long == pytest.approx(opposed.gram_KK.sum())
    np.testing.assert_allclose(long / long.sum(), plain)


def test_pareto_lora_refuses_what_it_cannot_read():
    with pytest.raises(ConfigError, match="at least 1 for the ratio max_over_min"):
        ParetoLora(ratio="max_over_min", tau=0.5)
    with pytest.raises(ConfigError, match="`ratio` of ParetoLora must be one of"):
        ParetoLora(ratio="second_over_first")
    with pytest.raises(ConfigError, match="compares two objectives, found"):
        ParetoLora().weigh(block_of(np.eye(3)))


@SETTINGS
@given(gradients())
def test_pcgrad_removes_what_points_against_the_other(g_KN):
    first, second = g_KN
    g = PCGrad().weigh(block_of(g_KN)).weights @ g_KN
    product = first @ second
    if product < 0:
        mine, theirs = first - product / (second @ second) * second, second - product / (first @ first) * first
        assert abs(mine @ second) <= 1e-9 * norm(first) * norm(second)
        np.testing.assert_allclose(g, mine + theirs, atol=1e-9 * (norm(first) + norm(second)))
        assert (g_KN @ g >= -1e-9 * (g_KN**2).sum()).all()
    else:
        np.testing.assert_allclose(g, first + second)


@SETTINGS
@given(gradients())
def test_imtl_g_projects_equally_on_both(g_KN):
    weights_K = IMTLG().weigh(block_of(g_KN)).weights
    projections = g_KN @ (weights_K @ g_KN) / np.linalg.norm(g_KN, axis=1)
    assert projections[0] == pytest.approx(projections[1], abs=1e-9 * norm(g_KN))
    assert weights_K.sum() == pytest.approx(1.0)


@SETTINGS
@given(gradients(number=3))
def test_imtl_g_projects_equally_on_three(g_KN):
    cosines = block_of(g_KN).cosines_KK
    assume(np.linalg.eigvalsh(cosines)[0] > 1e-3)
    answer = IMTLG().weigh(block_of(g_KN))
    projections = g_KN @ (answer.weights @ g_KN) / np.linalg.norm(g_KN, axis=1)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-6)


@SETTINGS
@given(gradients(), st.floats(0, 0.95))
def test_cagrad_of_two_is_what_the_solver_for_many_finds(g_KN, c):
    gram_KK = block_of(g_KN).gram_KK
    g = CAGrad(c=c).weigh(block_of(g_KN)).weights @ g_KN
    mean = g_KN.mean(0)
    radius = c * norm(mean)
    assert norm(g - mean) <= radius * (1 + 1e-6) + 1e-12
    scaled = gram_KK / np.trace(gram_KK)

    def worst(weight):
        weights_K = np.array([weight, 1 - weight])
        shifted = radius / np.sqrt(np.trace(gram_KK))
        return weights_K @ scaled @ [0.5, 0.5] + shifted * np.sqrt(max(weights_K @ scaled @ weights_K, 0))

    found = minimize_scalar(worst, bounds=(0, 1), method="bounded", options={"xatol": 1e-9})
    # Strong duality: the worst-off objective's gain is the smallest value of the dual.
    assert (g_KN @ g).min() / np.trace(gram_KK) >= found.fun - 1e-6


def test_cagrad_without_a_ball_is_the_mean():
    np.testing.assert_array_equal(CAGrad(c=0).weigh(two(3.0, -0.9)).weights, [0.5, 0.5])


@SETTINGS
@given(gradients(number=3))
def test_cagrad_of_three_reaches_its_dual(g_KN):
    g_KN = g_KN / np.linalg.norm(g_KN, axis=1, keepdims=True)
    gram_KK = block_of(g_KN).gram_KK
    mean = g_KN.mean(0)
    assume(norm(mean) > 1e-2)
    g = CAGrad(c=0.5).weigh(block_of(g_KN)).weights @ g_KN
    scaled = gram_KK / np.trace(gram_KK)
    radius = 0.5 * norm(mean) / np.sqrt(np.trace(gram_KK))
    w_K = _worst(scaled, radius)
    dual = w_K @ scaled @ np.full(3, 1 / 3) + radius * np.sqrt(max(w_K @ scaled @ w_K, 0))
    assert (g_KN @ g).min() / np.trace(gram_KK) == pytest.approx(dual, abs=1e-4)


@SETTINGS
@given(gradients())
def test_nash_mtl_first_order_condition_for_two(g_KN):
    block = block_of(g_KN)
    assume(block.cosines_KK[0, 1] > -0.999)
    weights_K = NashMTL().weigh(block).weights
    np.testing.assert_allclose(g_KN @ (weights_K @ g_KN) * weights_K, 1.0, rtol=1e-6)


@SETTINGS
@given(gradients(number=4))
def test_nash_mtl_first_order_condition_for_four(g_KN):
    block = block_of(g_KN)
    assume(np.linalg.eigvalsh(block.cosines_KK)[0] > 1e-3)
    weights_K = NashMTL().weigh(block).weights
    assert (weights_K > 0).all()
    np.testing.assert_allclose(g_KN @ (weights_K @ g_KN) * weights_K, 1.0, rtol=1e-6)


def test_the_bargain_of_two_is_the_closed_form():
    gram_KK = two(1.0, 0.3).gram_KK
    np.testing.assert_allclose(bargain(gram_KK), 1 / np.sqrt([1.3, 1.3]))


def test_nash_mtl_of_opposed_gradients_does_not_blow_up():
    weights_K, case = NashMTL().weigh(block_of([[2.0, 0.0], [-1.0, 0.0]]))
    assert case == "opposed"
    np.testing.assert_allclose(weights_K, [1 / 3, 2 / 3])


@SETTINGS
@given(gradients(), gradients())
def test_mmpareto_is_nowhere_shorter_than_the_sum(first_KN, second_KN):
    answer = MMPareto(gamma=1.5).weigh(block_of(first_KN, second_KN))
    assert answer.weights.shape == (2, 2)
    for weights_K, g_KN in zip(answer.weights, (first_KN, second_KN), strict=True):
        if norm(weights_K @ g_KN) > 1e-6 * norm(g_KN):
            assert norm(weights_K @ g_KN) >= 1.5 * norm(g_KN.sum(0)) * (1 - 1e-6)
    if answer.case == "equal":
        np.testing.assert_allclose(answer.weights, 1.5)


SCALINGS = [
    (MGDA, 1), (ParetoLora, 1), (PCGrad, 1), (CAGrad, 1), (IMTLG, 1), (MMPareto, 1), (NashMTL, 0),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "power"), SCALINGS)
@SETTINGS
@given(gradients(), st.floats(-3, 3))
def test_multiplying_every_gradient(kind, power, g_KN, exponent):
    """The combination is multiplied too; Nash-MTL's stays as long as it was."""
    assume(block_of(g_KN).cosines_KK[0, 1] > -0.999)
    factor = 10.0**exponent
    weights = kind().weigh(block_of(g_KN)).weights
    scaled = kind().weigh(block_of(factor * g_KN)).weights
    np.testing.assert_allclose(scaled @ g_KN * factor ** (1 - power), weights @ g_KN, rtol=1e-5, atol=1e-6 * norm(g_KN))


@SETTINGS
@given(gradients(), st.floats(-3, 3))
def test_multiplying_one_gradient_does_not_turn_nash_mtl(g_KN, exponent):
    assume(block_of(g_KN).cosines_KK[0, 1] > -0.99)
    scaled_KN = g_KN * [[10.0**exponent], [1.0]]
    g, other = NashMTL().weigh(block_of(g_KN)).weights @ g_KN, NashMTL().weigh(block_of(scaled_KN)).weights @ scaled_KN
    np.testing.assert_allclose(g, other, rtol=1e-6, atol=1e-9)


def test_gradnorm_moves_weight_to_the_weaker_gradient():
    method = GradNorm(alpha=0.0)
    for _ in range(400):
        weights_K, _ = method.weigh(two(10.0))
    np.testing.assert_allclose(weights_K * [10.0, 1.0], [20 / 11] * 2, rtol=0.1)


def test_gradnorm_moves_weight_to_what_lags_behind():
    method = GradNorm(alpha=1.5)
    for step in range(50):
        weights_K, _ = method.weigh(block_of(np.eye(2), losses=[1.0, 1.0 / (1 + step)]))
    assert weights_K[0] > 1.2 > weights_K[1]
    assert weights_K.sum() == pytest.approx(2.0)


def test_against_torchjd():
    aggregation = pytest.importorskip("torchjd.aggregation")
    import torch

    rng = np.random.default_rng(0)
    for _ in range(5):
        g_KN = rng.normal(size=(3, 6))
        gram = torch.from_numpy(block_of(g_KN).gram_KK)
        mine = MGDA().weigh(block_of(g_KN)).weights @ g_KN
        theirs = aggregation.MGDAWeighting(epsilon=1e-9, max_iters=500)(gram).numpy() @ g_KN
        assert norm(mine) * (1 - 1e-9) <= norm(theirs) <= norm(mine) * 1.01
        theirs = aggregation.IMTLGWeighting()(gram).numpy() @ g_KN
        np.testing.assert_allclose(IMTLG().weigh(block_of(g_KN)).weights @ g_KN, theirs, rtol=1e-5, atol=1e-8)
        theirs = aggregation.PCGradWeighting()(gram[:2, :2]).numpy() @ g_KN[:2]
        np.testing.assert_allclose(PCGrad().weigh(block_of(g_KN[:2])).weights @ g_KN[:2], theirs, rtol=1e-8)
