"""Models in 4 and 8 bits: how they load, what they take, what is refused."""

import pytest
import torch
from peft import PeftModel

import marslora
from marslora.core.errors import ConfigError
from marslora.core.linears import is_quantized
from marslora.core.spec import DataSpec, ModelSpec
from marslora.data.rows import load_encoded_splits
from marslora.models import quantization
from marslora.models.loading import load, register_model
from tests.helpers.packs import world  # noqa: F401 (a fixture)
from tests.helpers.quantized_base import quantized_base
from tests.twins.worlds import member, train_packed, varied


def test_without_bitsandbytes_the_error_says_what_to_install(world, monkeypatch):  # noqa: F811
    monkeypatch.setattr(quantization, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match=r"`quantize` needs no_such_package.*pip install 'marslora\[quantize\]'"):
        load(ModelSpec(path=str(world / "model"), device="cpu", quantize="nf4"))


def test_a_model_in_memory_is_not_quantised(world):  # noqa: F811
    loaded = load(ModelSpec(path=str(world / "model"), device="cpu"))
    path = register_model("plain", loaded.model, loaded.processor)
    with pytest.raises(ConfigError, match="needs the model's folder, found a model in memory"):
        load(ModelSpec(path=path, quantize="int8"))


@pytest.fixture
def bitsandbytes():
    return pytest.importorskip("bitsandbytes", reason="needs marslora[quantize]")


@pytest.mark.parametrize(("method", "share"), [("nf4", 0.30), ("int8", 0.55)])
def test_a_quantised_linear_takes_a_share_of_bfloat16(bitsandbytes, tmp_path, method, share):
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaConfig(
        text_config={"model_type": "llama", "vocab_size": 100, **sizes},
        vision_config={"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, **vision},
    )
    model = LlavaForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    config = quantization.make_quantization(method, model, torch.bfloat16)
    small = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16, quantization_config=config)
    before, after = (_language_bytes(each) for each in (model, small))
    assert after <= share * before, after / before


def _language_bytes(model):
    """Bytes of the linears of the language model, constants of the quantisation included."""
    linears = [
        module for _, module in model.model.language_model.named_modules() if isinstance(module, torch.nn.Linear)
    ]
    return sum(tensor.nbytes for linear in linears for tensor in linear.state_dict().values())


def test_weights_keep_their_layout_on_any_processor(bitsandbytes, tmp_path):
    """With AVX512-BF16, a forward without gradient would make the next backward fail; others have no such layout."""
    base, batch = quantized_base(tmp_path, "llava", "nf4")
    before = [p.shape for p in base.model.parameters()]
    with torch.no_grad():
        base.model(**batch)
    assert [p.shape for p in base.model.parameters()] == before
    train_packed(base, [member(base, 2)], varied(batch, 1))


def test_a_linear_whose_inputs_do_not_fill_blocks(bitsandbytes):
    layer = bitsandbytes.nn.Linear4bit(96, 32, compute_dtype=torch.float32, quant_type="nf4").to("cpu")
    quantization.keep_layout(layer)
    layer.eval()
    x = torch.randn(3, 96)
    with torch.no_grad():
        expected = layer(x)
    torch.testing.assert_close(layer(x.clone().requires_grad_()), expected)


def test_what_is_trained_whole_is_not_quantised(bitsandbytes, tmp_path):
    base, _ = quantized_base(tmp_path, "llava", "nf4", full=("language",))
    with pytest.raises(ConfigError, match=r"`full` cannot train `.*` whole, because it is quantised"):
        train_packed(base, [member(base, {"vision": 1})], [])


def test_dora_on_8_bits_is_refused_on_a_cpu(bitsandbytes, tmp_path):
    base, _ = quantized_base(tmp_path, "llava", "int8", adapter="lora:use_dora=true")
    with pytest.raises(ConfigError, match="PEFT cannot train DoRA on 8-bit weights on a CPU"):
        train_packed(base, [member(base, 1)], [])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nf4", "int8"])
@pytest.mark.parametrize("saved", [False, True], ids=["now", "when saved"])
def test_a_search_on_a_quantised_base_merges_as_peft_does(bitsandbytes, world, tmp_path, method, saved):  # noqa: F811
    folder = world / "model"
    if saved:
        loaded = load(ModelSpec(path=str(folder), device="cpu", quantize=method))
        folder = tmp_path / "saved"
        loaded.model.save_pretrained(folder)
        loaded.processor.save_pretrained(folder)
        with pytest.raises(ConfigError, match="was saved quantised"):
            load(ModelSpec(path=str(folder), device="cpu", quantize=method))
    study = marslora.search(
        model=str(folder),
        train=str(world / "train.jsonl"),
        validation=str(world / "validation.jsonl"),
        ranks={"vision": (0, 4), "language": (2, 8)},
        learning_rate=5e-3,
        examples=160,
        batch_size=8,
        study=str(tmp_path / "study"),
        device="cpu",
        **({} if saved else {"quantize": method}),
    )
    assert study.final.validation_loss < study.final.base_validation_loss
    spec = ModelSpec(path=str(folder), device="cpu", quantize=None if saved else method)
    loaded = load(spec.model_copy(update={"dtype": "float32"}))  # another object than the one that was trained
    rows = load_encoded_splits(
        DataSpec(train=(str(world / "train.jsonl"),), validation=(str(world / "validation.jsonl"),)),
        loaded.processor,
        str(tmp_path / "cache"),
    ).validation
    assert _count_quantized(loaded.model) == 14
    adapted = PeftModel.from_pretrained(loaded.model, study.adapter_folder).eval()
    assert _loss(adapted, rows) == pytest.approx(study.final.validation_loss, abs=1e-4)
    merged = adapted.merge_and_unload()
    assert _count_quantized(merged) == 14
    assert _loss(merged, rows) == pytest.approx(study.final.validation_loss, abs=0.1)


def _count_quantized(model):
    return sum(is_quantized(module) for module in model.modules() if isinstance(module, torch.nn.Linear))


@torch.no_grad()
def _loss(model, rows):
    batch = rows.batch(range(len(rows)))
    logits = model(**batch).logits[:, :-1]
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten()))
