"""Every preset against its independent NumPy restatement, in float64, at 1e-12."""

import numpy as np
import optim_restatement as numpy
import pytest
import torch

from marslora.optim.adamw import AdamW
from marslora.optim.mars_adamw import MarsAdamW
from marslora.optim.mars_lion import MarsLion
from marslora.optim.mars_m import MarsM
from marslora.optim.mars_shampoo import MarsShampoo
from marslora.optim.moonlight import Moonlight
from marslora.optim.muon import Muon
from marslora.optim.muon_mvr import MuonMVR
from marslora.optim.muon_nsr import MuonNSR
from marslora.optim.muon_vs import MuonVS

SHAPES = [(6, 10), (10, 6), (8, 8), (4, 40), (40, 4)]
STEPS, LR, WD = 12, 3e-3, 0.1
FIRST = ["paper", "reference"]

CASES = {
    "adamw": (lambda p: AdamW(p, LR, weight_decay=WD), numpy.adamw, {}),
    "muon": (lambda p: Muon(p, LR, weight_decay=WD), numpy.muon, {}),
    "muon plain": (lambda p: Muon(p, LR, nesterov=False, weight_decay=WD), numpy.muon, {"nesterov": False}),
    "moonlight": (lambda p: Moonlight(p, LR, weight_decay=WD), numpy.moonlight, {}),
    "moonlight plain": (
        lambda p: Moonlight(p, LR, nesterov=False, weight_decay=WD),
        numpy.moonlight,
        {"nesterov": False},
    ),
    "muon_nsr": (lambda p: MuonNSR(p, LR, weight_decay=WD, gamma=0.5), numpy.noise_adapted, {"gamma": 0.5}),
    "muon_vs": (lambda p: MuonVS(p, LR, weight_decay=WD), numpy.noise_adapted, {}),
}
MARS = {
    "mars_m": (MarsM, numpy.mars_m),
    "mars_adamw": (MarsAdamW, numpy.mars_adamw),
    "mars_lion": (MarsLion, numpy.mars_lion),
    "mars_shampoo": (MarsShampoo, numpy.mars_shampoo),
}
for kind, (cls, oracle) in MARS.items():
    for first in FIRST:
        for clip in (None, 1.0, 3.0):
            for gamma in (0.0, 0.01, 0.05):
                numbers = {"gamma": gamma, "clip": clip}
                CASES[f"{kind} {first} clip {clip} gamma {gamma}"] = (
                    lambda p, c=cls, n=numbers, f=first: c(p, LR, first_step=f, weight_decay=WD, **n),
                    oracle,
                    {**numbers, "first": first},
                )


def problem(size):
    """Start points and gradients of every shape; ``size`` 0.01 never clips, 3 always does."""
    rng = np.random.default_rng(0)
    starts = [rng.standard_normal(shape) for shape in SHAPES]
    return starts, [[size * rng.standard_normal(start.shape) for _ in range(STEPS)] for start in starts]


@pytest.mark.parametrize("size", [0.01, 3.0])
@pytest.mark.parametrize("case", CASES)
def test_equals_its_restatement(case, size):
    build, oracle, numbers = CASES[case]
    starts, grads = problem(size)
    params = [torch.nn.Parameter(torch.tensor(start)) for start in starts]
    optimizer = build(params)
    for t in range(STEPS):
        for param, own in zip(params, grads, strict=True):
            param.grad = torch.tensor(own[t])
        optimizer.step()
    for param, start, own in zip(params, starts, grads, strict=True):
        expected = oracle(start, own, LR, WD, **numbers)
        assert np.abs(expected - start).max() > 1e-4
        np.testing.assert_allclose(param.detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", [Moonlight, MarsM, MarsAdamW, MarsLion, MarsShampoo, Muon])
def test_vectors_follow_adamw_as_published_beside_each_kind(cls):
    rng = np.random.default_rng(1)
    start, grads = rng.standard_normal(7), [rng.standard_normal(7) for _ in range(STEPS)]
    param = torch.nn.Parameter(torch.tensor(start))
    optimizer = cls([param], LR, weight_decay=WD)
    for grad in grads:
        param.grad = torch.tensor(grad)
        optimizer.step()
    early = cls in (Moonlight, MarsM)
    expected = numpy.adamw(start, grads, LR, WD, betas=(0.9, 0.95), early_eps=early)
    np.testing.assert_allclose(param.detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["mars_adamw", "mars_lion"])
def test_elementwise_kinds_take_vectors_where_asked(kind):
    cls, oracle = MARS[kind]
    rng = np.random.default_rng(1)
    start, grads = rng.standard_normal(7), [rng.standard_normal(7) for _ in range(STEPS)]
    param = torch.nn.Parameter(torch.tensor(start))
    optimizer = cls([{"params": [param], "route": "own"}], LR)
    for grad in grads:
        param.grad = torch.tensor(grad)
        optimizer.step()
    np.testing.assert_allclose(param.detach().numpy(), oracle(start, grads, LR), rtol=0, atol=1e-12)


def least_squares(shape):
    """Batches of a small regression: ``loss(x, t)`` in torch and ``gradient(x, t)`` in NumPy."""
    rng = np.random.default_rng(2)
    inputs, targets = rng.standard_normal((STEPS, 16, shape[0])), rng.standard_normal((STEPS, 16, shape[1]))

    def loss(x, t):
        return (torch.tensor(inputs[t]) @ x - torch.tensor(targets[t])).square().mean()

    def gradient(x, t):
        return 2 * inputs[t].T @ (inputs[t] @ x - targets[t]) / targets[t].size

    return loss, gradient, rng.standard_normal(shape)


def run_exact(optimizer, param, loss, steps=STEPS):
    for t in range(steps):

        def closure(t=t):
            optimizer.zero_grad()
            value = loss(param, t)
            value.backward()
            return value

        optimizer.step(closure)
    return param.detach().numpy()


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("clip", [None, 0.3])
def test_exact_equals_its_restatement(first, clip):
    loss, gradient, start = least_squares((6, 10))
    param = torch.nn.Parameter(torch.tensor(start))
    optimizer = MarsM([param], 0.05, exact=True, gamma=0.3, clip=clip, first_step=first)
    expected = numpy.mars_m_exact(start, gradient, STEPS, 0.05, gamma=0.3, clip=clip, first=first)
    np.testing.assert_allclose(run_exact(optimizer, param, loss), expected, rtol=0, atol=1e-12)


def test_gamma_one_and_exact_is_storm():
    loss, gradient, start = least_squares((10, 6))
    param = torch.nn.Parameter(torch.tensor(start))
    found = run_exact(MuonMVR([param], 0.05), param, loss)
    np.testing.assert_allclose(found, numpy.storm(start, gradient, STEPS, 0.05), rtol=0, atol=1e-12)


def test_polar_is_the_singular_value_decompositions():
    starts, grads = problem(3.0)
    params = [torch.nn.Parameter(torch.tensor(start)) for start in starts]
    optimizer = MarsM(params, LR, precondition="polar")
    for t in range(STEPS):
        for param, own in zip(params, grads, strict=True):
            param.grad = torch.tensor(own[t])
        optimizer.step()
    for param, start, own in zip(params, starts, grads, strict=True):
        expected = numpy.mars_m(start, own, LR, orthogonal=numpy.polar)
        np.testing.assert_allclose(param.detach().numpy(), expected, rtol=0, atol=1e-11)
