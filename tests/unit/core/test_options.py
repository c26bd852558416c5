"""One field of a spec is one option of the command line and one keyword of Python, with no other edit."""

import inspect
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

import marslora
from marslora import api, cli
from marslora.cli import compare, search
from marslora.cli._options import with_options
from marslora.comparison.settings import COMPARE_OPTIONS, ComparisonSettings
from marslora.core.errors import ConfigError
from marslora.core.keywords import takes_options
from marslora.core.options import TRAINING, Option, OptionRecord, OptionTable, find_rows, look_up
from marslora.core.spec import PluginSpec, TrainingSpec
from marslora.run_options import ComparisonOptions, RunOptions
from marslora.settings import SEARCH_OPTIONS, StudySettings, read_search

WORDS: dict[str, tuple[list[str], Any, Any]] = {
    # What is typed, what Python callers give, and what stands in the record afterwards (None: what Python gives).
    "model": (["m"], "m", None),
    "train": (["a.jsonl", "b.jsonl"], ("a.jsonl", "b.jsonl"), None),
    "dtype": (["bfloat16"], "bfloat16", None),
    "quantize": (["nf4"], "nf4", None),
    "attention": (["eager"], "eager", None),
    "micro_batch": (["auto"], "auto", None),
    "learning_rate": (["2e-3"], 2e-3, None),
    "part_learning_rates": (["vision=1e-4"], {"vision": 1e-4}, None),
    "objectives": (["a:rows=text", "b:rows=pictures"], ["a:rows=text", "b:rows=pictures"], "a b"),
    "keep": (["last"], "last", None),
    "ranks": (["2,4"], [2, 4], (2, 4)),
    "--rank": (["vision=8"], {"vision": 8}, None),
    "budget": (["0.5"], 0.5, None),
    "max_memory": (["2GB"], "2GB", 2_000_000_000),
    "sweep": (["0.25"], 0.25, None),
    "executor": (["inline"], "inline", "inline"),
    "methods": (["uniform", "eva:rank=4"], ["uniform", "eva:rank=4"], "uniform eva:rank=4"),
    "seeds": (["3,4"], (3, 4), None),
    "equal": (["compute"], "compute", None),
    "gradients": (["sum"], "sum", "sum"),
    "evaluations": (["5"], 5, None),
    "trainable_token_indices": (["5", "3,4"], (5, 3, 4), (3, 4, 5)),
}


def example(row):
    """Words, a value and the result for an option: those above, or some that fit its type."""
    if row.flag in WORDS:
        return WORDS[row.flag]
    if row.name in WORDS:
        return WORDS[row.name]
    if row.option.type is Any:
        return ["a.jsonl", "b.jsonl"], ("a.jsonl", "b.jsonl"), None
    if row.type is bool:
        return [], not row.default, None
    if row.type is int:
        return ["3"], 3, None
    if row.type is float:
        return ["0.5"], 0.5, None
    if row.type is Path:
        return ["folder"], Path("folder"), None
    if row.name in {"optimizer", "adapter", "strategy", "calibration_adapter"}:
        return ["plugin"], "plugin", "plugin"
    return (["a"], ("a",), None) if row.is_repeatable else (["a"], "a", None)


def words_of(row, words):
    """The option as it is typed."""
    if row.is_switch:
        return [row.flag.replace("--", "--no-", 1) if row.default else row.flag]
    return [text for word in words for text in (row.flag, word)]


def values_of(settings):
    """What stands in a record or in plain settings, as plain data that can be compared."""
    return json.loads(settings.model_dump_json())


@pytest.fixture
def typed(monkeypatch):
    """Runs a command up to where the settings are read, and returns the options it was given."""

    def run(module, reader, words):
        seen = []
        monkeypatch.setattr(module, reader, lambda options, *_: seen.append(options) or (_ for _ in ()).throw(KeyError))
        CliRunner().invoke(cli.app, words)
        return seen[0]

    return run


TABLES = [
    (SEARCH_OPTIONS, search, "read_search", (StudySettings, RunOptions), "search", {"model": "m", "train": "a"}),
    (
        COMPARE_OPTIONS,
        compare,
        "read_comparison",
        (ComparisonSettings, ComparisonOptions),
        "compare",
        {"model": "m", "train": "a", "methods": "uniform"},
    ),
]


@pytest.mark.parametrize(
    ("table", "module", "reader", "records", "command", "base", "row"),
    [(*case, row) for case in TABLES for row in case[0].rows],
    ids=[f"{case[4]}-{row.name}" for case in TABLES for row in case[0].rows],
)
def test_a_flag_and_a_keyword_set_exactly_their_field(typed, table, module, reader, records, command, base, row):
    words, value, result = example(row)
    by_flag = typed(module, reader, [command, *words_of(row, words)])
    assert set(by_flag) == {row.name}
    more = {"objectives": WORDS["objectives"][1]} if row.name == "gradients" else {}
    expected = None
    for given, style in ((by_flag, "flag"), ({row.name: value}, "keyword")):
        nested = table.nest({**base, **more, **given}, command)
        record = table.parse(row.record, nested, "a test", style)
        without = table.parse(row.record, table.nest({**base, **more}, command), "a test", style)
        changed = differences(values_of(without), values_of(record))
        if row.name not in base and row.name not in {"gradients", "executor"}:
            assert changed and all(path[: len(row.path)] == row.path for path in changed), changed
        expected = expected or record
        assert record == expected
    if result is not None and not isinstance(result, str):
        assert look_up(dump(expected), row.path) == result


def dump(record):
    return record.model_dump()


def differences(old, new, path=()):
    """Paths at which two plain values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [item for key in {**old, **new} for item in differences(old.get(key), new.get(key), (*path, key))]
    return [] if old == new else [path]


@pytest.mark.parametrize(("table", "function"), [(SEARCH_OPTIONS, api.search), (COMPARE_OPTIONS, api.compare)])
def test_python_shows_every_keyword_with_its_type_default_and_description(table, function):
    parameters = inspect.signature(function).parameters
    for row in table.rows:
        parameter = parameters[row.name]
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.annotation is not inspect.Parameter.empty
        assert (parameter.default is inspect.Parameter.empty) == row.is_required
        assert f" {row.name}: {row.help}" in " ".join(function.__doc__.split())
    assert "OPTIONS" not in function.__doc__
    assert inspect.signature(function).parameters["epochs"].default == 3.0
    assert {"processor", "config", "listener"} <= set(parameters) and "options" not in parameters


@pytest.mark.parametrize("row", [*SEARCH_OPTIONS.rows, *COMPARE_OPTIONS.rows], ids=lambda row: row.name)
def test_every_option_is_described(row):
    assert len(row.description.split()) > 3 and row.description.endswith("."), row.description
    assert row.default_text or row.is_required or "Default: " in row.description or row.option.key, row.name


def test_every_field_of_the_specs_is_an_option():
    paths = {row.path for row in SEARCH_OPTIONS.rows}
    for name in ("model", "data", "training", "search"):
        record = StudySettings.model_fields[name].annotation
        assert {(name, field) for field in record.model_fields} <= paths


def test_a_new_field_is_an_option_a_keyword_and_help_with_no_other_edit():
    class OwnTraining(TrainingSpec):
        label_smoothing: Annotated[float, Field(ge=0, lt=1), Option(TRAINING, short="--ls")] = 0.1
        """Share of the target that is spread over all tokens."""

    class OwnSettings(OptionRecord):
        training: OwnTraining = OwnTraining()

    table = OptionTable.of(OwnSettings)
    seen = []

    @with_options(table)
    def command(**options: Any) -> None:
        """Do something."""
        seen.append(table.parse(OwnSettings, table.nest(options, "own"), "the settings", "flag", list(options)))

    app = typer.Typer()
    app.command()(command)
    assert CliRunner().invoke(app, ["--ls", "0.3"]).exit_code == 0
    assert seen[0].training.label_smoothing == 0.3
    shown = " ".join(CliRunner(env={"COLUMNS": "200"}).invoke(app, ["--help"]).stdout.split())
    for text in (
        "--label-smoothing",
        "Share of the target",
        "Must be at least 0 and below 1.",
        "Default: 0.1.",
        TRAINING,
    ):
        assert text in shown
    wrong = CliRunner().invoke(app, ["--label-smoothing", "1"]).exception
    assert isinstance(wrong, ConfigError) and str(wrong) == "`--label-smoothing` must be less than 1, found '1'"

    @takes_options(table)
    def function(**options: Any) -> None:
        """Do something.

        Args:
            OPTIONS
        """

    assert inspect.signature(function).parameters["label_smoothing"].default == 0.1
    assert "label_smoothing: Share of the target that is spread over all tokens. Must be" in function.__doc__


@pytest.mark.parametrize(
    ("table", "flags"),
    [
        (
            SEARCH_OPTIONS,
            "--model -m --train -d --validation --test --image-folder --max-examples --ranks -r --strategy --budget "
            "--max-parameters --max-memory --max-rank --sweep --seed --epochs --examples --batch-size --accumulation "
            "--learning-rate --lr --part-learning-rate --alpha-over-rank --dropout --full --optimizer --adapter "
            "--calibration-adapter --experts --gradient-checkpointing --study -o --storage --workers --device --dtype "
            "--final --uniform --report-to",
        ),
        (
            COMPARE_OPTIONS,
            "--model -m --train -d --validation --test --image-folder --method --seeds --equal --rank --epochs "
            "--examples --batch-size --learning-rate --lr --alpha-over-rank --dropout --full --optimizer --out -o "
            "--workers --device --dtype",
        ),
    ],
)
def test_flags_that_people_know_stay(table, flags):
    assert set(flags.split()) <= {flag for row in table.rows for flag in (row.flag, row.option.short)}


def test_two_fields_of_the_same_name_are_refused():
    class One(OptionRecord):
        size: Annotated[int, Option(TRAINING)] = 1
        """How large it is."""

    class Two(OptionRecord):
        one: One = One()
        size: Annotated[int, Option(TRAINING)] = 1
        """How large it is."""

    with pytest.raises(TypeError, match="cannot have the same name, found"):
        OptionTable.of(Two)
    assert [row.path for row in find_rows(Two, Two)] == [("one", "size"), ("size",)]


def test_choices_are_shown():
    class Choice(OptionRecord):
        order: Annotated[Literal["up", "down"], Option(TRAINING)] = "up"
        """Which way it goes."""

    assert OptionTable.of(Choice).by_name["order"].metavar == "up|down"


def test_the_package_lists_its_public_names_and_is_typed():
    names = {"Decision", "attach", "compare", "inspect", "search"}
    assert names | {"__version__"} <= set(dir(marslora))
    assert names == {name for name in dir(marslora) if not name.startswith("_")}
    assert Path(marslora.__file__).with_name("py.typed").exists()
    assert 'packages = ["src/marslora"]' in (Path(__file__).parents[3] / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("executor", "workers", "name", "num_workers"),
    [(None, 0, "Inline", 1), (None, 3, "Processes", 3), ("processes", 2, "Processes", 2), ("inline", 0, "Inline", 1)],
)
def test_an_executor_by_name(executor, workers, name, num_workers):
    made = RunOptions.parse({"executor": executor, "workers": workers}).make_executor()
    assert (type(made).__name__, made.num_workers) == (name, num_workers)
    assert RunOptions.parse({"executor": made}).make_executor() is made


def test_an_executor_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match=r"`nosuch` is not a plugin in marslora.executors"):
        RunOptions.parse({"executor": "nosuch"}).make_executor()


def test_the_order_of_keywords_does_not_matter():
    given = {"device": "cpu", "sweep": 0.25, "model": "m", "epochs": 2, "train": "t", "strategy": "mars", "seed": 1}
    given["training"] = {"batch_size": 4}
    expected = read_search(given, None, "keyword")
    for names in (sorted(given), sorted(given, reverse=True), [*list(given)[3:], *list(given)[:3]]):
        assert read_search({name: given[name] for name in names}, None, "keyword") == expected
    settings = expected[0]
    assert (settings.model.path, settings.model.device) == ("m", "cpu")
    assert (settings.training.epochs, settings.training.batch_size) == (2, 4)
    assert settings.search.strategy.options == {"sweep": 0.25}


@pytest.mark.parametrize("value", ["garbage", 5, ["a"]])
def test_a_section_that_is_no_mapping_is_refused_wherever_it_stands(value):
    for given in ({"training": value, "epochs": 2}, {"epochs": 2, "training": value}):
        with pytest.raises(ConfigError, match=r"`training` must be a mapping such as \{"):
            read_search({"model": "m", "train": "t", **given}, None, "keyword")


def test_a_section_may_be_none_or_a_record():
    common = {"model": "m", "train": "t"}
    assert read_search({**common, "training": None}, None, "keyword") == read_search(common, None, "keyword")
    settings, _ = read_search({**common, "training": TrainingSpec(epochs=2), "batch_size": 4}, None, "keyword")
    assert (settings.training.epochs, settings.training.batch_size) == (2, 4)


def test_words_override_single_settings_of_a_file(tmp_path):
    config = tmp_path / "study.yaml"
    config.write_text(
        "model: {path: m}\ndata: {train: t}\nsearch: {strategy: {name: mars, options: {sweep: 0.25}}}\n"
        "training: {examples: 100, part_learning_rates: {language: 0.5}, optimizer: {name: adamw, options: {eps: 1}}}\n"
    )
    given = {"strategy": "mars", "part_learning_rates": ["vision=1e-4"], "epochs": 2}
    given["optimizer"] = "adamw:betas=[0.9,0.99]"
    settings, _ = read_search(given, config, "flag")
    assert settings.search.strategy.options == {"sweep": 0.25}
    assert settings.training.part_learning_rates == {"language": 0.5, "vision": 1e-4}
    assert settings.training.optimizer.options == {"eps": 1, "betas": [0.9, 0.99]}
    assert (settings.training.examples, settings.training.epochs) == (None, 2)
    config.write_text("model: ./m\ndata: {train: t}\n")
    with pytest.raises(
        ConfigError, match=r"study\.yaml: `model` must be settings such as \{path: \.\.\.\}, found './m'"
    ):
        read_search({}, config, "flag")


def test_equal_options_of_plugins_have_equal_digests():
    one = PluginSpec(name="adamw", options={"eps": 1, "b": [1, 2]})
    other = PluginSpec(name="adamw", options={"eps": 1.0, "b": (1.0, 2)})
    assert one == other and one.digest() == other.digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: {path: m}\ndata: {train: [t]}\n", "`modle` is not a field .* Did you mean `model`"),
        (
            "model: {path: m}\ndata: {train: [t]}\ntraining: {lr: 1e-3}\n",
            "`training.lr` .* mean `learning_rate`",
        ),
        ("model: {path: m}\ndata: {trian: [t]}\n", "`data.trian` is not a field .* Did you mean `train`"),
        ("model: {}\ndata: {train: [t]}\n", "`--model` is missing"),
    ],
)
def test_what_a_configuration_file_misspells_is_named(tmp_path, text, message):
    config = tmp_path / "study.yaml"
    config.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_search({}, config, "flag")


@pytest.mark.parametrize("table", [SEARCH_OPTIONS, COMPARE_OPTIONS], ids=["search", "compare"])
def test_a_name_of_other_trainers_leads_to_one_option_and_is_none_itself(table):
    others = [name for row in table.rows for name in row.option.other_names]
    taken = {row.name for row in table.rows} | {row.flag.lstrip("-").replace("-", "_") for row in table.rows}
    assert len(set(others)) == len(others)
    assert not taken & set(others)
    assert table.suggest("--gradient-accumulation-steps", "flag") == ["--accumulation"]
    assert table.suggest("LORA_ALPHA", "keyword") == ["alpha_over_rank"]
    assert table.suggest("--rate", "flag") == ["--learning-rate"]
    assert table.suggest("--quantise", "flag") == ["--quantize"]
    assert table.suggest("--zebra", "flag") == []
