"""The plugins of docs/extending.md are what the page says: loaded by name, held to their contracts, and used."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from marslora import executors, exporters, gradients, optim, strategies
from marslora.core import plugins
from marslora.core.spec import PluginSpec
from marslora.core.training import TrainingSpec
from marslora.executors import AbstractExecutor
from marslora.exporters import AbstractExporter
from marslora.gradients import AbstractCombiner
from marslora.methods import check_adapter, make_method
from marslora.optim import AbstractOptimizer, check_optimizer
from marslora.recipes import find_recipe
from marslora.strategies import AbstractStrategy
from marslora.testing import CombinerContract, ExecutorContract, OptimizerContract, StrategyContract
from marslora.testing.exporters_contract import INFO, decision
from tests.unit.methods.worlds import world

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


class TestExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self):
        return plugins.load(executors, "my_plugins:Announcing", AbstractExecutor)()


def test_options_of_a_strategy_are_given_in_words():
    spec = PluginSpec.parse("my_plugins:HalfRuns:share=0.25")
    assert plugins.load(strategies, spec.name, AbstractStrategy)(**spec.options).config.share == 0.25


@pytest.mark.parametrize("name", ["my_plugins:GainedLora", "my_plugins:SmallStart"])
def test_adapters_and_methods_train_in_the_final_run(name):
    spec = PluginSpec(name=name)
    check_adapter(spec, packed=name.endswith("GainedLora"))
    model, batch, plan, sizes = world("llava")
    method = make_method(spec)
    change = method.apply(model, plan)
    change.model(**batch).loss.backward()
    assert change.num_trainable() == method.count(sizes, plan)
    assert any(bool(each.parameter.grad.any()) for each in change.trainables() if each.parameter.grad is not None)
    change.remove()


def test_an_optimizer_is_accepted_by_name():
    check_optimizer(TrainingSpec(optimizer="my_plugins:PlainDescent").optimizer)


def test_an_exporter_writes_the_ranks(tmp_path):
    exporter = plugins.load(exporters, "my_plugins:RanksAsJson", AbstractExporter)()
    (path,) = exporter.export(decision(), INFO, TrainingSpec(), None, tmp_path / "new")
    assert '"vision": 4' in path.read_text()


def test_a_recipe_is_found_by_name():
    recipe = find_recipe("my_plugins:my_method")
    assert (recipe.ranks, TrainingSpec(**recipe.training).optimizer.name) == (8, "my_plugins:PlainDescent")


def test_every_line_that_names_a_plugin_names_one_of_the_page():
    names = set(re.findall(r"my_plugins:(\w+)", PAGE.read_text()))
    assert names and all(hasattr(MODULE, name) for name in names)
