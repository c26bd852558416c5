"""Measure the structure of the package and keep the table in CONTRIBUTING.md up to date.

``python scripts/house_table.py`` prints the table, ``--write`` puts it into CONTRIBUTING.md, ``--check`` fails if the
table there differs, and ``--list errors`` (or ``docstrings``, ``functions``, ``files``) names what falls short.
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.architecture.import_table import MAY_IMPORT, PACKAGE, find_imports, is_private  # noqa: E402

ROOT = REPOSITORY / "src" / PACKAGE
CONTRIBUTING = REPOSITORY / "CONTRIBUTING.md"
EXTENDING = REPOSITORY / "docs" / "extending.md"
FRONT = ("api.py", "settings.py", "cli/search.py", "cli/compare.py", "cli/_options.py", "comparison/settings.py")
"""Files in which an option would have to be written a second time if it did not follow from its field."""
BEGIN, END = "<!-- structure: begin -->", "<!-- structure: end -->"
ERRORS = re.compile(r"(Config|Model|Data|Study|Training|MissingDependency|Marslora|MissingRun|Value)Error$")
"""Exceptions whose message a user reads: the package's own, and `ValueError`, which pydantic's validators raise."""
VERBS = (
    "add|adapt|allow|call|check|choose|close|compare|continue|convert|copy|correct|create|"
    "decide|delete|drop|encode|end|free|give|increase|install|keep|leave|load|lower|make|"
    "mark|mount|move|name|omit|open|pass|pick|point|put|raise|reduce|register|remove|"
    "rename|repair|repeat|replace|replay|restore|run|save|see|set|shorten|split|start|store|"
    "train|try|use|wait|write"
)
"""Verbs that tell a reader what to do, where they begin a sentence or a clause."""
INSTRUCTION = rf"(?:^|[.;:?]\s+|,\s*(?:or|and|then)\s+|\b(?:or|and)\s+)(?:{VERBS})\b"
"""An instruction: one of the verbs where it begins a sentence or a clause."""
WAY_OUT = re.compile(
    INSTRUCTION + r"|\b(?:must|needs?|one of|options are|expected|should|instead)\b",
    re.IGNORECASE,
)
"""What counts as a way out: an instruction, or a statement of what would be accepted."""
FEWEST_WORDS = 4
"""Words that a docstring must have: fewer cannot say what something returns."""


@dataclass(frozen=True)
class Module:
    """One parsed file of the package."""

    path: Path

    @cached_property
    def text(self) -> str:
        """The source."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of the source."""
        return ast.parse(self.text)

    @property
    def parts(self) -> tuple[str, ...]:
        """The path below the package's root."""
        return self.path.relative_to(ROOT).parts

    @property
    def package(self) -> str:
        """The first name below ``marslora``, which the import table lists."""
        return self.parts[0].removesuffix(".py")

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method of the file, nested ones included."""
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    def imported_packages(self) -> Iterator[tuple[int, str, tuple[str, ...]]]:
        """Yield (line, package, remaining names) of every import of another package of marslora."""
        for line, name in find_imports(self.tree, self.parts):
            head, *rest = name.split(".")
            if head == PACKAGE and rest and rest[0] != self.package:
                yield line, rest[0], tuple(rest[1:])


def count_code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring."""
    doc = ast.get_docstring(function, clean=False)
    return (function.end_lineno or 0) - function.lineno + 1 - (doc.count("\n") + 1 if doc is not None else 0)


def find_user_errors(module: Module) -> Iterator[tuple[int, str, bool, bool]]:
    """Yield (line, message, has a value, has a way out) of every error message written where it is raised."""
    for node in ast.walk(module.tree):
        if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args):
            continue
        name = getattr(node.exc.func, "id", getattr(node.exc.func, "attr", ""))
        pieces = [each for each in ast.walk(node.exc.args[0]) if isinstance(each, ast.Constant | ast.FormattedValue)]
        words = " ".join(str(each.value) for each in pieces if isinstance(each, ast.Constant))
        if ERRORS.search(name) and len(words.split()) >= FEWEST_WORDS:
            has_value = any(isinstance(each, ast.FormattedValue) for each in pieces)
            yield node.lineno, words, has_value, bool(WAY_OUT.search(words))


def find_short_docstrings(module: Module) -> Iterator[tuple[int, str, str]]:
    """Yield (line, name, docstring) of every docstring of fewer than four words."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            doc = ast.get_docstring(node)
            if doc is not None and len(doc.split()) < FEWEST_WORDS:
                yield node.lineno, node.name, doc


def count_plugin_files() -> dict[str, int]:
    """Return, for each kind of plugin, how many files docs/extending.md writes for it: a test loads and uses them."""
    sections = re.split(r"^## ", EXTENDING.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {section.partition("\n")[0]: section.count("```python") for section in sections}


def find_circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected groups of more than one package (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = lowest[name] = len(index)
        stack.append(name)
        for other in sorted(arrows.get(name, ())):
            if other not in index:
                visit(other)
            if other in stack:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == index[name]:
            place = stack.index(name)
            groups.append(stack[place:])
            del stack[place:]

    for name in sorted(arrows):
        if name not in index:
            visit(name)
    return [sorted(group) for group in groups if len(group) > 1]


@dataclass(frozen=True)
class House:
    """Everything that the table says, computed from the sources."""

    modules: tuple[Module, ...]

    @classmethod
    def read(cls) -> House:
        """Parse every file of the package."""
        return cls(tuple(Module(path) for path in sorted(ROOT.rglob("*.py"))))

    @cached_property
    def arrows(self) -> dict[str, set[str]]:
        """The packages that each package imports."""
        arrows: dict[str, set[str]] = {module.package: set() for module in self.modules}
        for module in self.modules:
            arrows[module.package] |= {other for _, other, _ in module.imported_packages()}
        return arrows

    def arrows_back_up(self) -> list[str]:
        """Imports between packages that the import table does not allow."""
        return [
            f"{name} -> {other}"
            for name, others in self.arrows.items()
            for other in others
            if other not in MAY_IMPORT.get(name, set())
        ]

    def private_imports(self) -> list[str]:
        """Imports of another package's private files or names."""
        return [
            f"{module.path}:{line}: {PACKAGE}.{other}.{'.'.join(rest)}"
            for module in self.modules
            for line, other, rest in module.imported_packages()
            if any(map(is_private, rest))
        ]

    def file_lines(self) -> list[tuple[int, str]]:
        """(lines, file) of every file, the longest last."""
        return sorted((module.text.count("\n"), str(module.path)) for module in self.modules)

    def function_lines(self) -> list[tuple[int, str]]:
        """(lines of code, file:line name) of every function, the longest last."""
        return sorted(
            (count_code_lines(each), f"{module.path}:{each.lineno}: {each.name}")
            for module in self.modules
            for each in module.functions()
        )

    def option_places(self) -> list[tuple[int, str]]:
        """(places, option) of every option: its field, and each file that also writes out a parameter of that name."""
        fields = [
            (module, node.target.id)
            for module in self.modules
            for node in ast.walk(module.tree)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _is_option(node)
        ]
        front = [module for module in self.modules if "/".join(module.parts) in FRONT]
        written = {module.path: _parameters(module) for module in front}
        return sorted(
            (1 + sum(name in names for path, names in written.items() if path != module.path), name)
            for module, name in fields
        )

    def weak_errors(self) -> tuple[int, list[str]]:
        """How many error messages there are, and those that lack a value or a way out."""
        errors = [(module, *error) for module in self.modules for error in find_user_errors(module)]
        weak = [
            f"{module.path}:{line}: {'no value' if not value else 'no way out'}: {words}"
            for module, line, words, value, way_out in errors
            if not (value and way_out)
        ]
        return len(errors), weak

    def count_instructions(self) -> int:
        """How many error messages have a value and say what to do, not only what would be accepted."""
        errors = (error for module in self.modules for error in find_user_errors(module))
        return sum(
            has_value and bool(re.search(INSTRUCTION, words, re.IGNORECASE)) for _, words, has_value, _ in errors
        )

    def short_docstrings(self) -> list[str]:
        """Docstrings of fewer than four words."""
        return [
            f"{module.path}:{line}: {name}: {doc!r}"
            for module in self.modules
            for line, name, doc in find_short_docstrings(module)
        ]


def table_of(house: House) -> str:
    """Return the Markdown table."""
    files, functions = house.file_lines(), house.function_lines()
    num_errors, weak = house.weak_errors()
    options = house.option_places()
    instructed = house.count_instructions()
    rows = [
        ("packages and front modules in the import table", f"{len(MAY_IMPORT)}"),
        (
            "files that docs/extending.md writes for a plugin, each loaded by a test: most",
            f"{max(count_plugin_files().values())}",
        ),
        ("places touched by a new option: median, largest", f"{_median(options)}, {options[-1][0]}"),
        ("imports against the table", f"{len(house.arrows_back_up())}"),
        ("circles between packages", f"{len(find_circles(house.arrows))}"),
        ("imports of another package's private files", f"{len(house.private_imports())}"),
        ("files; lines of a file: median, largest", f"{len(files)}; {_median(files)}, {files[-1][0]}"),
        ("lines of code of a function: median, largest", f"{_median(functions)}, {functions[-1][0]}"),
        ("error messages with a value and a way out", f"{1 - len(weak) / num_errors:.0%} of {num_errors}"),
        ("of these, with an instruction", f"{instructed / num_errors:.0%}"),
        (f"docstrings of fewer than {FEWEST_WORDS} words", f"{len(house.short_docstrings())}"),
    ]
    return "\n".join(["| measured | now |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _is_option(node: ast.AnnAssign) -> bool:
    return any(isinstance(each, ast.Name) and each.id == "Option" for each in ast.walk(node.annotation))


def _parameters(module: Module) -> set[str]:
    return {argument.arg for each in module.functions() for argument in (*each.args.args, *each.args.kwonlyargs)}


def _median(sizes: list[tuple[int, str]]) -> int:
    return round(statistics.median(size for size, _ in sizes))


def put_into(text: str, table: str) -> str:
    """Return CONTRIBUTING.md with the table between its two markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> None:
    """Run the command line that the docstring of this file describes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into CONTRIBUTING.md")
    parser.add_argument("--check", action="store_true", help="fail if the table in CONTRIBUTING.md differs")
    parser.add_argument("--list", choices=["errors", "docstrings", "functions", "files", "imports"])
    parser.add_argument("--only", default="", help="with --list: only paths that contain this text")
    arguments = parser.parse_args()
    house = House.read()
    if arguments.list:
        lists = {
            "errors": lambda: house.weak_errors()[1],
            "docstrings": house.short_docstrings,
            "functions": lambda: [f"{size} {name}" for size, name in house.function_lines()[-30:]],
            "files": lambda: [f"{size} {name}" for size, name in house.file_lines()[-30:]],
            "imports": lambda: [*house.arrows_back_up(), *house.private_imports()],
        }
        print("\n".join(line for line in lists[arguments.list]() if arguments.only in line))
        return
    table = table_of(house)
    print(table)
    text = CONTRIBUTING.read_text(encoding="utf-8")
    if arguments.write:
        CONTRIBUTING.write_text(put_into(text, table), encoding="utf-8")
    if arguments.check and put_into(text, table) != text:
        sys.exit("The table in CONTRIBUTING.md is out of date. Run `python scripts/house_table.py --write`.")


if __name__ == "__main__":
    main()
