"""Words and mappings become methods."""

import pytest

from marslora import settings as settings_of_studies
from marslora.comparison.settings import COMPARE_OPTIONS, ComparisonSettings, make_request, read_comparison
from marslora.core.comparison import ComparisonSpec, MethodSpec, Recipe, build_training
from marslora.core.errors import ConfigError
from marslora.demo.model import embedded_folder


@pytest.fixture(autouse=True)
def _rows(monkeypatch):
    monkeypatch.setattr(settings_of_studies, "check_sources", lambda _: None)


def request_comparison(settings):
    """The request of nested settings."""
    return make_request(COMPARE_OPTIONS.parse(ComparisonSettings, settings, "a test", "keyword"))


def test_words_say_all_that_a_mapping_can():
    method = MethodSpec.parse(
        "asymlora:name=both,rank.vision=4,rank.language=8,rate.projector=0.1,optimizer=muon,form=task"
    )
    assert method == MethodSpec(
        recipe="asymlora",
        name="both",
        options={"form": "task"},
        ranks={"vision": 4, "language": 8},
        rate_factors={"projector": 0.1},
        training={"optimizer": {"name": "muon"}},
    )
    assert MethodSpec.parse("uniform:rank=4,training.dropout=0.1") == MethodSpec(
        name="uniform:rank=4,training.dropout=0.1", ranks=4, training={"dropout": 0.1}
    )
    assert MethodSpec.parse("eva") == MethodSpec(recipe="eva")


def test_later_settings_win():
    recipe = Recipe(
        training={"adapter": {"name": "moka"}},
        defaults={"learning_rate": 1e-4, "dropout": 0.05},
        rate_factors={"projector": 0.1, "audio": 0.5},
    )
    parts = ("vision", "projector", "language")
    common = {"learning_rate": 1e-3, "adapter": {"name": "lora"}}
    found = build_training(recipe, MethodSpec(), common, parts)
    assert (found.learning_rate, found.dropout, found.adapter.name) == (1e-3, 0.05, "moka")
    assert found.part_learning_rates == {"projector": pytest.approx(1e-4)}
    own = MethodSpec(rate_factors={"vision": 2}, training={"learning_rate": 2e-3, "dropout": 0.0})
    found = build_training(recipe, own, common, parts)
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
        ({"methods": ["nosuch"]}, "not a recipe"),
        ({"methods": ["eva:rank"]}, "Options are written as in"),
        ({"methods": ["eva:rank=["]}, "must be a YAML value"),
        ({"methods": "nosuch"}, "`nosuch` is not a recipe"),
        ({"methods": ["uniform", "uniform"]}, "must have its own name"),
        ({"methods": ["moka:nosuch=1"]}, "Its options are lam=0.05"),
        ({"methods": ["mars_ranks:decision=nowhere"]}, "nowhere"),
        ({"methods": ["uniform:training.examples=3"]}, "the same for all"),
        ({"seeds": [0, 0]}, "must all be different"),
        ({"equal": "luck"}, "`equal` must be"),
        ({"typo": 1}, "typo"),
    ],
)
def test_what_is_wrong_is_said(changes, said):
    with pytest.raises(ConfigError, match=said):
        request_comparison(settings(**changes))


def test_a_part_that_is_not_there_has_no_rate():
    with pytest.raises(ConfigError, match="rate_factors"):
        build_training(Recipe(), MethodSpec(rate_factors={"audio": 2.0}), {}, ("vision", "language"))


def test_the_folder_is_that_of_model_data_and_common_settings():
    one = request_comparison(settings()).default_folder
    assert request_comparison(settings(methods=["eva", "uniform"], seeds=[4])).default_folder == one
    assert request_comparison(settings(training={"epochs": 1})).default_folder != one


def test_ranks_in_words():
    def ranks(words):
        return ComparisonSpec.parse({"methods": "uniform", "ranks": words}).ranks

    assert ranks("8") == ranks(["8"]) == ranks(8) == 8
    assert ranks(["vision=8", "language=4"]) == {"vision": 8, "language": 4}
    assert ranks(None) is None
    with pytest.raises(ConfigError, match="`ranks` must be one rank such as 16"):
        ranks(["many"])


def test_words_of_the_command_line_are_those_of_python(tmp_path):
    base = {"model": str(embedded_folder()), "train": ("x.jsonl",)}
    typed = {"methods": ["eva", "moka:rank=8"], "seeds": "1,2", "ranks": ["4"], "epochs": "2", "out": str(tmp_path)}
    given = {"methods": ["eva", "moka:rank=8"], "seeds": (1, 2), "ranks": 4, "epochs": 2, "out": tmp_path}
    assert read_comparison({**base, **typed}, None, None, "flag") == read_comparison(
        {**base, **given}, None, None, "keyword"
    )


def test_common_settings_are_those_that_were_given():
    assert request_comparison(settings(training={"epochs": 3.0})).common == {"epochs": 3.0}


def test_an_explicitly_empty_setting_overrides_that_of_the_demo(tmp_path):
    request, run = read_comparison(
        {"methods": "uniform", "data": {"test": []}, "out": tmp_path}, None, "small", "keyword"
    )
    assert request.study.data.test == () and request.study.data.train and run.out == tmp_path
