"""The plugins of docs/extending.md are what the page says: loaded by name, held to their contracts, and used."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from marslora import adapters, executors, exporters, gradients, optim, strategies
from marslora.adapters import AbstractAdapter
from marslora.core import plugins
from marslora.core.exported_run import ExportedRun
from marslora.core.spec import PluginSpec
from marslora.core.training import TrainingSpec
from marslora.executors import AbstractExecutor
from marslora.exporters import AbstractExporter
from marslora.gradients import AbstractCombiner
from marslora.methods import check_adapter, make_method
from marslora.optim import AbstractOptimizer, check_optimizer
from marslora.recipes import find_recipe
from marslora.strategies import AbstractStrategy
from marslora.testing import (
    AdapterContract,
    CombinerContract,
    ExecutorContract,
    MethodContract,
    OptimizerContract,
    RecipeContract,
    StrategyContract,
)
from marslora.testing.exporters_contract import INFO, decision

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
MODULE = ModuleType("my_plugins")
sys.modules["my_plugins"] = MODULE
for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
    exec(compile(code, str(PAGE), "exec"), MODULE.__dict__)


class TestStrategy(StrategyContract):
    @pytest.fixture
    def strategy(self):
        return plugins.load(strategies, "my_plugins:HalfRuns", AbstractStrategy)()


class TestOptimizer(OptimizerContract):
    @pytest.fixture
    def kind(self):
        return plugins.load(optim, "my_plugins:PlainDescent", AbstractOptimizer)


class TestCombiner(CombinerContract):
    @pytest.fixture
    def kind(self):
        return plugins.load(gradients, "my_plugins:Equalised", AbstractCombiner)


class TestAdapter(AdapterContract):
    @pytest.fixture
    def kind(self):
        return plugins.load(adapters, "my_plugins:GainedLora", AbstractAdapter)


class TestMethod(MethodContract):
    @pytest.fixture(params=["my_plugins:GainedLora:start=0.5", "my_plugins:SmallStart:std=0.1"])
    def method(self, request):
        return make_method(PluginSpec.parse(request.param))


class TestRecipe(RecipeContract):
    @pytest.fixture
    def name(self):
        return "my_plugins:my_method"


class TestExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self):
        return plugins.load(executors, "my_plugins:Announcing", AbstractExecutor)()


def test_options_of_a_strategy_are_given_in_words():
    spec = PluginSpec.parse("my_plugins:HalfRuns:share=0.25")
    assert plugins.load(strategies, spec.name, AbstractStrategy)(**spec.options).config.share == 0.25


@pytest.mark.parametrize(("name", "packed"), [("my_plugins:GainedLora", True), ("my_plugins:SmallStart", False)])
def test_adapters_and_methods_are_accepted_by_name(name, packed):
    check_adapter(PluginSpec(name=name), packed=packed)


def test_an_optimizer_is_accepted_by_name():
    check_optimizer(TrainingSpec(optimizer="my_plugins:PlainDescent").optimizer)


def test_an_exporter_writes_the_ranks(tmp_path):
    exporter = plugins.load(exporters, "my_plugins:RanksAsJson", AbstractExporter)()
    (path,) = exporter.export(decision(), INFO, ExportedRun(num_examples=800), None, tmp_path / "new")
    assert '"vision": 4' in path.read_text()


def test_a_recipe_is_found_by_name():
    recipe = find_recipe("my_plugins:my_method")
    assert (recipe.ranks, TrainingSpec(**recipe.training).optimizer.name) == (8, "my_plugins:PlainDescent")


def test_every_line_that_names_a_plugin_names_one_of_the_page():
    names = set(re.findall(r"my_plugins:(\w+)", PAGE.read_text()))
    assert names and all(hasattr(MODULE, name) for name in names)
