"""An adapter is attached with every tensor in its place, or refused by naming the tensors, with the model as before."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from marslora.core.errors import StudyError
from marslora.core.training import PluginSpec
from marslora.methods import attach, make_method
from tests.helpers.tiny_models import build
from tests.unit.methods.worlds import randomise, world

PEFT, OWN = "adapter_model.safetensors", "marslora_adapter.safetensors"
TARGETS = r".*language_model.*\.(q_proj|v_proj)"


def edit(change):
    def apply(folder):
        path = next(path for path in (folder / PEFT, folder / OWN) if path.exists())
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return apply


def without_first(tensors):
    return {name: each for name, each in tensors.items() if name != min(tensors)}


def with_nan(tensors):
    return {name: each.fill_(float("nan")) if name == min(tensors) else each for name, each in tensors.items()}


def misshapen(tensors):
    return {name: each[:1].contiguous() if name == min(tensors) else each for name, each in tensors.items()}


def set_targets(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": r".*nowhere\.q_proj"}))


def cut(folder):
    content = (folder / PEFT).read_bytes()
    (folder / PEFT).write_bytes(content[: len(content) // 2])


DAMAGED = {
    "all keys renamed": (
        edit(lambda tensors: {name.replace("base_model.", "base."): each for name, each in tensors.items()}),
        r"it has no `base_model.* more; its `base\.model.* have no place",
    ),
    "one key renamed": (
        edit(
            lambda tensors: {name.replace("layers.0.self_attn.q", "layers.0.q"): each for name, each in tensors.items()}
        ),
        r"it has no `.*layers\.0\.self_attn\.q_proj\.lora_A\.weight`, .*; its `.*layers\.0\.q_proj",
    ),
    "a key missing": (edit(without_first), r"it has no `base_model.*lora_A\.weight`"),
    "a key too many": (edit(lambda tensors: {**tensors, "x": torch.ones(1)}), "its `.*x.*` has no place"),
    "another rank": (edit(misshapen), r"is \(1, \d+\) instead of \(2, \d+\)"),
    "NaN": (edit(with_nan), "not finite: `.*lora_A.weight`"),
    "cut": (cut, "cannot be read"),
    "no weights": (lambda folder: (folder / PEFT).unlink(), "no weights"),
    "other targets": (set_targets, "cannot be put on LlavaForConditionalGeneration.*nowhere"),
    "settings that are no JSON": (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
    "settings of nothing": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "cannot be put on"),
}


@pytest.fixture
def folder(tmp_path):
    adapted = get_peft_model(build("llava")[0], LoraConfig(r=2, target_modules=TARGETS))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    adapted.save_pretrained(tmp_path)
    return tmp_path


def modules(model):
    return {name: (module, [p.requires_grad for p in module.parameters()]) for name, module in model.named_modules()}


def test_a_good_folder_computes_what_peft_computes(folder):
    (model, batch), (twin, _) = build("llava"), build("llava")
    with torch.no_grad():
        expected = PeftModel.from_pretrained(twin, folder).eval()(**batch).logits
        assert torch.equal(attach(model, folder)(**batch).logits, expected)


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_folder_of_peft_is_refused_by_name(folder, case):
    damage, message = DAMAGED[case]
    damage(folder)
    model, _ = build("llava")
    before = modules(model)
    with pytest.raises(StudyError, match=message) as error:
        attach(model, folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert modules(model) == before and not hasattr(model, "peft_config")


def test_an_adapter_of_another_architecture_is_refused_even_if_its_layers_fit(folder):
    model, _ = build("paligemma")
    before = modules(model)
    with pytest.raises(StudyError, match=r"trained on a LlavaForConditionalGeneration, and this is a PaliGemma"):
        attach(model, folder)
    assert modules(model) == before


def test_an_adapter_of_a_deeper_model_is_refused(folder):
    model, _ = build("llava")
    del model.model.language_model.layers[-1]
    with pytest.raises(StudyError, match=r"belongs to another model than this Llava.*layers\.1.* have no place"):
        attach(model, folder)


def test_the_model_without_its_head_has_other_keys(tmp_path):
    model, _ = build("llava")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=r"(model\.)?language_model.*\.(q_proj|v_proj)"))
    adapted.save_pretrained(tmp_path)
    headless = build("llava")[0].model
    with pytest.raises(StudyError, match=r"has no place|have no place"):
        attach(headless, tmp_path)


def test_embeddings_that_peft_saves_beside_an_adapter_are_at_home(folder):
    model, _ = build("llava")
    embedding = model.get_input_embeddings().weight.detach() + 1
    edit(lambda tensors: {**tensors, "base_model.model.model.language_model.embed_tokens.weight": embedding})(folder)
    assert torch.equal(attach(model, folder).get_input_embeddings().weight, embedding)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (edit(without_first), r"tensor `.*` is missing"),
        (edit(lambda tensors: {**tensors, "trained.x": torch.ones(1)}), r"holds `trained\.x`"),
        (edit(misshapen), "has shape"),
        (edit(with_nan), "not finite"),
    ],
)
def test_a_damaged_folder_of_another_method_is_refused_by_name(tmp_path, damage, message):
    model, _, plan, _ = world("llava", language=2)
    before = modules(model)
    change = make_method(PluginSpec(name="hydralora")).apply(model, plan)
    randomise(change)
    change.save(tmp_path)
    change.remove()
    damage(tmp_path)
    with pytest.raises(StudyError, match=message):
        attach(model, tmp_path)
    assert modules(model).keys() == before.keys()
