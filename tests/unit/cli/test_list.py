"""The list of plugins, and the options of one."""

import re

import pytest

from marslora.cli.list import command
from marslora.core.errors import ConfigError


def list_words(capsys, monkeypatch, name):
    """What ``marslora list NAME`` prints, with single spaces."""
    monkeypatch.setenv("COLUMNS", "250")
    command(name)
    return re.sub(" +", " ", capsys.readouterr().out)


def test_options_are_listed_with_types_limits_defaults_and_docstrings(capsys, monkeypatch):
    printed = list_words(capsys, monkeypatch, "geolora")
    assert "search --adapter geolora" in printed and "compare --method geolora" in printed
    assert "tau a number of at least 0 and below 1 0.15 Singular values whose norm is below" in printed
    assert "keep_budget true or false true Whether the ranks after a cut" in printed
    assert "any other See the plugin `geolora`" in printed


def test_options_of_a_subclass_have_its_defaults_and_inherited_help(capsys, monkeypatch):
    printed = list_words(capsys, monkeypatch, "mola")
    assert "heads a whole number or a list of whole numbers [2,4,6,8] The number of heads of a linear" in printed


def test_a_plugin_from_elsewhere_and_one_without_options(capsys, monkeypatch):
    assert "start a number 1.0" in list_words(capsys, monkeypatch, "tests.helpers.outside_adapter:GainedLora")
    assert " none " in list_words(capsys, monkeypatch, "peft")


def test_an_unknown_name_is_answered_with_a_similar_one():
    with pytest.raises(ConfigError, match=r"`geolara` is not a plugin\. Did you mean `geolora`"):
        command("geolara")
