"""What every recipe promises: a combination of plugins that exist, with options that they take.

Subclass the class in a test file of your own and return the name of your recipe from the fixture `name`; pytest runs
the rest.
"""

import pytest

from marslora import gradients
from marslora.core import plugins
from marslora.core.comparison import MethodSpec, build_training
from marslora.core.errors import ConfigError
from marslora.gradients import AbstractCombiner
from marslora.methods import make_method
from marslora.optim import check_optimizer
from marslora.recipes import describe_recipe, find_recipe

PARTS = ("vision", "audio", "projector", "language")


def check_plugins(training):
    """Make each plugin that a `TrainingSpec` names; `ConfigError` for a wrong name or option."""
    make_method(training.adapter)
    check_optimizer(training.optimizer)
    plugins.load(gradients, training.gradients.name, AbstractCombiner)(**training.gradients.options)


class RecipeContract:
    """What every recipe promises: a combination of plugins that exist, with options that they take."""

    @pytest.fixture
    def name(self):
        """Return the name of the recipe to check, ``package.module:function``."""
        raise NotImplementedError("Define the fixture `name` in a subclass.")

    @pytest.fixture
    def options(self):
        """Return the options that the recipe cannot do without."""
        return {}

    def test_it_is_made_of_plugins_that_exist_and_take_its_options(self, name, options):
        check_plugins(build_training(find_recipe(name, options), MethodSpec(recipe=name), {}, PARTS))

    def test_it_is_described_and_names_its_source(self, name, options):
        assert describe_recipe(name).endswith(".")
        assert find_recipe(name, options).source

    def test_ranks_and_rates_are_those_of_known_parts(self, name, options):
        recipe = find_recipe(name, options)
        assert isinstance(recipe.ranks, int) or set(recipe.ranks) <= set(PARTS)
        assert set(recipe.rate_factors) <= set(PARTS)

    def test_common_settings_override_its_defaults(self, name, options):
        recipe = find_recipe(name, options)
        training = build_training(recipe, MethodSpec(recipe=name), {"learning_rate": 0.123, "dropout": 0.0}, PARTS)
        assert (training.learning_rate, training.dropout) == (0.123, 0.0)

    def test_it_can_have_learning_rates_by_part(self, name, options):
        entry = MethodSpec(recipe=name, rate_factors={"vision": 3.0, "language": 0.5})
        training = build_training(find_recipe(name, options), entry, {"learning_rate": 1e-3}, PARTS)
        assert training.part_learning_rates == {"vision": pytest.approx(3e-3), "language": pytest.approx(5e-4)}

    def test_an_unknown_option_is_refused_by_it_or_by_its_plugin(self, name, options):
        with pytest.raises(ConfigError, match="nonsense"):
            recipe = find_recipe(name, {**options, "nonsense": 1})
            check_plugins(build_training(recipe, MethodSpec(recipe=name), {}, PARTS))
