"""Words of the command line."""

import pytest

from marslora.cli import _settings
from marslora.core.errors import ConfigError
from marslora.core.spec import PluginSpec, SearchSpec


def test_ranks_for_all_parts_or_for_each():
    assert _settings.ranks(["4,16"]) == (4, 16)
    assert _settings.ranks(["vision=4,16", "projector=8"]) == {"vision": (4, 16), "projector": (8,)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _settings.ranks(["4;16"]), r"`--ranks` must be ranks such as 4,16,64, found '4;16'"),
        (lambda: _settings.ranks(["vision=4", "8"]), r"`--ranks` must look like vision=4,16,64, found '8'"),
        (lambda: _settings.rates(["vision=fast"]), r"numbers such as vision=1e-4"),
        (lambda: _settings.seeds("one"), r"`--seeds` must be numbers such as 0,1,2, found 'one'"),
        (lambda: _settings.merge({"model": 5}, {"model": {"path": None}}), "`model` must be settings such as path: "),
        (lambda: _settings.merge({"data": "a.jsonl"}, {"data": {"train": None}}), "`data` .* train: ..., found 'a.jso"),
        (lambda: _settings.rates(["1e-4"]), r"must look like vision=1e-4, found '1e-4'"),
    ],
)
def test_wrong_words_are_named(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_options_override_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("training: {epochs: 2, batch_size: 4}\nranks: {vision: [4, 8]}\n")
    merged = _settings.merge(
        _settings.read_config(path),
        {"training": {"epochs": 5, "dropout": None}, "ranks": None, "search": {"budget": None}},
    )
    assert merged == {"training": {"epochs": 5, "batch_size": 4}, "ranks": {"vision": [4, 8]}}


def test_ranks_of_the_command_line_replace_those_of_the_file():
    assert _settings.merge({"ranks": {"vision": [4]}}, {"ranks": {"language": (8,)}}) == {"ranks": {"language": (8,)}}


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- 1", "must be a mapping"), (None, "does not exist")]
)
def test_a_bad_configuration_file_is_named(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_bytes(text.encode("utf-16"))  # starts with no byte of UTF-8
        with pytest.raises(ConfigError, match="not valid YAML"):
            _settings.read_config(path)
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        _settings.read_config(path)


def test_a_word_in_the_place_of_settings_is_the_name_of_a_kind():
    file = {"search": {"strategy": "mars"}}
    given = {"search": {"strategy": {"name": None, "options": {"sweep": None}}}}
    assert _settings.merge(file, given) == {"search": {"strategy": {"name": "mars"}}}
    given["search"]["strategy"]["options"]["sweep"] = 0.25
    merged = _settings.merge(file, given)
    assert SearchSpec.parse(merged["search"]).strategy == PluginSpec(name="mars", options={"sweep": 0.25})
    assert SearchSpec.parse(file["search"]).strategy == PluginSpec(name="mars")
