"""The sources keep to the import table, and to the limits on the sizes of files and functions."""

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.import_table import MAY_IMPORT, PACKAGE, find_imports, is_private

ROOT = Path(__file__).parents[2] / "src" / PACKAGE
TORCH_FREE = {"core", "store", "laws", "strategies", "replay", "optuna", "executors", "exporters", "report"}
HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets"}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60


def rooms() -> set[str]:
    """Folders of the package that hold Python files."""
    return {path.name for path in ROOT.iterdir() if path.is_dir() and any(path.rglob("*.py"))}


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring: long documentation is welcome."""
    doc = ast.get_docstring(function, clean=False)
    return (function.end_lineno or 0) - function.lineno + 1 - (doc.count("\n") + 1 if doc is not None else 0)


def offences() -> Iterator[str]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        text = path.read_text()
        tree = ast.parse(text)
        room = parts[0].removesuffix(".py")
        if text.count("\n") > MAX_FILE_LINES:
            yield f"{path}: {text.count(chr(10))} lines, the limit is {MAX_FILE_LINES}; split it"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > MAX_FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {code_lines(node)} lines of code"
        if room not in MAY_IMPORT:
            yield f"{path}: `{room}` is not in the table"
        for line, name in find_imports(tree, parts):
            head, *rest = name.split(".")
            if room in TORCH_FREE and head in HEAVY:
                yield f"{path}:{line}: {room} may not import {head}: it belongs to the thinking wing"
            if head == PACKAGE and len(rest) > 1 and rest[0] != room and any(map(is_private, rest[1:])):
                yield f"{path}:{line}: {name} is private to {rest[0]}; import a public name of `marslora.{rest[0]}`"
            if room in MAY_IMPORT and head == PACKAGE and rest and rest[0] not in {room, *MAY_IMPORT[room]}:
                yield f"{path}:{line}: {room} may not import {rest[0]} (it may import {sorted(MAY_IMPORT[room])})"


def test_imports_go_one_way():
    assert not (found := list(offences())), "\n".join(found)


def test_every_room_is_in_the_table():
    assert rooms() <= set(MAY_IMPORT)


@pytest.mark.parametrize("front", ["import marslora", "import marslora.cli", "import marslora.api, marslora.pipeline"])
def test_the_front_loads_nothing_slow(front):
    slow = {"torch", "transformers", "peft", "huggingface_hub"}
    slow |= set() if "pipeline" in front else {"numpy", "scipy", "optuna", "sqlalchemy", "plotly"}
    code = f"import sys; {front}; sys.exit(','.join(sorted({slow} & set(sys.modules))) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_takes_less_than_half_a_second():
    """Of processor time, so that a busy machine may run it; the best of three."""
    assert min(seconds_of("-m", "marslora", "--help") for _ in range(3)) < 0.5
    assert min(seconds_of("-c", "import marslora") for _ in range(3)) < 0.5


def seconds_of(*words: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
