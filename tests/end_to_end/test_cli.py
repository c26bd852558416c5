"""The command line as a stranger meets it."""

import json
import subprocess
import sys

import pytest

from marslora import cli
from marslora.core.spec import StudySpec
from marslora.demo.model import embedded_folder
from marslora.store.study import Study
from tests.helpers.quick_sqlite import quick_sqlite  # noqa: F401


def run(monkeypatch, capsys, *words):
    """Exit code and the two streams of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["marslora", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    streams = capsys.readouterr()
    return ended.value.code or 0, streams.out, streams.err


@pytest.fixture
def rows(tmp_path):
    """A file with one good row."""
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row("what is this ?")) + "\n")
    return path


@pytest.fixture
def spec_of_another(tmp_path):
    """A study folder that has got somewhere, of the embedded model and other data."""
    spec = StudySpec.parse(
        {
            "model": {"path": str(embedded_folder())},
            "data": {"train": ["other.jsonl"]},
            "space": {"ladders": [["vision", [4]], ["projector", [4]], ["language", [4, 8]]]},
        }
    )
    with Study.create(tmp_path / "study", spec) as study:
        study.write_json("plan/round-01.json", [], "")
    return tmp_path / "study"


def row(question, **more):
    user = {"role": "user", "content": [{"type": "text", "text": question}]}
    return {"messages": [user, {"role": "assistant", "content": [{"type": "text", "text": "red"}]}], **more}


@pytest.mark.parametrize("words", [["--help"], ["search", "--help"], ["demo", "-h"], ["inspect", "-h"], ["list"]])
def test_help_teaches_without_torch(words):
    code = (
        "import sys; sys.argv = ['marslora', *sys.argv[1:]]\n"
        "from marslora.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'scipy', 'optuna'} & set(sys.modules), 'something slow was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 200


def error(monkeypatch, capsys, *words):
    """The one line of a command that must fail with exit code 2."""
    code, _, err = run(monkeypatch, capsys, *words)
    assert code == 2
    assert err.startswith("error: ")
    assert err.strip().count("\n") == 0, err
    return err


def test_errors_say_which_what_and_how(monkeypatch, capsys, tmp_path, rows):
    model = embedded_folder()
    out = tmp_path / "study"
    text_only = tmp_path / "text-only"
    text_only.mkdir()
    language_model = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 2}
    (text_only / "config.json").write_text(json.dumps(language_model))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": []}\n' * 3)
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps(row("x")) + "\n{not json\n")
    lost = tmp_path / "lost.jsonl"
    lost.write_text(json.dumps(row("what ?", images=["nowhere.png"])) + "\n")

    def said(*words):
        return error(monkeypatch, capsys, *words)

    assert "--model" in said("search", "--train", rows)
    assert "--train" in said("search", "--model", model)
    assert "nowhere" in said("search", "--model", tmp_path / "nowhere", "--train", rows, "--study", out)
    assert "multimodal" in said("search", "--model", text_only, "--train", rows, "--study", out)
    assert "bad.jsonl" in said("search", "--model", model, "--train", bad, "--study", tmp_path / "s1")
    assert "broken.jsonl" in said("search", "--model", model, "--train", broken, "--study", tmp_path / "s2")
    assert "nowhere.png" in said("search", "--model", model, "--train", lost, "--study", tmp_path / "s3")
    assert "absent.jsonl" in said("search", "--model", model, "--train", "absent.jsonl", "--study", tmp_path / "s4")
    assert "4;16" in said("search", "--model", model, "--train", rows, "--ranks", "4;16")
    assert "audio" in said("search", "--model", model, "--train", rows, "--ranks", "audio=4,16")
    assert "increasing" in said("search", "--model", model, "--train", rows, "--ranks", "16,4")
    unknown = said("search", "--model", model, "--train", rows, "--strategy", "best", "-o", out)
    assert "`best` is not a plugin in marslora.strategies" in unknown and "'mars'" in unknown
    unknown = said("demo", "--task", "smell", "--study", out)
    assert "no task `smell`" in unknown and "'vision'" in unknown
    assert "not a study folder" in said("report", tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serch"], "There is no command `serch`. Did you mean `search`"),
        (["search", "--learnin-rate", "1"], "--learnin-rate"),
        (["search", "--epochs"], "--epochs"),
        (
            ["search", "--model", "m", "--train", "a", "--epochs", "few"],
            "`--epochs` must be a valid number, found 'few'",
        ),
        (["compare", "--demo", "small"], "`--method` is missing. Name at least one recipe"),
    ],
)
def test_what_is_typed_wrong_is_one_line(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in error(monkeypatch, capsys, *words)


def test_the_version_is_printed(monkeypatch, capsys):
    from marslora import __version__

    assert run(monkeypatch, capsys, "--version") == (0, f"marslora {__version__}\n", "")


def test_a_study_folder_of_another_spec_is_refused(monkeypatch, capsys, spec_of_another, rows):
    words = ["search", "--model", embedded_folder(), "--train", rows, "--study", spec_of_another, "--batch-size", 3]
    said = error(monkeypatch, capsys, *words)
    assert "holds a study with other settings" in said and "training.batch_size: 16 there, 3 now" in said
    assert "learning_rates: [] there" in said and "data.train" not in said  # where the rows are is no setting


def test_inspect_prints_the_parts(monkeypatch, capsys):
    code, out, _ = run(monkeypatch, capsys, "inspect", embedded_folder())
    assert code == 0
    assert all(part in out for part in ("vision", "projector", "language"))
    code, out, _ = run(monkeypatch, capsys, "inspect", embedded_folder(), "--probe", "--rank", 4)
    assert code == 0
    assert "frozen" in out and " MB" in out and "all parts at rank 4" in out and "warning" not in out
    code, out, _ = run(monkeypatch, capsys, "inspect", embedded_folder(), "--json")
    assert {part["name"] for part in json.loads(out)["parts"]} == {"vision", "projector", "language"}
