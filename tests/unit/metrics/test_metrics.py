"""Metrics of generated answers give the values of their definitions."""

import pytest

from marslora.core.errors import ConfigError, MissingDependencyError
from marslora.metrics import find_metric, measure


@pytest.mark.parametrize(
    ("found", "wanted", "exact", "overlap"),
    [
        ("The cat.", "a cat", 1, 1),
        ("cat", "dog", 0, 0),
        ("a red cat", "the red dog", 0, 0.5),
        ("red red cat", "red", 0, 0.5),
        ("", "", 1, 1),
        ("the", "", 1, 1),
        ("cat", "", 0, 0),
        ("a-b", "ab", 1, 1),
        ("Ein Ähre", "ein ähre", 1, 1),
    ],
)
def test_squad_counts_words(found, wanted, exact, overlap):
    assert find_metric("exact_match")([found], [wanted]) == exact
    assert find_metric("f1")([found], [wanted]) == pytest.approx(overlap)


def test_a_metric_is_the_mean_over_answers():
    assert find_metric("exact_match")(["a b", "c", "d"], ["b", "c", "e"]) == pytest.approx(2 / 3)
    assert find_metric("f1")(["x y", "z"], ["x", "z"]) == pytest.approx((2 / 3 + 1) / 2)


def test_rouge_l_is_that_of_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="the extra `metrics` is not installed")
    found, wanted = ["the cat sat on the mat", "no"], ["a cat on a mat", "Yes, no!"]
    own = scorer.RougeScorer(["rougeL"])
    expected = sum(own.score(b, a)["rougeL"].fmeasure for a, b in zip(found, wanted, strict=True)) / 2
    assert find_metric("rouge_l")(found, wanted) == pytest.approx(expected) != 0
    assert find_metric("rouge_l")(["красная кошка"], ["красная собака"]) == pytest.approx(0.5)


def test_rouge_l_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(MissingDependencyError, match=r"marslora\[metrics\]"):
        find_metric("rouge_l")(["a"], ["a"])


def answer_length(predictions, references):
    return sum(map(len, predictions)) / len(references)


def test_a_function_of_ones_own_is_named_by_its_module():
    assert find_metric(f"{__name__}:answer_length")(["abc"], [""]) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exact-match", "Did you mean `exact_match`"),
        ("nowhere.module:metric", "cannot be imported"),
        (f"{__name__}:__name__", "must be a function"),
    ],
)
def test_what_is_no_metric_is_named(name, words):
    with pytest.raises(ConfigError, match=words):
        find_metric(name)


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "one finite number"), ("0.5", "one finite number")])
def test_a_metric_gives_one_number(value, words):
    with pytest.raises(ConfigError, match=words):
        measure("mine", lambda found, wanted: value, ["a"], ["a"])


def test_a_metric_that_fails_is_named():
    with pytest.raises(ConfigError, match=r"`metric` mine failed on 1 answers \(ZeroDivisionError"):
        measure("mine", lambda found, wanted: 1 / 0, ["a"], ["a"])
