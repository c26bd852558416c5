"""What every optimizer promises: members of a pack never influence each other.

Subclass the class in a test file of your own and return your plugin from the fixture `kind`; pytest runs the rest.
"""

import copy
import dataclasses
import inspect

import pytest
import torch

from marslora.core.errors import ConfigError

OPTIONS = [{}, {"precondition": "polar"}, {"clip": None}, {"b_ratio": 4.0}, {"weight_decay": 0.1}]

RANKS, R, INPUTS, OUTPUTS, STEPS, LR = (2, 5, 8), 8, 12, 6, 6, 0.02
"""The members' ranks, the padded rank, the sizes of the linear, and a short training."""


class Problem:
    """Members with factors A and B, a vector and a matrix, each with its own least squares."""

    def __init__(self, members, seed=0, dtype=torch.float64):
        make = torch.Generator().manual_seed(seed)
        everyone = len(RANKS)

        def normal(*shape):
            return torch.randn(everyone, *shape, generator=make, dtype=torch.float64)[members].to(dtype)

        self.ranks = tuple(RANKS[k] for k in members)
        keep_KR = torch.arange(R) < torch.tensor(self.ranks).unsqueeze(-1)
        self.a = torch.nn.Parameter(normal(R, INPUTS) * keep_KR[:, :, None])
        self.b = torch.nn.Parameter(normal(OUTPUTS, R) * keep_KR[:, None, :])
        self.bias, self.full = torch.nn.Parameter(normal(OUTPUTS)), torch.nn.Parameter(normal(OUTPUTS, INPUTS))
        self.inputs, self.targets = normal(STEPS + 4, 7, INPUTS), normal(STEPS + 4, 7, OUTPUTS)

    @property
    def params(self):
        return [self.a, self.b, self.bias, self.full]

    def groups(self):
        stacked = {"members": len(self.ranks)}
        return [
            {"params": [self.a], "role": "A", "ranks": self.ranks, "part": "vision", **stacked},
            {"params": [self.b], "role": "B", "ranks": self.ranks, "part": "vision", **stacked},
            {"params": [self.bias, self.full], "role": "full", **stacked},
        ]

    def loss_K(self, t):
        x = self.inputs[:, t]
        out = x @ self.full.mT + x @ self.a.mT @ self.b.mT + self.bias[:, None]
        return (out - self.targets[:, t]).square().mean((1, 2))

    def closure(self, optimizer, t, spoil=None):
        def run():
            optimizer.zero_grad()
            loss_K = self.loss_K(t)
            loss_K.sum().backward()
            for param in self.params if spoil is not None else ():
                param.grad[spoil] = torch.nan
            return loss_K

        return run


def train(kind, problem, options=None, steps=STEPS, **kwargs):
    optimizer = kind(problem.groups(), lr=LR, **(options or {}))
    for t in range(steps):
        optimizer.step(problem.closure(optimizer, t, **kwargs))
    return optimizer


def bits(problem, optimizer, member):
    params = [param.detach()[member].clone() for param in problem.params]
    return params + [value for param in problem.params for value in optimizer.member_state(param, member).values()]


class OptimizerContract:
    """What every optimizer promises: members of a pack never influence each other."""

    @pytest.fixture
    def kind(self):
        """Return the class to check."""
        raise NotImplementedError("Define the fixture `kind` in a subclass.")

    @pytest.fixture(params=OPTIONS, ids=str)
    def options(self, request, kind):
        try:
            kind([torch.nn.Parameter(torch.zeros(2, 2))], **request.param)
        except (ConfigError, TypeError):
            if not request.param:
                raise
            pytest.skip("no such option")
        return request.param

    def test_a_pack_is_its_members_alone(self, kind, options):
        if kind.__name__ == "MuonVS" and "precondition" in options:
            pytest.skip("its first step takes the signs: a matrix of signs is often singular, where polar jumps")
        pack = Problem([0, 1, 2])
        packed = train(kind, pack, options)
        for k, rank in enumerate(RANKS):
            alone = Problem([k])
            solo = kind(
                [
                    {"params": [a := torch.nn.Parameter(alone.a.detach()[0, :rank].clone())], "role": "A"},
                    {"params": [b := torch.nn.Parameter(alone.b.detach()[0, :, :rank].clone())], "role": "B"},
                    {
                        "params": [
                            bias := torch.nn.Parameter(alone.bias.detach()[0].clone()),
                            full := torch.nn.Parameter(alone.full.detach()[0].clone()),
                        ],
                        "role": "full",
                    },
                ],
                lr=LR,
                **options,
            )
            for t in range(STEPS):

                def closure(t=t, alone=alone, solo=solo, a=a, b=b, bias=bias, full=full):
                    solo.zero_grad()
                    x = alone.inputs[0, t]
                    loss = (x @ full.T + x @ a.T @ b.T + bias - alone.targets[0, t]).square().mean()
                    loss.backward()
                    return loss

                solo.step(closure)
            rows = [pack.a[k, :rank], pack.b[k, :, :rank], pack.bias[k], pack.full[k]]
            for mine, row, param in zip([a, b, bias, full], rows, pack.params, strict=True):
                torch.testing.assert_close(row, mine, rtol=1e-9, atol=1e-10)
                theirs, own = packed.member_state(param, k), solo.member_state(mine)
                assert theirs.keys() == own.keys() == {"step", *packed.buffers(param)}
                for name, value in own.items():
                    torch.testing.assert_close(theirs[name], value, rtol=1e-9, atol=1e-10)

    def test_padding_stays_zero(self, kind, options):
        pack = Problem([0, 1, 2])
        optimizer = kind(pack.groups(), lr=LR, **options)
        for t in range(STEPS):
            closure = pack.closure(optimizer, t)

            def noisy(closure=closure):
                loss = closure()
                for param in (pack.a, pack.b):
                    param.grad += 1.0
                return loss

            optimizer.step(noisy)
        for k, rank in enumerate(RANKS):
            assert not pack.a[k, rank:].any()
            assert not pack.b[k, :, rank:].any()

    def test_a_broken_member_stays_alone(self, kind, options):
        clean, broken = Problem([0, 1, 2]), Problem([0, 1, 2])
        train(kind, clean, options)
        optimizer = train(kind, broken, options, spoil=1)
        for mine, theirs in zip(clean.params, broken.params, strict=True):
            assert torch.equal(mine[[0, 2]], theirs[[0, 2]])
            assert any(value.isnan().any() for value in (theirs[1], *optimizer.member_state(theirs, 1).values()))

    @pytest.mark.parametrize("steps", [0, 3])
    def test_a_stopped_member_keeps_every_bit(self, kind, steps):
        stopped, running = Problem([0, 1, 2]), Problem([0, 1, 2])
        optimizer, other = train(kind, stopped, steps=steps), train(kind, running, steps=steps)
        before = bits(stopped, optimizer, 1)
        optimizer.set_active([True, False, True])
        for t in range(steps, STEPS):
            optimizer.step(stopped.closure(optimizer, t, spoil=1))
            other.step(running.closure(other, t))
        after = bits(stopped, optimizer, 1)
        assert all(torch.equal(a, b) for a, b in zip(before, after if steps else after[:4], strict=True))
        if steps:
            assert int(optimizer.member_state(stopped.a, 1)["step"]) == steps
        for mine, theirs in zip(stopped.params, running.params, strict=True):
            torch.testing.assert_close(mine[[0, 2]], theirs[[0, 2]], rtol=1e-12, atol=1e-12)
        optimizer.set_active(None)
        optimizer.step(stopped.closure(optimizer, STEPS))
        assert not torch.equal(stopped.full[1], before[3])

    def test_a_member_moves_to_another_pack(self, kind):
        """A checkpoint is one member's weights and state: it continues in any pack as it would have where it was."""
        first = Problem([0, 1, 2])
        optimizer = train(kind, first, steps=3)
        second = Problem([2, 1])
        other = kind(second.groups(), lr=LR)
        for t in range(2):
            other.step(second.closure(other, t + 5))
        with torch.no_grad():
            for mine, theirs in zip(first.params, second.params, strict=True):
                theirs[1] = mine[1]
                other.load_member_state(theirs, 1, optimizer.member_state(mine, 1))
        for t in range(3, STEPS):
            optimizer.step(first.closure(optimizer, t))
            other.step(second.closure(other, t))
        for mine, theirs in zip(first.params, second.params, strict=True):
            torch.testing.assert_close(mine[1], theirs[1], rtol=1e-12, atol=1e-12)

    def test_members_have_their_own_learning_rates(self, kind):
        slow, fast, both = Problem([0, 1, 2]), Problem([0, 1, 2]), Problem([0, 1, 2])
        for problem, lr in ((slow, 1e-3), (fast, 1e-2), (both, torch.tensor([1e-3, 1e-2, 0.0], dtype=torch.float64))):
            optimizer = kind(problem.groups(), lr=lr)
            for t in range(STEPS):
                optimizer.step(problem.closure(optimizer, t))
        for s, f, b, start in zip(slow.params, fast.params, both.params, Problem([0, 1, 2]).params, strict=True):
            torch.testing.assert_close(b[0], s[0], rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(b[1], f[1], rtol=1e-12, atol=1e-14)
            assert torch.equal(b[2], start[2])

    def test_state_dict_round_trip_in_the_middle(self, kind):
        mine = Problem([0, 1, 2])
        optimizer = train(kind, mine, steps=3)
        theirs = copy.deepcopy(mine)
        other = kind(theirs.groups(), lr=7.0)
        other.load_state_dict(optimizer.state_dict())
        for t in range(3, STEPS):
            optimizer.step(mine.closure(optimizer, t))
            other.step(theirs.closure(other, t))
        assert all(torch.equal(a, b) for a, b in zip(mine.params, theirs.params, strict=True))

    @pytest.mark.parametrize("set_to_none", [True, False])
    def test_gradients_are_read_only_and_may_be_zeroed_either_way(self, kind, set_to_none):
        results = []
        for how in (True, set_to_none):
            problem = Problem([0, 1, 2])
            optimizer = kind(problem.groups(), lr=LR)
            for t in range(STEPS):

                def closure(t=t, how=how, problem=problem, optimizer=optimizer):
                    optimizer.zero_grad(set_to_none=how)
                    problem.loss_K(t).sum().backward()

                if optimizer.needs_two_points:
                    optimizer.step(closure)
                    continue
                closure()
                before = [param.grad.clone() for param in problem.params]
                optimizer.step()
                assert all(torch.equal(g, param.grad) for g, param in zip(before, problem.params, strict=True))
            results.append(problem.params)
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))

    def test_accumulation_equals_one_batch(self, kind):
        whole, pieces = Problem([0, 1, 2]), Problem([0, 1, 2])
        train(kind, whole)
        optimizer = kind(pieces.groups(), lr=LR)
        for t in range(STEPS):

            def closure(t=t):
                optimizer.zero_grad()
                for _ in range(4):
                    (pieces.loss_K(t).sum() / 4).backward()

            optimizer.step(closure)
        for a, b in zip(whole.params, pieces.params, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)

    def test_parameters_without_gradient_and_groups_added_later(self, kind):
        problem = Problem([0, 1, 2])
        first, *rest = problem.groups()
        optimizer = kind([first], lr=LR)
        idle = torch.nn.Parameter(torch.ones(3, 2, 2, dtype=torch.float64))
        optimizer.add_param_group({"params": [idle], "role": "full", "members": 3})
        for group in rest:
            optimizer.add_param_group(group)
        train_state = problem.b.detach().clone()
        optimizer.step(problem.closure(optimizer, 0))
        assert (idle == 1).all()
        assert optimizer.member_state(idle, 0) == {} or optimizer.member_state(idle, 0)["step"] == 0
        assert not torch.equal(problem.b, train_state)

    def test_a_step_without_any_gradient_moves_nothing(self, kind):
        problem = Problem([0, 1, 2])
        optimizer = kind(problem.groups(), lr=LR)
        optimizer.step(lambda: None)
        assert all(torch.equal(a, b) for a, b in zip(problem.params, Problem([0, 1, 2]).params, strict=True))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_keeps_float32_state(self, kind, dtype):
        problem = Problem([0, 1, 2], dtype=dtype)
        optimizer = train(kind, problem, steps=3)
        other = kind(problem.groups(), lr=LR)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for param in problem.params:
            assert param.dtype == dtype
            assert param.isfinite().all()
            for name in optimizer.buffers(param):
                assert optimizer.state[param][name].dtype == torch.float32
                assert torch.equal(optimizer.state[param][name], other.state[param][name])

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"role": "C"}, "`role`"),
            ({"members": 2}, "must start with 2"),
            ({"members": 3, "role": "A", "ranks": (1, 2)}, "one entry for each of"),
            ({"members": 3, "role": "A", "ranks": (1, 2, 9)}, "must be at most the size"),
            ({"members": 3, "ranks": (1, 2, 3)}, "must have role A or B"),
        ],
    )
    def test_contradictory_groups_are_refused(self, kind, fields, message):
        with pytest.raises(ConfigError, match=message):
            kind([{"params": [torch.nn.Parameter(torch.zeros(3, 4, 5))], **fields}])

    def test_an_unknown_option_is_refused_and_the_known_ones_are_named(self, kind):
        with pytest.raises(ConfigError, match=r"no option \['nope'\]. Its options are \[.*'weight_decay'.*'b_ratio'"):
            kind([torch.nn.Parameter(torch.zeros(2, 2))], nope=1)

    def test_the_constructor_shows_its_options(self, kind):
        parameters = inspect.signature(kind).parameters
        assert list(parameters)[:2] == ["params", "lr"]
        options = {field.name: field.default for field in dataclasses.fields(kind.Config)}
        assert {name: p.default for name, p in parameters.items() if name != "params"} == options

    def test_a_value_of_the_wrong_type_is_refused(self, kind):
        options = {field.name: field.default for field in dataclasses.fields(kind.Config)}
        wrong = {"route": "sideways", "ns_steps": 2.5, "nesterov": 1, "eps": "small", "betas": [0.9], "exact": None}
        for name in sorted(set(wrong) & set(options)):
            with pytest.raises(ConfigError, match=rf"`{name}` of {kind.__name__} must be .*found"):
                kind([torch.nn.Parameter(torch.zeros(2, 2))], **{name: wrong[name]})

    def test_shared_parameters_are_refused_in_a_pack(self, kind):
        shared = {"params": [torch.nn.Parameter(torch.zeros(3, 4))]}
        with pytest.raises(ConfigError, match="same `members`"):
            kind([*Problem([0, 1, 2]).groups(), shared])

    def test_a_deep_copy_goes_on_alike(self, kind):
        mine = Problem([0, 1, 2])
        optimizer = train(kind, mine, steps=2)
        theirs, other = copy.deepcopy((mine, optimizer))
        for problem, own in ((mine, optimizer), (theirs, other)):
            own.step(problem.closure(own, 2))
        assert all(torch.equal(a, b) for a, b in zip(mine.params, theirs.params, strict=True))
