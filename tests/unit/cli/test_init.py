"""The configuration file that `marslora init` writes, its schema, and what `marslora doctor` says."""

import json
from importlib import metadata

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from scripts.config_schema import PATH, render

from marslora.cli import doctor, init
from marslora.core.config_schema import make_schema
from marslora.core.errors import ConfigError
from marslora.settings import SEARCH_OPTIONS, read_search


def test_the_schema_is_that_of_the_options():
    assert PATH.read_text(encoding="utf-8") == render(), "run: python scripts/config_schema.py"


def test_every_option_is_in_the_schema_with_its_help():
    schema = make_schema(SEARCH_OPTIONS, "search")
    for row in SEARCH_OPTIONS.rows:
        place = schema
        for step in row.path if not row.option.key else ():
            place = place["properties"][step]
        assert row.option.key or place["description"] == row.help
    assert schema["required"] == ["model", "data"] and schema["properties"]["data"]["required"] == ["train"]


def test_the_file_sets_what_was_given_and_has_a_comment_for_every_option(tmp_path):
    init.command(tmp_path / "search.yaml", "./llava", ["a.jsonl"], force=False)
    text = (tmp_path / "search.yaml").read_text()
    settings = yaml.safe_load(text)
    assert settings == {"model": {"path": "./llava"}, "data": {"train": ["a.jsonl"]}, "search": None, "training": None}
    read, run = read_search({}, tmp_path / "search.yaml", "flag")
    same, same_run = read_search({"model": "./llava", "train": ["a.jsonl"]}, None, "keyword")
    assert (read, run) == (same, same_run)
    assert all(
        f"# {row.path[-1]}:" in text for row in SEARCH_OPTIONS.rows if not row.is_required and not row.option.key
    )
    assert json.loads((tmp_path / "marslora.schema.json").read_text())["title"] == "marslora search"


def test_a_comment_without_its_mark_is_the_default(tmp_path):
    init.command(tmp_path / "search.yaml", "./llava", ["a.jsonl"], force=False)
    keys = {row.path[-1] for row in SEARCH_OPTIONS.rows}
    lines = []
    for line in (tmp_path / "search.yaml").read_text().splitlines():
        key, _, value = line.strip().removeprefix("# ").partition(":")
        is_default = line.strip().startswith("# ") and key in keys and value and value.strip() != key
        lines.append(line.replace("# ", "", 1) if is_default else line)
    (tmp_path / "all.yaml").write_text("\n".join(lines))
    assert len(yaml.safe_load("\n".join(lines))["training"]) > 10
    assert read_search({}, tmp_path / "all.yaml", "flag") == read_search({}, tmp_path / "search.yaml", "flag")


def test_a_file_is_overwritten_only_on_request(tmp_path):
    (tmp_path / "search.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        init.command(tmp_path / "search.yaml", "m", ["a"], force=False)
    init.command(tmp_path / "search.yaml", "m", ["a"], force=True)
    assert "mine" not in (tmp_path / "search.yaml").read_text()


def test_the_doctor_names_what_is_missing_or_too_old(monkeypatch, capsys):
    wanted = [Requirement("torch>=99"), Requirement("no-such-package>=1"), Requirement("numpy>=1")]
    monkeypatch.setattr(doctor, "read_requirements", lambda: wanted)
    with pytest.raises(typer.Exit) as stopped:
        doctor.command()
    out = " ".join(capsys.readouterr().out.split())
    assert stopped.value.exit_code == 1
    assert "too old: pip install -U 'torch>=99'" in out and "missing: pip install 'no-such-package>=1'" in out
    assert "precision" in out and "float32" in out


def test_the_versions_that_were_tested_are_those_of_this_environment():
    assert set(doctor.TESTED) <= {each.name for each in map(Requirement, metadata.requires("marslora"))}
    here = {name: metadata.version(name).partition("+")[0] for name in doctor.TESTED}
    older = [name for name, version in doctor.TESTED.items() if here[name].split(".")[0] < version.split(".")[0]]
    assert not older, f"{older} are older here than what is said to be tested"
