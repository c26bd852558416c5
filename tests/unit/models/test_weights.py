"""A model is loaded with every weight of its checkpoint, or refused by naming the weights that are wrong."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from marslora.core.errors import ModelError
from marslora.core.spec import ModelSpec
from marslora.demo.model import embedded_folder
from marslora.models import _weights, loading
from marslora.models._constants import check_constants
from tests.helpers.tiny_models import FEW, build
from tests.helpers.tiny_processors import llava_processor

UP = "language_model.model.layers.1.mlp.up_proj.weight"


def edit(change):
    """A change of the folder that replaces the tensors by ``change(tensors)``."""

    def apply(folder):
        tensors = change(load_file(folder / "model.safetensors"))
        save_file(
            {name: each.contiguous() for name, each in tensors.items()},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )

    return apply


def replace(change):
    return edit(lambda tensors: {**tensors, UP: change(tensors[UP])})


def put(position, number):
    def change(tensor):
        tensor[position] = number
        return tensor

    return replace(change)


def cut(share):
    def apply(folder):
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: int(len(content) * share)])

    return apply


def shards(folder, lost=0, twice=False):
    """Two files with an index; ``lost`` bytes of the second are gone, or all of them; ``twice``: one tensor in both."""
    tensors = list(load_file(folder / "model.safetensors").items())
    (folder / "model.safetensors").unlink()
    half, names = len(tensors) // 2, [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name, part in zip(names, (tensors[: half + twice], tensors[half:]), strict=True):
        save_file(dict(part), folder / name, metadata={"format": "pt"})
    places = {name: names[index >= half] for index, (name, _) in enumerate(tensors)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    content = (folder / names[1]).read_bytes()
    (folder / names[1]).write_bytes(content[: len(content) - lost])


def lose_shard(folder):
    shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def break_index(folder):
    shards(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map"')


def leave_pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def configure(**values):
    def apply(folder):
        config = json.loads((folder / "config.json").read_text())
        config["text_config"].update(values)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def add_adapter(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"}))


REFUSED = {
    "no projector": (
        edit(lambda tensors: {name: each for name, each in tensors.items() if "projector" not in name}),
        "4 of 87 weights of LlavaForConditionalGeneration are missing.*`model.multi_modal_projector.linear_1.bias`",
    ),
    "every second": (edit(lambda tensors: dict(list(tensors.items())[::2])), "43 of 87 weights .* are missing"),
    "no embedding, to which the head is tied": (
        edit(lambda tensors: {name: each for name, each in tensors.items() if "embed_tokens" not in name}),
        "2 of 87 .* are missing.*`lm_head.weight`",
    ),
    "renamed": (
        edit(lambda tensors: {name.replace("multi_modal", "mm"): each for name, each in tensors.items()}),
        "4 of 87 weights.*The checkpoint has `mm_projector.linear_1.bias`",
    ),
    "all NaN": (
        edit(lambda tensors: {name: each * float("nan") for name, each in tensors.items()}),
        "86 weights of .* are not finite.*The file itself holds them",
    ),
    "one NaN": (put((3, 5), float("nan")), r"1 weight of .* is not finite: `model.language_model.layers.1.mlp.up_proj"),
    "one infinity": (put((3, 5), float("inf")), "1 weight of .* is not finite.*The file itself holds them"),
    "another shape": (replace(lambda each: each[:-1]), r"up_proj.weight` \(319, 128\) instead of \(320, 128\)"),
    "another dimension": (replace(lambda each: each[None]), r"up_proj.weight` \(1, 320, 128\) instead of"),
    "8-bit integers": (replace(lambda each: (100 * each).to(torch.int8)), r"quantised, .*up_proj.weight \(I8\)"),
    "8-bit floats": (replace(lambda each: each.to(torch.float8_e4m3fn)), r"quantised, .*up_proj.weight \(F8_E4M3\)"),
    "a bias too many": (
        edit(lambda tensors: {**tensors, UP.replace("weight", "bias"): torch.ones(320)}),
        "1 weight of .* is without a place.*`model.language_model.layers.1.mlp.up_proj.bias`",
    ),
    "scales without weights": (
        edit(lambda tensors: {**tensors, UP.replace("weight", "SCB"): torch.ones(320)}),
        "is without a place.*scales of quantised weights",
    ),
    "layers too many": (configure(num_hidden_layers=1), "18 weights of .* are without a place.*layers.1"),
    "layers too few": (configure(num_hidden_layers=4), "9 of 96 weights .* are missing.*layers.3"),
    "cut": (cut(0.5), r"damaged: model.safetensors has [\d,]+ bytes where its header announces"),
    "cut in the header": (cut(0.0005), "does not begin as safetensors do"),
    "empty": (cut(0), r"model.safetensors \(0 bytes\) does not begin"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded.*no file named"),
    "a shard missing": (lose_shard, "names model-00002-of-00002.safetensors, which is not there"),
    "a shard cut": (lambda folder: shards(folder, lost=9), "damaged: model-00002-of-00002.safetensors has"),
    "a tensor in two shards": (lambda folder: shards(folder, twice=True), "twice, in model-00001.*model-00002"),
    "the index": (break_index, "index.json` must say in which file"),
    "a pointer": (leave_pointer, "pointer of Git LFS.*git lfs pull"),
    "an adapter beside it": (add_adapter, "both a model .* and a PEFT adapter"),
}


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(embedded_folder(), tmp_path / "model")
    return tmp_path / "model"


def load(folder, **more):
    return loading.load(ModelSpec(path=str(folder), **{"device": "cpu", "dtype": "float32", **more}))


@pytest.mark.parametrize("case", REFUSED)
def test_a_damaged_checkpoint_is_refused_by_name(folder, case, caplog):
    damage, message = REFUSED[case]
    damage(folder)
    with pytest.raises(ModelError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    assert not caplog.records


def test_a_number_that_the_dtype_cannot_hold_is_told_from_damage(folder):
    put((3, 5), 1e6)(folder)
    assert load(folder, dtype="bfloat16").warnings == ()
    with pytest.raises(ModelError, match=r"up to 1e\+06, which float16 cannot hold. Use `dtype` bfloat16"):
        load(folder, dtype="float16")


def test_what_belongs_to_no_module_is_said(folder):
    edit(lambda tensors: {**tensors, "talker.weight": torch.ones(3)})(folder)
    (warning,) = load(folder).warnings
    assert "1 weight of" in warning and "`talker.weight`" in warning


def test_shards_are_whole(folder):
    shards(folder)
    assert load(folder).warnings == ()


def test_what_transformers_logs_elsewhere_is_not_swallowed(folder, caplog):
    logger = logging.getLogger("transformers")
    before = logger.handlers[:], logger.propagate
    load(folder)
    assert (logger.handlers, logger.propagate) == before


@pytest.mark.parametrize("name", [*FEW, "qwen3_vl_moe"])
def test_models_of_several_families_are_whole_after_saving_them(name, tmp_path):
    model, _ = build(name)
    model.save_pretrained(tmp_path)
    with _weights.keep_log():
        loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True, ignore_mismatched_sizes=True)
    assert _weights.check_report(loaded, report, str(tmp_path)) == ()
    _weights.check_numbers(loaded, str(tmp_path), tmp_path)
    assert check_constants(loaded, str(tmp_path)) == ()


def test_a_model_in_memory_is_looked_at_too():
    model, _ = build("llava")
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    path = loading.register_model("damaged", model, llava_processor())
    with pytest.raises(ModelError, match=r"`memory:damaged` is not finite: `lm_head\.weight`"):
        loading.load(ModelSpec(path=path))


@pytest.mark.parametrize(
    ("zeroed", "message"),
    [
        ("multi_modal_projector.linear_2", r"1 of 2 weight matrices of the projector of .*linear_2\.weight"),
        ("multi_modal_projector", r"2 of 2 weight matrices of the projector of"),
        ("vision_tower", r"of the vision of .* hold a single number"),
        ("language_model.layers.1.mlp.down_proj", None),
    ],
)
def test_a_part_without_weights_is_refused_and_an_empty_layer_is_said(zeroed, message):
    model, _ = build("llava")
    with torch.no_grad():
        for parameter in model.model.get_submodule(zeroed).parameters():
            parameter.zero_()
    spec = ModelSpec(path=loading.register_model("zeroed", model, llava_processor()))
    if message is None:
        (warning,) = loading.load(spec).warnings
        assert "1 weight matrix holds a single number: `model.language_model.layers.1.mlp.down_proj.weight`" in warning
        return
    with pytest.raises(ModelError, match=message):
        loading.load(spec)


def test_a_layer_that_should_be_quantised_and_is_not_is_named():
    class Linear4bit(nn.Linear):
        """Named like that of bitsandbytes."""

    model, _ = build("llava")
    old = model.model.language_model.layers[0].mlp.up_proj
    model.model.language_model.layers[0].mlp.up_proj = Linear4bit(old.in_features, old.out_features)
    path = loading.register_model("half", model, llava_processor())
    with pytest.raises(ModelError, match=r"1 weight of `memory:half` is not quantised .*layers\.0\.mlp\.up_proj"):
        loading.load(ModelSpec(path=path))


def test_tensors_that_do_not_fit_together_are_named_from_the_log():
    line = "model.layers.1.mlp.up_proj.weight | CONVERSION | details"
    assert _weights.name_unconverted(["nothing"]) == ""
    assert _weights.name_unconverted([f"REPORT\nKey | Status\n{line}"]).startswith("what is stored of `model.layers.1.")


def test_a_matrix_of_more_numbers_than_float32_counts_is_looked_at():
    model = nn.Sequential(nn.Embedding(49156, 576, dtype=torch.bfloat16))  # 28,313,856; a float32 counts to 2**24
    assert check_constants(model, "model") == ()
