"""Which package may import which, as data. Change the table and the layout changes."""

import ast
from collections.abc import Iterator

PACKAGE = "marslora"
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "store": {"core"},
    "laws": {"core"},
    "strategies": {"core", "laws"},
    "executors": {"core"},
    "exporters": {"core"},
    "replay": {"core", "strategies"},
    "optuna": {"core", "strategies"},
    "report": {"core", "store", "laws", "strategies", "replay"},
    "adapters": {"core"},
    "gradients": {"core"},
    "optim": {"core"},
    "models": {"core"},
    "data": {"core"},
    "metrics": {"core"},
    "demo": {"core"},
    "deployment": {"core", "store", "report", "methods", "models", "data"},
    "methods": {"core", "adapters"},
    "engine": {"core", "adapters", "gradients", "optim", "models", "data"},
    "finetune": {"core", "adapters", "methods", "metrics", "gradients", "optim", "models", "data"},
    "testing": {
        "core",
        "strategies",
        "executors",
        "exporters",
        "adapters",
        "methods",
        "gradients",
        "optim",
        "recipes",
        "models",
        "data",
        "engine",
    },
    "recipes": {"core"},
    "run_options": {"core", "executors"},
    "settings": {"core", "models", "data", "recipes", "run_options"},
    "checks": {"core", "store", "strategies", "executors", "methods", "gradients", "optim", "recipes", "run_options"}
    | {"deployment", "metrics"},
    "rounds": {"core", "store", "executors"},
    "exports": {"core", "store", "executors", "exporters"},
    "problems": {"core"},
    "pipeline": {
        "core",
        "store",
        "strategies",
        "executors",
        "exporters",
        "checks",
        "run_options",
        "rounds",
        "problems",
        "exports",
    },
    "comparison": {"core", "store", "executors", "report", "adapters", "methods"}
    | {"recipes", "metrics", "run_options", "settings", "checks", "demo", "pipeline"},
    "in_memory": {"core", "models", "data"},
    "listeners": {"core"},
    "decision": {"core", "report", "deployment"},
    "api": {"core", "store", "executors", "report", "methods", "models", "data", "engine", "demo", "deployment"}
    | {"in_memory", "run_options", "settings", "checks", "problems", "pipeline", "comparison"}
    | {"listeners", "decision"},
    "cli": {"core", "store", "executors", "exporters", "replay", "report", "models", "data", "demo", "deployment"}
    | {"run_options", "settings", "checks", "exports", "pipeline", "comparison", "listeners", "api"},
    "__init__": {"api", "decision"},
    "__main__": {"cli"},
}


def find_imports(tree: ast.AST, parts: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, wherever the import stands (also inside functions)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (PACKAGE, *parts[:-1])[: len(parts) + 1 - node.level] if node.level else ()
            yield from ((node.lineno, ".".join(filter(None, (*base, node.module, alias.name)))) for alias in node.names)


def is_private(name: str) -> bool:
    """Whether a module or a name of one is for its own package alone."""
    return name.startswith("_") and not name.startswith("__")
