"""A packed adapter from outside trains in the final run too, and what cannot train is refused at once."""

import pytest
import torch
from peft import PeftModel
from torch import nn

from marslora.adapters.lora import Lora
from marslora.core.errors import ConfigError, StudyError
from marslora.core.training import PluginSpec
from marslora.methods import attach, check_adapter, make_method
from tests.helpers.outside_adapter import NAME, TWIN
from tests.unit.methods.worlds import randomise, world


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


@pytest.mark.parametrize("adapter", [spec(), spec(TWIN, use_dora=True)])
def test_the_count_is_what_is_trained(adapter):
    model, _, plan, sizes = world("llava")
    method = make_method(adapter)
    assert method.count(sizes, plan) == method.apply(model, plan).num_trainable()


@pytest.mark.parametrize(
    ("adapter", "packed", "words"),
    [
        (spec(stort=1.0), True, "GainedLora has no option ['stort']. Its options are ['start']."),
        (spec("hydralora"), True, "can only train in the final run"),
        (spec("hydralora", hads=3), False, "hads"),
        (spec("tests.helpers.outside_adapter:Missing"), True, "cannot be imported"),
        (spec("pathlib:Path"), True, "must be a subclass of `marslora.adapters.AbstractAdapter`"),
        (spec("lorra"), True, "Name one of"),
    ],
)
def test_what_cannot_train_is_refused(adapter, packed, words):
    with pytest.raises(ConfigError) as caught:
        check_adapter(adapter, packed=packed)
    assert words in str(caught.value)


def test_a_method_may_train_where_nothing_is_calibrated():
    check_adapter(spec("hydralora"), dropout=0.1)


@pytest.mark.parametrize(
    ("adapter", "asked", "words"),
    [
        (spec(), {"dropout": 0.1}, "has no dropout, found `dropout` 0.1"),
        (spec("lora"), {"dropout": 0.1, "experts": True}, "`experts` need the adapter `lora` without dropout"),
        (spec("lora", use_dora=True), {"experts": True}, "`experts` need the adapter `lora` without dropout"),
        (spec("hydralora"), {"experts": True}, "found hydralora with dropout 0"),
        (spec(), {"experts": True}, "`experts` need the adapter `lora`"),
        (spec(TWIN), {"experts": True}, "`experts` need the adapter `lora`"),
    ],
)
def test_what_the_class_does_not_say_it_can_is_refused(adapter, asked, words):
    check_adapter(spec("lora"), dropout=0.1)
    check_adapter(spec("lora", use_rslora=True), experts=True)
    with pytest.raises(ConfigError) as caught:
        check_adapter(adapter, **asked)
    assert words in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_an_adapter_that_peft_has_a_form_for_is_saved_for_peft(tmp_path, options):
    model, batch, plan, _ = world("llava", vision=2, language=4)
    path = "model.multi_modal_projector.linear_1"
    plan = plan.model_copy(update={"full_modules": (path,), "parts": {**plan.parts, path: "projector"}})
    change = make_method(spec(TWIN, **options)).apply(model, plan)
    randomise(change)
    trained = logits(change.model, batch)
    change.save(tmp_path)
    change.remove()
    assert not torch.allclose(logits(model, batch), trained, atol=1e-3)
    loaded = PeftModel.from_pretrained(model, tmp_path).eval()
    torch.testing.assert_close(logits(loaded, batch), trained, atol=1e-5, rtol=1e-5)


def test_a_subclass_of_lora_is_trained_by_its_own_forward():
    class Changed(Lora):
        def forward(self, x):
            return super().forward(2 * x)

    assert Lora.trained_by_peft and Lora.peft_format and Lora.takes_dropout
    assert not (Changed.trained_by_peft or Changed.peft_format or Changed.takes_dropout)


def test_a_checkpoint_with_more_than_the_adapter_trains_is_refused():
    model, _, plan, _ = world("llava")
    change = make_method(spec(TWIN)).apply(model, plan)
    layers = [(path, layer.adapter) for path, layer in change.layers.items()]
    weights = {f"{path}.{f.key}": adapter.member_view(f, 0) for path, adapter in layers for f in adapter.factors()}
    change.load_member(weights)
    with pytest.raises(StudyError, match=r"must hold only what this adapter trains, found `elsewhere\.lora_A\.weight`"):
        change.load_member({**weights, "elsewhere.lora_A.weight": torch.zeros(1)})


def test_a_folder_of_an_earlier_version_says_so(tmp_path):
    model, _, plan, _ = world("llava")
    change = make_method(spec()).apply(model, plan)
    change.save(tmp_path)
    change.remove()
    config = tmp_path / "marslora_adapter.json"
    config.write_text(config.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(StudyError, match="must have format 2, found 1"):
        attach(model, tmp_path)


def test_any_other_is_saved_for_attach(tmp_path):
    model, batch, plan, _ = world("llava")
    change = make_method(spec(start=0.5)).apply(model, plan)
    randomise(change)
    trained = logits(change.model, batch)
    change.save(tmp_path)
    change.remove()
    assert not (tmp_path / "adapter_config.json").exists()
    torch.testing.assert_close(
        logits(attach(model, tmp_path, trust_remote_code=True).model, batch), trained, atol=1e-6, rtol=1e-6
    )
