"""Every recipe of the folder is made of kinds that exist."""

import importlib
import inspect

import pytest

from marslora import gradients, methods, optim, recipes
from marslora.core import plugins
from marslora.core.allocation import Allocation
from marslora.core.comparison import MethodSpec, build_training
from marslora.core.decision import Candidate, DecisionRecord
from marslora.core.errors import ConfigError
from marslora.gradients import AbstractCombiner
from marslora.methods import AbstractMethod
from marslora.optim import AbstractOptimizer
from marslora.recipes import find_recipe

PARTS = ("vision", "projector", "language")
NAMES = plugins.names(recipes)


@pytest.fixture
def decision(tmp_path):
    """A study's decision."""
    chosen = Allocation.of(vision=64, projector=4, language=16)
    candidate = Candidate(allocation=chosen, status="chosen", reason="a test")
    found = DecisionRecord(strategy="mars", chosen=chosen, verdict="clear", summary="", candidates=(candidate,))
    (tmp_path / "decision.json").write_text(found.to_json())
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_made_of_kinds_that_exist(name, decision):
    options = {"decision": str(decision)} if name == "mars_ranks" else {}
    recipe = find_recipe(name, options)
    training = build_training(recipe, MethodSpec(recipe=name), {}, PARTS)
    optimizer = plugins.load(optim, training.optimizer.name, AbstractOptimizer)
    inspect.signature(optimizer).bind([], **training.optimizer.options)
    if training.adapter.name != "lora":
        plugins.load(methods, training.adapter.name, AbstractMethod)(**training.adapter.options)
    plugins.load(gradients, training.gradients.name, AbstractCombiner)(**training.gradients.options)
    assert recipe.source
    assert plugins.summary(recipes, name).endswith(".")
    assert set(recipe.rate_factors) <= set(PARTS)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_can_have_learning_rates_by_part(name, decision):
    recipe = find_recipe(name, {"decision": str(decision)} if name == "mars_ranks" else {})
    entry = MethodSpec(recipe=name, rate_factors={"vision": 3.0, "language": 0.5})
    training = build_training(recipe, entry, {"learning_rate": 1e-3}, PARTS)
    assert training.part_learning_rates == {"vision": pytest.approx(3e-3), "language": pytest.approx(5e-4)}


def test_a_file_holds_the_function_of_its_name():
    for name in NAMES:
        module = importlib.import_module(f"marslora.recipes.{name}")
        assert inspect.getdoc(getattr(module, name))


def test_ranks_come_from_a_decision(decision):
    assert find_recipe("mars_ranks", {"decision": str(decision)}).ranks == {
        "vision": 64,
        "projector": 4,
        "language": 16,
    }
    assert find_recipe("mars_ranks", {"decision": str(decision / "decision.json")}).ranks["vision"] == 64
    with pytest.raises(ConfigError, match=r"decision\.json"):
        find_recipe("mars_ranks", {"decision": str(decision / "nowhere")})
    with pytest.raises(ConfigError, match="lacks one"):
        find_recipe("mars_ranks")
