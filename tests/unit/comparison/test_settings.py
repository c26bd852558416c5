"""Words and mappings become methods."""

import pytest

from marslora.comparison.settings import asked, method_of_words, rank_words
from marslora.core.comparison import MethodSpec, Recipe, training_of
from marslora.core.errors import ConfigError
from marslora.demo.model import embedded_folder


def test_words_say_all_that_a_mapping_can():
    found = method_of_words(
        "asymlora:name=both,rank.vision=4,rank.language=8,rate.projector=0.1,optimizer=muon,form=task"
    )
    assert found == MethodSpec(
        recipe="asymlora",
        name="both",
        options={"form": "task"},
        ranks={"vision": 4, "language": 8},
        rate_factors={"projector": 0.1},
        training={"optimizer": {"name": "muon"}},
    )
    assert method_of_words("uniform:rank=4,training.dropout=0.1") == MethodSpec(
        name="uniform:rank=4,training.dropout=0.1", ranks=4, training={"dropout": 0.1}
    )
    assert method_of_words("eva") == MethodSpec(recipe="eva")


def test_later_settings_win():
    recipe = Recipe(
        training={"adapter": {"name": "moka"}},
        defaults={"learning_rate": 1e-4, "dropout": 0.05},
        rate_factors={"projector": 0.1, "audio": 0.5},
    )
    parts = ("vision", "projector", "language")
    common = {"learning_rate": 1e-3, "adapter": {"name": "lora"}}
    found = training_of(recipe, MethodSpec(), common, parts)
    assert (found.learning_rate, found.dropout, found.adapter.name) == (1e-3, 0.05, "moka")
    assert found.part_learning_rates == {"projector": pytest.approx(1e-4)}
    own = MethodSpec(rate_factors={"vision": 2}, training={"learning_rate": 2e-3, "dropout": 0.0})
    found = training_of(recipe, own, common, parts)
    assert (found.learning_rate, found.dropout, found.part_learning_rates) == (2e-3, 0.0, {"vision": 4e-3})


def settings(**changes):
    return {
        "model": {"path": str(embedded_folder())},
        "data": {"train": ["x.jsonl"]},
        "methods": ["uniform"],
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": []}, "`methods` is missing"),
        ({"methods": ["nosuch"]}, "no recipe"),
        ({"methods": ["eva:rank"]}, "must look like"),
        ({"methods": ["eva:rank=["]}, "the value of rank is no YAML"),
        ({"methods": "nosuch"}, "`nosuch` is no recipe"),
        ({"methods": ["uniform", "uniform"]}, "name of its own"),
        ({"methods": ["moka:nosuch=1"]}, "does not know"),
        ({"methods": ["mars_ranks:decision=nowhere"]}, "nowhere"),
        ({"methods": ["uniform:training.examples=3"]}, "the same for all"),
        ({"seeds": [0, 0]}, "must differ"),
        ({"equal": "luck"}, "equal"),
        ({"typo": 1}, "typo"),
    ],
)
def test_what_is_wrong_is_said(changes, said):
    with pytest.raises(ConfigError, match=said):
        asked(settings(**changes), "a test")


def test_a_part_that_is_not_there_has_no_rate():
    with pytest.raises(ConfigError, match="rate_factors"):
        training_of(Recipe(), MethodSpec(rate_factors={"audio": 2.0}), {}, ("vision", "language"))


def test_the_folder_is_that_of_model_data_and_common_settings():
    one = asked(settings(), "a test").default_folder
    assert asked(settings(methods=["eva", "uniform"], seeds=[4]), "a test").default_folder == one
    assert asked(settings(training={"epochs": 1}), "a test").default_folder != one


def test_ranks_in_words():
    assert rank_words(["8"]) == 8
    assert rank_words(["vision=8", "language=4"]) == {"vision": 8, "language": 4}
    assert rank_words([]) is None
    with pytest.raises(ConfigError, match="--rank"):
        rank_words(["many"])
