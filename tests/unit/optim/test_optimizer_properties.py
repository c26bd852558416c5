"""Laws that the family obeys, whatever the numbers."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marslora import optim
from marslora.core import plugins
from marslora.core.errors import ConfigError
from marslora.optim import AbstractOptimizer
from marslora.optim._matrices import newton_schulz, polar
from marslora.optim.adamw import AdamW
from marslora.optim.mars_adamw import MarsAdamW
from marslora.optim.mars_m import MarsM
from marslora.optim.moonlight import Moonlight
from marslora.optim.muon import Muon
from marslora.optim.muon_mvr import MuonMVR

ORTHOGONAL = ["mars_m", "mars_shampoo", "moonlight", "muon", "muon_nsr", "muon_vs"]


def named(name):
    return plugins.load(optim, name, AbstractOptimizer)


def run(build, grads, start=None):
    """The parameter after these gradients."""
    param = torch.nn.Parameter(torch.zeros_like(grads[0]) if start is None else start.clone())
    optimizer = build([param])
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param.detach()


def gradients(shape=(6, 10), count=30, size=1.0, dtype=torch.float64, seed=0):
    make = torch.Generator().manual_seed(seed)
    return [size * torch.randn(shape, generator=make, dtype=torch.float64).to(dtype) for _ in range(count)]


@given(st.floats(0.0, 0.99), st.floats(1e-3, 1e3), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_unclipped_mars_m_between_plain_and_nesterov(beta, size, seed):
    """gamma = 1 - beta is Moonlight with Nesterov, gamma = 0 without."""
    grads = gradients(count=8, size=size, seed=seed)
    for nesterov, gamma in ((True, 1 - beta), (False, 0.0)):
        mars = run(
            lambda p, g=gamma: MarsM(p, 0.01, momentum=beta, gamma=g, clip=None, first_step="reference", ns_eps=0.0),
            grads,
        )
        moonlight = run(lambda p, n=nesterov: Moonlight(p, 0.01, momentum=beta, nesterov=n, ns_eps=0.0), grads)
        torch.testing.assert_close(mars, moonlight, rtol=1e-10, atol=1e-12)


@given(st.floats(0.0, 0.95), st.floats(0.0, 0.99), st.sampled_from(["paper", "reference"]))
@settings(max_examples=25, deadline=None)
def test_one_buffer_is_two_buffers_with_a_clip_that_never_bites(gamma, beta, first):
    def build(clip):
        return lambda p: MarsM(p, 0.01, momentum=beta, gamma=gamma, clip=clip, first_step=first)

    grads = gradients(count=8)
    torch.testing.assert_close(run(build(None), grads), run(build(1e9), grads), rtol=1e-9, atol=1e-11)


def test_the_clip_acts_and_its_threshold_matters():
    grads = gradients(size=3.0)
    ends = [run(lambda p, c=clip: MarsM(p, 0.01, clip=c, gamma=0.3), grads) for clip in (None, 1.0, 30.0)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (ends[a] - ends[b]).norm() > 1e-4


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gamma_schedule_acts(clip):
    def scheduled(params):
        optimizer = MarsM(params, 0.01, gamma=0.5, clip=clip)
        optimizer.register_step_post_hook(lambda o, *_: o.param_groups[0].update(gamma=0.0))
        return optimizer

    grads = gradients()
    constant = run(lambda p: MarsM(p, 0.01, gamma=0.5, clip=clip), grads)
    assert (run(scheduled, grads) - constant).norm() > 1e-4


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_a_zero_gradient_moves_nothing(name):
    assert not run(lambda p: named(name)(p, 1.0), [torch.zeros(4, 6)] * 3).any()


@pytest.mark.parametrize("name", ["mars_m", "moonlight"])
@pytest.mark.parametrize("shape", [(8, 256), (256, 8), (64, 64), (16, 40)])
def test_steps_have_the_size_of_adamws(name, shape):
    end = run(lambda p: named(name)(p, 1.0), gradients(shape, count=1, dtype=torch.float32))
    assert 0.13 < end.square().mean().sqrt() < 0.25


@pytest.mark.parametrize("method", [lambda m: newton_schulz(m, 0.0), polar])
@pytest.mark.parametrize("shape", [(3, 4, 50), (3, 50, 4), (2, 7, 7)])
def test_rotations_pass_through(method, shape):
    """f(P M Q) = P f(M) Q for orthogonal P and Q."""
    torch.manual_seed(0)
    m = torch.randn(shape, dtype=torch.float64)
    p = torch.linalg.qr(torch.randn(shape[1], shape[1], dtype=torch.float64))[0]
    q = torch.linalg.qr(torch.randn(shape[2], shape[2], dtype=torch.float64))[0]
    torch.testing.assert_close(method([p @ m @ q])[0], p @ method([m])[0] @ q, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_singular_values_of_newton_schulz(dtype):
    torch.manual_seed(0)
    for shape in ((16, 896), (896, 16), (32, 40)):
        u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        matrix = (u * torch.logspace(0, -1.5, min(shape))) @ v
        values = torch.linalg.svdvals(newton_schulz([matrix.to(dtype)], 1e-7)[0])
        assert values.min() > 0.6
        assert values.max() < 1.2


def test_float32_through_the_gram_matrix_is_close_to_float64_at_bad_condition():
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(16, 896, dtype=torch.float64), full_matrices=False)
    matrix = (u * torch.logspace(0, -4, 16, dtype=torch.float64)) @ v
    exact = newton_schulz([matrix], 1e-7)[0]
    assert (newton_schulz([matrix.float()], 1e-7)[0] - exact).norm() < 2e-3 * exact.norm()


def test_polar_survives_nan_zero_and_lost_directions():
    torch.manual_seed(0)
    good = torch.randn(4, 20)
    batch = torch.stack([good, torch.full((4, 20), torch.nan), torch.zeros(4, 20), good[:1] * torch.ones(4, 1)])
    found = polar([batch])[0]
    torch.testing.assert_close(found[0], polar([good])[0])
    assert found[1].isnan().all()
    assert not found[2].any()
    assert abs(torch.linalg.svdvals(found[3]).sum() - 1) < 1e-5


def test_a_convolution_is_one_matrix():
    grads = gradients((6, 3, 2, 2), count=5)
    for name in ORTHOGONAL:
        whole = run(lambda p, n=name: named(n)(p, 0.1), grads)
        flat = run(lambda p, n=name: named(n)(p, 0.1), [grad.flatten(1) for grad in grads])
        torch.testing.assert_close(whole.flatten(1), flat)


def test_heads_of_a_factor_are_matrices_of_their_own():
    """A factor with several heads a member, (K, heads, rank, inputs): each head as if it were alone."""
    grads = gradients((2, 3, 4, 12), count=5)

    def pack(params):
        return MarsM([{"params": params, "members": 2, "role": "A", "ranks": (2, 4)}], 0.1)

    for grad in grads:
        grad[0, :, 2:] = 0
    end = run(pack, grads)
    for member, rank in enumerate((2, 4)):
        for head in range(3):
            own = run(lambda p: MarsM(p, 0.1), [grad[member, head, :rank] for grad in grads])
            torch.testing.assert_close(end[member, head, :rank], own)


def test_factors_may_be_stored_transposed():
    """``rank_dim`` says where the rank is, so that the shape's scale is that of (outputs, inputs)."""
    grads = gradients((12, 4), count=5)
    usual = run(lambda p: Muon([{"params": p, "role": "B"}], 0.1), grads)
    turned = run(lambda p: Muon([{"params": p, "role": "B", "rank_dim": -2}], 0.1), [grad.T for grad in grads])
    torch.testing.assert_close(turned.T, usual)


@pytest.mark.parametrize("name", plugins.names(optim))
def test_loraplus_ratio_is_a_learning_rate_of_b(name):
    grads = [grad * torch.tensor(1.0) for grad in gradients((12, 4), count=1)]

    def end(role, lr, ratio):
        def build(params):
            options = {"exact": False} if name == "muon_mvr" else {}
            return named(name)([{"params": params, "role": role}], lr, b_ratio=ratio, **options)

        return run(build, grads)

    torch.testing.assert_close(end("B", 0.01, 3.0), end("B", 0.03, 1.0))
    torch.testing.assert_close(end("A", 0.01, 3.0), end("A", 0.01, 1.0))


def test_state_per_number():
    """The memory that each form is documented to need."""
    matrix = [torch.nn.Parameter(torch.zeros(4, 6))]
    for build, count in (
        (lambda: AdamW(matrix), 2),
        (lambda: Moonlight(matrix), 1),
        (lambda: MarsM(matrix, clip=None), 1),
        (lambda: MarsM(matrix), 2),
        (lambda: MarsM(matrix, exact=True), 3),
        (lambda: MarsAdamW(matrix), 3),
    ):
        assert len(build().buffers(matrix[0])) == count


class TestExact:
    def problem(self, dropout=0.0):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(dropout), torch.nn.Linear(8, 3)).double()
        batches = [torch.randn(16, 6, dtype=torch.float64) for _ in range(6)]
        return model, batches

    def test_closure_equals_the_two_passes(self):
        ends = []
        for use_closure in (True, False):
            model, batches = self.problem(dropout=0.3)
            optimizer = MuonMVR(model.parameters(), 0.05)
            torch.manual_seed(1)
            for batch in batches:
                if use_closure:
                    optimizer.step(lambda b=batch, m=model: m(b).square().mean().backward())
                    optimizer.zero_grad()
                    continue
                with optimizer.previous_point():
                    model(batch).square().mean().backward()
                model(batch).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
            ends.append([param.detach().clone() for param in model.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))

    def test_both_points_see_the_same_randomness(self):
        model, batches = self.problem(dropout=0.5)
        optimizer = MarsM(model.parameters(), 0.05, exact=True)
        optimizer.step(lambda: model(batches[0]).square().mean().backward())
        seen = []

        def closure():
            optimizer.zero_grad()
            seen.append((torch.rand(3), model[0].weight.detach().clone(), model[0].bias.detach().clone()))
            model(batches[1]).square().mean().backward()

        optimizer.step(closure)
        assert torch.equal(seen[0][0], seen[1][0])
        assert not torch.equal(seen[0][1], seen[1][1])
        assert not torch.equal(seen[0][2], seen[1][2]), "what AdamW moves goes back too"

    def test_micro_batches_add_up(self):
        ends = []
        for pieces in (1, 4):
            model, batches = self.problem()
            optimizer = MuonMVR(model.parameters(), 0.05)
            for batch in batches:
                for piece in batch.chunk(pieces):
                    with optimizer.previous_point():
                        (model(piece).square().mean() / pieces).backward()
                    (model(piece).square().mean() / pieces).backward()
                optimizer.step()
                optimizer.zero_grad()
            ends.append([param.detach().clone() for param in model.parameters()])
        for a, b in zip(*ends, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)

    def test_a_failing_pass_leaves_everything_in_place(self):
        model, batches = self.problem()
        optimizer = MuonMVR(model.parameters(), 0.05)
        optimizer.step(lambda: model(batches[0]).square().mean().backward())
        before = [(param.detach().clone(), param.grad.clone()) for param in model.parameters()]
        with pytest.raises(ZeroDivisionError), optimizer.previous_point():
            raise ZeroDivisionError
        for param, (value, grad) in zip(model.parameters(), before, strict=True):
            assert torch.equal(param, value)
            assert torch.equal(param.grad, grad)

    def test_one_pass_is_not_enough(self):
        param = torch.nn.Parameter(torch.ones(2, 3))
        param.grad = torch.ones(2, 3)
        with pytest.raises(ConfigError, match=r"exact step of .* needs a closure"):
            MuonMVR([param]).step()

    def test_the_corrected_momentum_follows_the_true_gradient(self):
        """On a noisy quadratic, STORM's momentum has the noise of a plain average without its lag behind the path."""

        def error(build):
            torch.manual_seed(0)
            param = torch.nn.Parameter(torch.zeros(8, 8, dtype=torch.float64))
            optimizer, errors = build([param]), []
            for _ in range(200):
                noise = 0.3 * torch.randn(8, 8, dtype=torch.float64)

                def closure(noise=noise):
                    optimizer.zero_grad()
                    (0.5 * (param - 10).square() + noise * param).sum().backward()

                true = param.detach() - 10
                optimizer.step(closure)
                state = optimizer.member_state(param)
                errors.append((state.get("momentum", state.get("grad_avg")) - true).square().mean())
            return torch.stack(errors[150:]).mean()

        plain = error(lambda p: Moonlight(p, 0.05, momentum=0.95, nesterov=False))
        exact = error(lambda p: MuonMVR(p, 0.05, momentum=0.95))
        assert exact < 0.4 * plain


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: MarsM(p, gama=0.1), "has no option ['gama']"),
        (lambda p: MarsM([{"params": p, "route": "own"}]), "cannot have `route` own"),
        (lambda p: MarsM([{"params": p, "role": "A"}]), "needs whole matrices"),
        (
            lambda p: MarsM([torch.nn.Parameter(torch.zeros(2, 2))], momentum=1.0),
            "number of at least 0 and below 1",
        ),
    ],
)
def test_mistakes_are_named(build, message):
    param = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(ConfigError, match=re.escape(message)):
        optimizer = build([param])
        for group in optimizer.param_groups:
            for own in group["params"]:
                own.grad = torch.ones_like(own)
        optimizer.step()


def test_the_description_shows_every_route():
    params = {role: torch.nn.Parameter(torch.zeros(4, 6)) for role in ("A", "B", "full", "router", "other")}
    params["magnitude"] = torch.nn.Parameter(torch.zeros(6))
    groups = [{"params": [param], "role": role, "part": "vision"} for role, param in params.items()]
    lines = MarsM(groups, 1e-3, b_ratio=4.0).describe().splitlines()[1:]
    rules = {line.split()[1]: line.split()[2] for line in lines}
    assert rules == {
        "A": "MarsM",
        "B": "MarsM",
        "full": "MarsM",
        "other": "MarsM",
        "router": "adamw",
        "magnitude": "adamw",
    }
    rates = {line.split()[1]: float(line.split()[6]) for line in lines}
    assert math.isclose(rates["B"], 4e-3)
    assert math.isclose(rates["A"], 1e-3)
