"""What every combiner of gradients promises.

Subclass the class in a test file of your own and return your plugin from the fixture `kind`; pytest runs the rest.
"""

import json

import numpy as np
import pytest
import torch

from marslora.core.errors import ConfigError
from marslora.gradients import Block, combine


def everywhere(kind, **options):
    return kind(modulate="", **options)


def random_gradients(seed, number=2, sizes=((3, 4), (5,), (2, 2))):
    make = torch.Generator().manual_seed(seed)
    return {
        name: [torch.randn(size, generator=make, dtype=torch.float64) * 10**index for size in sizes]
        for index, name in enumerate("abcd"[:number])
    }


def run(combiner, gradients, blocks=None, losses=None):
    number = len(next(iter(gradients.values())))
    return combine(combiner, gradients, blocks or ["all"] * number, losses or dict.fromkeys(gradients, 1.0))


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


class CombinerContract:
    """What every combiner of gradients promises."""

    @pytest.fixture
    def kind(self):
        """Return the class to check."""
        raise NotImplementedError("Define the fixture `kind` in a subclass.")

    @pytest.mark.parametrize("seed", range(3))
    def test_the_result_is_the_weighted_sum_that_the_note_says(self, kind, seed):
        found = random_gradients(seed)
        combined, (note,) = run(everywhere(kind, blocks="global"), found)
        assert note.objectives == ("a", "b")
        assert note.norm == pytest.approx(float(flat(combined).norm()))
        for name, norm, cosine in zip(found, note.norms, note.alignment, strict=True):
            assert norm == pytest.approx(float(flat(found[name]).norm()))
            assert cosine == pytest.approx(
                float(torch.cosine_similarity(flat(found[name]), flat(combined), dim=0)), abs=1e-9
            )
        assert note.cosine == pytest.approx(
            float(torch.cosine_similarity(*(flat(found[name]) for name in "ab"), dim=0)), abs=1e-9
        )

    def test_gradients_are_only_read(self, kind):
        found = random_gradients(0)
        before = {name: [tensor.clone() for tensor in tensors] for name, tensors in found.items()}
        run(everywhere(kind), found)
        assert all(torch.equal(a, b) for name in found for a, b in zip(found[name], before[name], strict=True))

    def test_equal_gradients_keep_their_direction(self, kind):
        one = random_gradients(1)["a"]
        combined, _ = run(everywhere(kind), {"a": one, "b": [tensor.clone() for tensor in one]})
        assert torch.cosine_similarity(flat(combined), flat(one), dim=0) == pytest.approx(1.0)

    def test_an_objective_that_is_absent_is_left_out(self, kind):
        found = random_gradients(2)
        for absent in ([None] * 3, [torch.zeros_like(tensor) for tensor in found["a"]]):
            combined, (note,) = run(everywhere(kind), {"a": found["a"], "b": absent})
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(combined, found["a"], strict=True))
            assert (note.case, note.objectives, note.cosine) == ("alone", ("a",), None)
        combined, notes = run(everywhere(kind), {"a": [None] * 3, "b": [None] * 3})
        assert combined == [None] * 3
        assert notes == []

    def test_three_of_which_one_is_absent_are_two(self, kind):
        options = {"ratio": "max_over_min", "tau": 1.0} if kind.__name__ == "ParetoLora" else {}
        two, three = everywhere(kind, **options), everywhere(kind, **options)
        found = random_gradients(3)
        with_absent = {"a": found["a"], "x": [None] * 3, "b": found["b"]}
        for mine, theirs in zip(run(two, found)[0], run(three, with_absent)[0], strict=True):
            torch.testing.assert_close(mine, theirs)

    def test_a_parameter_that_one_objective_does_not_move(self, kind):
        found = random_gradients(4)
        found["b"][1] = None
        zero = {"a": found["a"], "b": [torch.zeros(5, dtype=torch.float64) if g is None else g for g in found["b"]]}
        for mine, theirs in zip(run(everywhere(kind), found)[0], run(everywhere(kind), zero)[0], strict=True):
            torch.testing.assert_close(mine, theirs)

    def test_blocks_do_not_know_each_other(self, kind):
        found = random_gradients(5)
        blocks = ["one", "two", "one"]
        both, notes = run(everywhere(kind, blocks="tensors"), found, blocks)
        assert [note.block for note in notes] == ["one", "two"]
        alone, _ = run(everywhere(kind, blocks="tensors"), {name: [tensors[1]] for name, tensors in found.items()})
        torch.testing.assert_close(both[1], alone[0])

    def test_what_is_not_modulated_is_summed(self, kind):
        found = random_gradients(6)
        combined, notes = run(kind(modulate="lower$"), found, ["x.lower", "x.upper", "other"])
        assert torch.equal(combined[1], found["a"][1] + found["b"][1])
        assert torch.equal(combined[2], found["a"][2] + found["b"][2])
        assert [note.case == "plain" for note in notes] == [False, True, True]

    def test_a_gradient_that_is_no_number_is_summed_plainly_and_seen(self, kind):
        found = random_gradients(7)
        found["b"][0][0, 0] = torch.inf
        combined, notes = run(everywhere(kind), found)
        assert combined[0][0, 0] == torch.inf
        assert torch.equal(combined[1], found["a"][1] + found["b"][1])
        assert notes == []

    def test_turning_all_gradients_turns_the_result(self, kind):
        found = random_gradients(8, sizes=((6,),))
        turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
        turned = {name: [turn @ tensors[0]] for name, tensors in found.items()}
        torch.testing.assert_close(run(everywhere(kind), turned)[0][0], turn @ run(everywhere(kind), found)[0][0])

    def test_more_than_two_objectives(self, kind):
        options = {"ratio": "max_over_min", "tau": 1.0} if kind.__name__ == "ParetoLora" else {}
        found = random_gradients(9, number=4)
        combined, (note,) = run(everywhere(kind, blocks="global", **options), found)
        assert flat(combined).isfinite().all()
        expected = sum(weight * flat(found[name]) for name, weight in zip(found, note.weights, strict=True))
        if kind.__name__ != "MMPareto":  # whose weights differ from tensor to tensor
            torch.testing.assert_close(flat(combined), expected)

    def test_it_continues_as_if_never_stopped(self, kind):
        whole, first = everywhere(kind), everywhere(kind)
        losses = [{"a": 3.0 / (1 + t), "b": 5.0, "c": 1.0 + t} for t in range(6)]
        found = [random_gradients(20 + t, number=3) for t in range(6)]
        if kind.__name__ == "ParetoLora":
            found = [{name: g[name] for name in "ab"} for g in found]
        results = [run(whole, g, losses=x)[0] for g, x in zip(found, losses, strict=True)]
        for g, x in zip(found[:3], losses, strict=False):
            run(first, g, losses=x)
        second = everywhere(kind)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        for g, x, expected in zip(found[3:], losses[3:], results[3:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(run(second, g, losses=x)[0], expected, strict=True))

    def test_bad_options_are_refused(self, kind):
        with pytest.raises(ConfigError, match=r"`blocks` of .* must be one of \[.*found 'halves'"):
            kind(blocks="halves")
        with pytest.raises(ConfigError, match=r"`modulate`.*must be a regular expression"):
            kind(modulate="(")

    def test_weights_have_one_entry_an_objective(self, kind):
        block = Block("all", ("a", "b"), np.array([[[4.0, -1.0], [-1.0, 1.0]]]), np.array([1.0, 2.0]))
        weights, case = everywhere(kind).weigh(block)
        assert weights.shape in ((2,), (1, 2))
        assert case
