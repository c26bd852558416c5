from marslora.gradients._blocks import block_names

LORA = "base_model.model.model.{}.layers.{}.self_attn.q_proj.lora_{}.default.weight"
NAMES = [LORA.format("language_model", layer, factor) for layer in range(6) for factor in "AB"]


def test_thirds_are_contiguous_and_equal():
    found = block_names(NAMES, "thirds")
    assert found == [f"model.language_model.layers.{third}" for third in ("lower", "middle", "upper") for _ in range(4)]


def test_every_stack_has_its_own():
    names = [LORA.format("vision_tower.encoder", 0, "A"), LORA.format("language_model", 3, "A"), "projector.lora_A"]
    assert block_names(names, "thirds") == [
        "model.vision_tower.encoder.layers.lower",
        "model.language_model.layers.lower",
        "other",
    ]


def test_layers_that_train_nothing_do_not_count():
    names = [LORA.format("m", layer, "A") for layer in (9, 10, 11)]
    assert [name.rpartition(".")[2] for name in block_names(names, "thirds")] == ["lower", "middle", "upper"]


def test_other_granularities():
    assert set(block_names(NAMES, "global")) == {"all"}
    assert block_names(NAMES, "tensors") == NAMES
    assert block_names(NAMES, "layers")[2:4] == ["model.language_model.layers.1"] * 2
