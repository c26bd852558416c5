import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from peft.utils.other import get_pattern_key

from marslora.core import patterns

STEPS = ("model", "visual", "merger", "layers", "0", "1", "10", "q_proj", "fc1", "a", "a_b")
NAMES = st.lists(st.sampled_from(STEPS), min_size=1, max_size=5).map(".".join)
RANKS = st.dictionaries(NAMES, st.sampled_from([0, 1, 4, 16]), min_size=1, max_size=14)
QWEN = {
    **{f"model.visual.blocks.{layer}.{name}": 8 for layer in range(12) for name in ("attn.qkv", "mlp.fc1")},
    **{f"model.visual.merger.mlp.{index}": 4 for index in (0, 2)},
    **{f"model.language_model.layers.{layer}.self_attn.{p}_proj": 16 for layer in range(24) for p in "qkvo"},
}


def peft_rank(config, name):
    """The rank that PEFT gives a module, from its own functions."""
    return config["rank_pattern"].get(get_pattern_key(config["rank_pattern"].keys(), name), config["r"])


@given(RANKS, st.randoms())
def test_every_module_gets_its_rank_in_any_order_and_after_saving(ranks, random):
    config = patterns.lora_config_dict(ranks, 2.0)
    wanted = {name: rank for name, rank in ranks.items() if rank}
    keys = list(config["rank_pattern"].items())
    random.shuffle(keys)
    for order in (keys, sorted(keys), list(reversed(keys))):
        shuffled = json.loads(json.dumps({**config, "rank_pattern": dict(order)}))
        assert {name: peft_rank(shuffled, name) for name in wanted} == wanted
    for name in wanted:
        assert sum(patterns.matches(key, name) for key in config["rank_pattern"]) == (wanted[name] != config["r"])
        alpha = config["alpha_pattern"].get(get_pattern_key(config["alpha_pattern"], name), config["lora_alpha"])
        assert alpha == 2 * wanted[name]


@given(RANKS, st.lists(NAMES, max_size=20))
def test_targets_match_the_adapted_modules_and_nothing_else(ranks, others):
    config = patterns.lora_config_dict(ranks, 2.0)
    wanted = {name for name, rank in ranks.items() if rank}
    if not wanted:
        assert config["target_modules"] == []
        return
    headless = {name.removeprefix("model.") for name in wanted}
    for name in {*ranks, *others} - (headless - wanted):
        assert bool(re.fullmatch(config["target_modules"], name)) == (name in wanted)
    if all(name.startswith("model.") for name in wanted):
        assert all(re.fullmatch(config["target_modules"], name) for name in headless)


@given(st.sets(st.integers(0, 250), min_size=1))
def test_numbers_are_matched_exactly(numbers):
    regex = patterns.exact_regex([f"layers.{number}.fc" for number in numbers])
    assert {number for number in range(300) if re.fullmatch(regex, f"layers.{number}.fc")} == numbers
    assert not re.fullmatch(regex, f"layers.0{min(numbers)}.fc")


def test_keys_are_short_where_parts_are_regular():
    config = patterns.lora_config_dict(QWEN, 2.0, dropout=0.1)
    assert config["rank_pattern"] == {r"blocks\..*": 8, r"merger\..*": 4}
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (16, 32, 0.1)
    assert config["target_modules"] == (
        r"(model\.)?(visual\.(blocks\.([0-9]|1[0-1])\.(attn\.qkv|mlp\.fc1)|merger\.mlp\.(0|2))"
        r"|language_model\.layers\.([0-9]|1[0-9]|2[0-3])\.self_attn\.(q_proj|k_proj|v_proj|o_proj))"
    )


def test_modules_trained_whole_are_saved_and_not_targeted():
    full = [name for name in QWEN if "merger" in name]
    config = patterns.lora_config_dict(QWEN, 1.5, full)
    assert config["modules_to_save"] == full
    assert not any(re.fullmatch(config["target_modules"], name) for name in full)
    assert config["alpha_pattern"] == {r"visual\..*": 12} and config["lora_alpha"] == 24


def test_a_name_inside_another_is_told_apart():
    ranks = {"x.a.b": 4, "a.b": 8, "c": 16, "d": 16, "e": 16}
    config = patterns.lora_config_dict(ranks, 2.0)
    assert {name: peft_rank(config, name) for name in ranks} == ranks


@pytest.mark.parametrize("order", [sorted, lambda keys: sorted(keys, reverse=True)])
def test_peft_accepts_the_settings_after_a_round_trip(tmp_path, order):
    config = patterns.lora_config_dict(QWEN, 2.0)
    LoraConfig(**config).save_pretrained(tmp_path)
    loaded = LoraConfig.from_pretrained(tmp_path)
    read = {**config, "rank_pattern": {key: loaded.rank_pattern[key] for key in order(loaded.rank_pattern)}}
    assert loaded.target_modules == config["target_modules"]
    assert {name: peft_rank(read, name) for name in QWEN} == QWEN
