"""What the documents claim exists."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = re.findall(r"`(marslora[\w.]*):(\w+)`", (ROOT / "docs" / "paper_map.md").read_text())


def test_the_map_is_not_empty():
    assert len(NAMES) > 10


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_name_of_the_map_exists(module, name):
    assert hasattr(importlib.import_module(module), name)


def test_every_adapter_is_in_the_table_of_methods():
    from marslora import adapters, methods
    from marslora.adapters import AbstractAdapter
    from marslora.core import plugins
    from marslora.methods import AbstractMethod

    text = (ROOT / "docs" / "methods.md").read_text()
    for name in (*plugins.names(adapters), *plugins.names(methods)):
        rows = [line.split(" | ") for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        packed = name in plugins.names(adapters)
        kind = plugins.load(adapters if packed else methods, name, AbstractAdapter if packed else AbstractMethod)
        assert len(rows) == 1, name
        assert rows[0][3].startswith(kind.merges), name
        assert kind.serves.split(" ")[0] in rows[0][4], name


def test_the_readme_starts_with_two_commands_of_one_line():
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    assert all(block.count("\n") == 1 for block in blocks[:2])


def test_the_notices_name_every_kind_of_shipped_data():
    notices = (ROOT / "NOTICES").read_text()
    for word in ("Emoji", "digits", "Apache", "plotly.js 4.1.1"):
        assert word.lower() in notices.lower()


def test_nothing_names_the_path_of_a_machine():
    tracked = [p for folder in ("src", "tests", "docs", "benchmarks", "scripts") for p in (ROOT / folder).rglob("*.*")]
    found = [
        path
        for path in tracked
        if path.suffix in {".py", ".md", ".json", ".toml"} and re.search(r"(?<![\w.])/(work|root)/", path.read_text())
    ]
    assert not found, found


PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])


def find_commands(text: str) -> list[str]:
    """Every `marslora` command of a page, in a console block (also over several lines) or between backticks."""
    joined = re.sub(r"\\\n\s*", "", text)
    shown = re.findall(r"^\$ (marslora .*?)(?:\s+#.*)?$", joined, re.MULTILINE)
    inline = re.findall(r"(?<!`)`(marslora [a-z][^`]*)`(?!`)", joined)
    return shown + [" ".join(each.split()) for each in inline]


COMMANDS = [(page.name, line) for page in PAGES for line in find_commands(page.read_text())]


def test_commands_over_several_lines_are_read_whole():
    assert find_commands("$ marslora search --model a \\\n    --ranks 4\n") == ["marslora search --model a --ranks 4"]
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_of_the_docs_has_the_options_that_it_shows(page, line):
    from typer.testing import CliRunner

    from marslora.cli import app

    words = shlex.split(line)[1:]
    name = words[:2] if words[0] == "data" else words[:1]
    help_text = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    assert "Usage:" in help_text, f"{page}: {line}"
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"{option}(?![\w-])", help_text), f"{page}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_compiles(page):
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        compile(code, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_everything_that_a_python_block_imports_from_marslora_exists(page):
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "marslora":
                module = importlib.import_module(node.module)
                for each in node.names:
                    assert hasattr(module, each.name), f"{page.name}: {node.module}.{each.name}"
            elif isinstance(node, ast.Import):
                for each in node.names:
                    if each.name.split(".")[0] == "marslora":
                        importlib.import_module(each.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    text = re.sub(r"(`+).*?\1", "", page.read_text())  # what is quoted as code is no link
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
