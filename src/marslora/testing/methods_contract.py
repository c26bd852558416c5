"""What every method of the final run promises, on a tiny model that reads pictures and text.

Subclass the class in a test file of your own and return your plugin from the fixture `method`; pytest runs the rest.
A packed adapter is trained in the final run as a method too: return `marslora.methods.make_method` of its name.
"""

import copy
import math

import pytest
import torch

from marslora.core.errors import ConfigError
from marslora.methods import StepInfo, attach
from marslora.testing.toy_model import TASKS, WHOLE, build_toy_model

RANKS = {"vision": 2, "projector": 3, "language": 4}
LEARNING_RATE = 0.02
ROLES = {"A", "B", "magnitude", "router", "full", "tokens", "other"}


def apply(method, ranks=RANKS, full=(), seed=0):
    """A tiny model, its batch for the method, and the change that the method made."""
    toy = build_toy_model(ranks, full)
    batch = toy.batch_for(method)
    return toy, batch, method.apply(toy.model, toy.plan.model_copy(update={"seed": seed}), [batch, batch])


def train(change, batch, steps, first=1):
    """Train as the final run does, in short; returns the loss of each step."""
    optimizer = torch.optim.AdamW([each.parameter for each in change.trainables()], lr=LEARNING_RATE)
    losses = []
    for step in range(first, first + steps):
        optimizer.zero_grad()
        change.begin_step(step - 1, 1)
        loss, extra = change.model(**batch).loss, change.extra_loss()
        (loss if extra is None else loss + extra).backward()
        info = StepInfo(step, lambda _: LEARNING_RATE, lambda parameter: optimizer.state.pop(parameter, None))
        change.before_step(info)
        optimizer.step()
        change.after_step(info)
        losses.append(loss.item())
    return losses


def logits(model, batch):
    with torch.no_grad():
        return model(**batch).logits


def attached_logits(model, folder, batch):
    """What a copy of the model computes with the adapter of a folder."""
    change = attach(copy.deepcopy(model), folder, trust_remote_code=True)
    return logits(change if hasattr(change, "peft_config") else change.model, batch)


class MethodContract:
    """What every method of the final run promises, on a tiny model that reads pictures and text."""

    @pytest.fixture
    def method(self):
        """Return an instance of the method to check."""
        raise NotImplementedError("Define the fixture `method` in a subclass.")

    def test_it_says_whether_it_merges_and_what_serves_it(self, method):
        assert method.merges in ("yes", "by task", "no")
        assert "server" in method.serves or "Python" in method.serves

    def test_an_unknown_option_is_refused(self, method):
        with pytest.raises(ConfigError, match=r"has no option \['nonsense'\]"):
            method.Config.of({"nonsense": 1}, type(method).__name__)

    def test_options_are_read_back_as_they_were(self, method):
        assert type(method.config).of(method.config.as_dict(), "it") == method.config

    def test_it_starts_as_the_model_and_is_taken_off_again(self, method):
        before = logits(*build_toy_model(RANKS)[:2])
        toy, batch, change = apply(method)
        torch.testing.assert_close(logits(change.model, batch), before, atol=2e-5, rtol=1e-4)
        with change.disabled():
            torch.testing.assert_close(logits(change.model, batch), before)
        change.remove()
        torch.testing.assert_close(logits(toy.model, toy.batch), before)

    def test_what_it_trains_has_names_roles_and_the_number_that_it_counts(self, method):
        toy, _, change = apply(method)
        trainables = change.trainables()
        assert len({each.name for each in trainables}) == len(trainables) > 0
        assert {each.role for each in trainables} <= ROLES
        assert {each.module for each in trainables} <= set(toy.plan.ranks)
        assert change.num_trainable() == method.count(toy.sizes, getattr(change, "plan", toy.plan))
        change.remove()

    def test_it_learns_and_what_is_saved_computes_the_same(self, method, tmp_path):
        toy, batch, change = apply(method)
        frozen = {name: one.clone() for name, one in build_toy_model(RANKS).model.state_dict().items()}
        losses = train(change, batch, 6)
        assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
        trained = logits(change.model, batch)
        change.save(tmp_path)
        change.remove()
        assert all(torch.equal(one, frozen[name]) for name, one in toy.model.state_dict().items())
        torch.testing.assert_close(attached_logits(toy.model, tmp_path, batch), trained, atol=1e-5, rtol=1e-5)

    def test_what_merges_is_saved_as_lora_for_peft(self, method, tmp_path):
        _, _, change = apply(method)
        change.save(tmp_path)
        change.remove()
        folders = {"yes": [tmp_path], "by task": [tmp_path / "tasks" / task for task in TASKS], "no": []}
        found = sorted(path.parent for path in tmp_path.rglob("adapter_config.json"))
        assert found == folders[method.merges]

    def test_a_stopped_run_goes_on_wherever_it_started(self, method):
        _, batch, whole = apply(method)
        train(whole, batch, 3)
        state = {name: tensor.clone() for name, tensor in whole.state().items()}
        _, batch, stopped = apply(method, seed=1)
        stopped.load_state(state)
        torch.testing.assert_close(logits(stopped.model, batch), logits(whole.model, batch))
        assert stopped.state().keys() == state.keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in stopped.state().items())

    def test_modules_trained_whole_are_trained_and_saved_with_it(self, method, tmp_path):
        toy, batch, change = apply(method, {"vision": 2, "language": 2}, (WHOLE,))
        whole = {each.name for each in change.trainables() if each.role == "full"}
        assert whole == {f"{WHOLE}.weight", f"{WHOLE}.bias"}
        train(change, batch, 1)
        trained = logits(change.model, batch)
        change.save(tmp_path)
        change.remove()
        untouched = build_toy_model(RANKS).model.get_submodule(WHOLE).weight
        assert torch.equal(toy.model.get_submodule(WHOLE).weight, untouched)
        torch.testing.assert_close(attached_logits(toy.model, tmp_path, batch), trained, atol=1e-5, rtol=1e-5)
