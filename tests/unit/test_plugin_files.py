"""A new plugin is one file: put into the folder of its package, it is listed and loaded by name. Manuals run."""

import inspect
import re
from pathlib import Path

import pytest

from marslora import adapters, executors, exporters, gradients, methods, optim, recipes, strategies
from marslora.adapters import AbstractAdapter
from marslora.core import plugins
from marslora.core.plugin_options import describe_options
from marslora.core.runs import Observation
from marslora.core.training import TrainingSpec
from marslora.executors import AbstractExecutor
from marslora.exporters import AbstractExporter
from marslora.gradients import AbstractCombiner
from marslora.methods import AbstractMethod
from marslora.optim import AbstractOptimizer
from marslora.recipes import find_recipe
from marslora.strategies import AbstractStrategy
from tests.helpers.manuals import run_examples

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
REGISTRIES = [
    (strategies, AbstractStrategy, "HalfRuns"),
    (adapters, AbstractAdapter, "GainedLora"),
    (methods, AbstractMethod, "SmallStart"),
    (optim, AbstractOptimizer, "PlainDescent"),
    (gradients, AbstractCombiner, "Equalised"),
    (executors, AbstractExecutor, "Announcing"),
    (exporters, AbstractExporter, "RanksAsJson"),
]


def add_file(monkeypatch, package, folder, name, defined):
    """Put the code of the page that defines something into a folder where the package looks for plugins."""
    (code,) = [block for block in BLOCKS if re.search(rf"^(class|def) {defined}\b", block, re.MULTILINE)]
    (folder / f"{name}.py").write_text(f'"""A new plugin."""\n\n{code}')
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])


@pytest.mark.parametrize(("package", "base", "defined"), REGISTRIES)
def test_one_file_is_listed_and_loaded_by_name(monkeypatch, tmp_path, package, base, defined):
    add_file(monkeypatch, package, tmp_path, "brand_new", defined)
    assert "brand_new" in plugins.names(package)
    assert plugins.load(package, "brand_new", base).__name__ == defined


def test_one_file_is_a_recipe(monkeypatch, tmp_path):
    add_file(monkeypatch, recipes, tmp_path, "my_method", "my_method")
    assert "my_method" in plugins.names(recipes) and find_recipe("my_method").ranks == 8


def test_the_manual_of_executors_runs(capsys):
    executor = run_examples(executors)["Announcing"]()
    seen = []
    executor.run("tests.unit.test_plugin_files:emit_one", ["a", "b"], seen.append)
    assert [event.member for event in seen] == ["a", "b"] and "2 specs for" in capsys.readouterr().out


@pytest.mark.parametrize(("package", "base"), [(package, base) for package, base, _ in REGISTRIES])
def test_every_option_of_every_plugin_is_a_keyword_with_a_docstring(package, base):
    for name in plugins.names(package):
        kind = plugins.load(package, name, base)
        options = describe_options(kind)
        assert [each.name for each in options if not each.help] == [], name
        assert {each.name for each in options} <= set(inspect.signature(kind).parameters), name


def emit_one(spec, emit):
    emit(Observation(member=spec, examples=1, metric="m", value=0.0))


def test_the_manual_of_recipes_runs():
    recipe = run_examples(recipes)["small_dora"]()
    assert recipe.ranks == 8 and TrainingSpec(**recipe.training).adapter.options == {"use_dora": True}
