"""Every recipe of the folder is made of kinds that exist."""

import importlib
import inspect
import re

import pytest

from marslora import recipes
from marslora.core import plugins
from marslora.core.allocation import Allocation
from marslora.core.comparison import MethodSpec, Recipe, build_training, read_method
from marslora.core.decision import Candidate, DecisionRecord
from marslora.core.errors import ConfigError
from marslora.recipes import describe_recipe, find_recipe

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


def test_the_learning_rates_of_a_decision_hold_in_a_comparison(decision):
    path = decision / "decision.json"
    found = DecisionRecord.load(path)
    chosen = found.model_copy(update={"learning_rate": 1.6e-3, "part_learning_rates": {"vision": 4.8e-3}})
    path.write_text(chosen.to_json())
    recipe, entry = find_recipe("mars_ranks", {"decision": str(path)}), MethodSpec(recipe="mars_ranks")
    training = build_training(recipe, entry, {"learning_rate": 1e-3}, PARTS)
    assert training.learning_rate == 1.6e-3 and training.part_learning_rates == {"vision": pytest.approx(4.8e-3)}
    path.write_text(found.to_json())
    recipe = find_recipe("mars_ranks", {"decision": str(path)})
    assert build_training(recipe, entry, {"learning_rate": 1e-3}, PARTS).learning_rate == 1e-3


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
    with pytest.raises(ConfigError, match="missing a required argument: 'decision'"):
        find_recipe("mars_ranks")


def slow_rates(factor=0.1):
    """A recipe from elsewhere."""
    return Recipe(ranks=4, rate_factors={"vision": factor})


def no_recipe():
    return {"ranks": 4}


HERE = f"{__name__}:slow_rates"


def test_a_recipe_from_elsewhere_is_named():
    assert find_recipe(HERE, {"factor": 0.5}) == slow_rates(0.5)
    assert describe_recipe(HERE) == "A recipe from elsewhere."
    assert read_method(HERE)["recipe"] == HERE
    method = read_method(f"{HERE}:factor=0.5,rank=2")
    assert (method["recipe"], method["options"], method["ranks"]) == (HERE, {"factor": 0.5}, 2)
    assert read_method("mars_ranks:decision=a:b")["options"] == {"decision": "a:b"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuch", "`nosuch` is not a recipe. Name one of"),
        (
            "uniform:rank",
            "the recipe `uniform:rank` cannot be imported",
        ),
        (f"{__name__}:nothing", "cannot be imported"),
        (f"{__name__}:NAMES", "must be a function that returns a `Recipe`, found"),
        (f"{__name__}:no_recipe", "must return a `marslora.core.comparison.Recipe`, found {'ranks': 4}"),
    ],
)
def test_what_is_not_a_recipe_is_explained(name, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        find_recipe(name)


def test_unknown_options_of_a_recipe_are_explained():
    with pytest.raises(ConfigError, match=re.escape("Its options are ratio=16.0.")):
        find_recipe("lora_plus", {"rank": 3})
