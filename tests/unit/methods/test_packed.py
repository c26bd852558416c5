"""A packed adapter from outside trains in the final run too, and what cannot train is refused at once."""

import pytest
import torch
from torch import nn

from marslora.core.errors import ConfigError
from marslora.core.training import PluginSpec
from marslora.methods import check_adapter, make_method
from tests.helpers.outside_adapter import NAME
from tests.unit.methods.worlds import world


def spec(name=NAME, **options):
    return PluginSpec(name=name, options=options)


def logits(model: nn.Module, batch):
    with torch.no_grad():
        return model(**batch).logits


def test_it_starts_as_the_model_learns_and_is_taken_off_again():
    model, batch, plan, _ = world("llava")
    before = logits(model, batch)
    change = make_method(spec()).apply(model, plan)
    assert torch.equal(logits(change.model, batch), before)
    optimizer = torch.optim.SGD([each.parameter for each in change.trainables()], lr=1.0)
    change.model(**batch).loss.backward()
    optimizer.step()
    assert not torch.equal(logits(change.model, batch), before)
    with change.disabled():
        assert torch.equal(logits(change.model, batch), before)
    change.remove()
    assert torch.equal(logits(model, batch), before)


def test_the_count_is_what_is_trained():
    model, _, plan, sizes = world("llava")
    method = make_method(spec())
    assert method.count(sizes, plan) == method.apply(model, plan).num_trainable()


@pytest.mark.parametrize(
    ("adapter", "packed", "words"),
    [
        (spec(stort=1.0), True, "has no option ['stort']; its options are ['start']"),
        (spec("hydralora"), True, "can only train in the final run"),
        (spec("hydralora", hads=3), False, "hads"),
        (spec("tests.helpers.outside_adapter:Missing"), True, "cannot be imported"),
        (spec("pathlib:Path"), True, "must be a subclass of `marslora.adapters.AbstractAdapter`"),
        (spec("lorra"), True, "It must be one of"),
    ],
)
def test_what_cannot_train_is_refused(adapter, packed, words):
    with pytest.raises(ConfigError) as caught:
        check_adapter(adapter, packed=packed)
    assert words in str(caught.value)


def test_a_method_may_train_where_nothing_is_calibrated():
    check_adapter(spec("hydralora"))
