"""Words of the command line, configuration files, and what overrides what."""

import pytest

from marslora.core.config_file import merge_settings, read_config
from marslora.core.errors import ConfigError
from marslora.core.ladders import read_ladders
from marslora.core.spec import PluginSpec, SearchSpec, TrainingSpec
from marslora.core.words import read_plugin
from marslora.settings import read_search

INPUTS = {"model": "m", "train": ["a.jsonl"]}


def test_ranks_for_all_parts_or_for_each():
    assert read_ladders(["4,16"]) == read_ladders("4,16") == read_ladders([4, 16]) == (4, 16)
    assert read_ladders(["vision=4,16", "projector=8"]) == {"vision": (4, 16), "projector": (8,)}
    assert read_ladders({"vision": [4, 16], "projector": 8}) == {"vision": (4, 16), "projector": (8,)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": ["4;16"]}, r"`--ranks` must be ranks such as 4,16,64 or vision=4,16,64, found '4;16'"),
        ({"ranks": ["vision=4", "8"]}, r"`--ranks` must look like vision=4,16,64, found '8'"),
        (
            {"part_learning_rates": ["vision=fast"]},
            r"`--part-learning-rate` must be a number above 0 or auto for vision, found 'fast'",
        ),
        ({"part_learning_rates": ["1e-4"]}, r"`--part-learning-rate` must look like vision=1e-4 or .*, found '1e-4'"),
        ({"part_learning_rates": ["vision=0"]}, r"for vision, found '0'; rank 0 leaves a part as it is$"),
        ({"learning_rate": "-1"}, r"^`--learning-rate` must be a number above 0 such as 1e-3, .*, found '-1'$"),
        ({"dtype": "int8"}, r"`--dtype` must be 'auto', 'float32', 'bfloat16' or 'float16', found 'int8'"),
        ({"workers": "-1"}, r"`--workers` must be greater than or equal to 0, found '-1'"),
        ({"budget": "much"}, r"`budget` must be a number above 0 such as"),
        ({"objectives": ["text:weight=2"]}, r"`--objective` 0.*exactly one of"),
        ({"sweep": "["}, r"`sweep` must be a YAML value, found '\['"),
        ({"strategy": "mars:=1", "sweep": "1"}, r"`sweep` must look like key=value"),
        ({"max_memory": "5XB"}, r"`--max-memory` could not interpret byte unit: XB, found '5XB'"),
        ({"train": []}, r"`--train` is missing\. Give a file of rows"),
        ({"model": None}, r"`--model` is missing\. Give a model folder"),
    ],
)
def test_wrong_words_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        read_search({**INPUTS, **options}, None, "flag")


def test_an_unknown_keyword_is_answered_with_those_that_resemble_it():
    with pytest.raises(ConfigError, match=r"no keyword `learn_rate` \(found 1\)\. Did you mean `learning_rate`"):
        read_search({**INPUTS, "learn_rate": 1}, None, "keyword")
    with pytest.raises(ConfigError, match=r"`training.epoch` is not a field \(found 2\)\. Did you mean `epochs`\?"):
        read_search({**INPUTS, "training": {"epoch": 2}}, None, "keyword")
    with pytest.raises(ConfigError, match=r"^`learning_rate` must be a number above 0 .*, found -1$"):
        read_search({**INPUTS, "learning_rate": -1}, None, "keyword")


def test_options_override_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "model: {path: m}\ndata: {train: a.jsonl}\nworkers: 2\nranks: {vision: [4, 8]}\n"
        "training: {epochs: 2, batch_size: 4}\nsearch: {strategy: 'mars:sweep=0.5'}\n"
    )
    settings, run = read_search({"epochs": "5", "ranks": ["language=8"], "final": False}, path, "flag")
    assert (settings.training.epochs, settings.training.batch_size, settings.ranks) == (5, 4, {"language": (8,)})
    assert settings.search.strategy == PluginSpec(name="mars", options={"sweep": 0.5})
    assert (run.workers, run.final) == (2, False)
    settings, _ = read_search({"strategy": "grid"}, path, "flag")
    assert settings.search.strategy == PluginSpec(name="grid")
    settings, _ = read_search({"sweep": "0.25"}, path, "flag")
    assert float(settings.search.strategy.options["sweep"]) == 0.25


def test_keywords_override_sections():
    settings, _ = read_search({**INPUTS, "training": {"epochs": 2, "warmup": 0.5}, "epochs": 4}, None, "keyword")
    assert (settings.training.epochs, settings.training.warmup) == (4, 0.5)


@pytest.mark.parametrize(
    ("base", "over", "message"),
    [
        ({"model": 5}, {"model": {"path": "m"}}, "`model` must be settings such as path: "),
        ({"data": "a.jsonl"}, {"data": {"train": "b"}}, "`data` .* train: ..., found 'a.jso"),
    ],
)
def test_what_is_not_settings_is_named(base, over, message):
    with pytest.raises(ConfigError, match=message):
        merge_settings(base, over)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "must be valid YAML"), ("- 1", "must be a mapping"), (None, "does not exist")]
)
def test_a_bad_configuration_file_is_named(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_bytes(text.encode("utf-16"))  # starts with no byte of UTF-8
        with pytest.raises(ConfigError, match="must be valid YAML"):
            read_config(path)
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(path)


@pytest.mark.parametrize(
    ("words", "name", "options"),
    [
        ("mars", "mars", {}),
        ("package.module:Class", "package.module:Class", {}),
        ("mars:sweep=0.25", "mars", {"sweep": 0.25}),
        ("package.module:Class:eta=4,first=1e-2", "package.module:Class", {"eta": 4, "first": 0.01}),
        ("ray:address=10.0.0.1:6379,gpus=1", "ray", {"address": "10.0.0.1:6379", "gpus": 1}),
        ("adamw:betas=[0.9,0.99],amsgrad=true", "adamw", {"betas": [0.9, 0.99], "amsgrad": True}),
    ],
)
def test_a_plugin_in_words(words, name, options):
    plugin = PluginSpec.parse(words)
    assert plugin == PluginSpec(name=name, options=options)
    assert PluginSpec.parse(str(plugin)) == plugin
    assert read_plugin(words)["name"] == name


def test_a_strategy_without_a_name_is_the_default_one():
    assert SearchSpec.parse({"strategy": {"options": {"sweep": 0.25}}}).strategy == PluginSpec(
        name="mars", options={"sweep": 0.25}
    )


def test_objectives_in_words():
    training = TrainingSpec.parse({"objectives": ["text:rows=text", "images:rows=pictures,weight=2"]})
    assert [(each.name, each.rows, each.weight) for each in training.objectives] == [
        ("text", "text", 1.0),
        ("images", "pictures", 2.0),
    ]
