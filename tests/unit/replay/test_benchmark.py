"""Searchers are read from words, and every one is replayed on every instance."""

from pathlib import Path

import pytest

from marslora.core.errors import ConfigError
from marslora.replay.benchmark import BenchmarkResult, replay_searchers, run_benchmark
from marslora.replay.ranking import build_family_curves
from marslora.replay.searchers import REFERENCE, Searcher, add_reference, parse_searchers, standard_searchers
from tests.helpers.toy_tables import table

HALVING = parse_searchers("successive_halving:eta=4,first_rung=0.05/0.2")
PAPER = Searcher("paper", "mars_paper", budget=0.5)


def test_a_word_is_read_as_a_family():
    assert [searcher.setting for searcher in HALVING] == ["eta=4, first_rung=0.05", "eta=4, first_rung=0.2"]
    assert {searcher.family for searcher in HALVING} == {"successive_halving eta=4"}
    assert [searcher.budget for searcher in parse_searchers("mars@0.1/2")] == [0.1, 2.0]
    (found,) = parse_searchers("ranks_only:fit_laws=false,num_leaders=[3,2],confidence=9e-1@0.4")
    assert found.options == {"fit_laws": False, "num_leaders": [3, 2], "confidence": 0.9}
    assert found.make_strategy().config.num_leaders == (3, 2)
    (outside,) = parse_searchers("marslora.strategies.asha:AshaStrategy:eta=2@0.3")
    assert (outside.strategy, outside.options) == ("marslora.strategies.asha:AshaStrategy", {"eta": 2})
    assert parse_searchers("marslora.strategies.asha:AshaStrategy")[0].options == {}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nonsense", "`nonsense` is not a plugin in marslora.strategies"),
        ("mars:colour=3", r"MarsStrategy has no option \['colour'\]"),
        ("mars@much", "A budget must be a number of full runs above 0, found 'much'"),
        ("mars@-1", "found '-1'"),
        ("successive_halving:eta=4,first_rung", "must look like STRATEGY"),
        ("mars:cost=[", r"`--strategy mars:cost=\[`: the value '\[' is not valid YAML"),
        ("mars:cost=few", "`cost` of MarsStrategy must be a number above 0 or null, found 'few'"),
    ],
)
def test_errors_name_what_is_wrong_with_a_word(word, message):
    with pytest.raises(ConfigError, match=message):
        parse_searchers(word)


def test_the_reference_is_added_where_it_is_missing():
    standard = standard_searchers()
    assert any(searcher.family == REFERENCE for searcher in standard)
    added = add_reference(HALVING, REFERENCE, standard)
    assert added[:2] == HALVING and {searcher.family for searcher in added[2:]} == {REFERENCE}
    assert add_reference(HALVING, "successive_halving eta=4", standard) == HALVING
    with pytest.raises(ConfigError, match=r"`--reference` must be one of .*found 'luck'"):
        add_reference(HALVING, "luck", standard)


def test_settings_tell_the_standard_searchers_apart():
    standard = standard_searchers()
    assert len({(searcher.family, searcher.setting) for searcher in standard}) == len(standard)


def test_every_searcher_is_replayed_on_every_instance():
    seen = []
    tables = [table("a"), table("b", seeds=(1, 2))]
    scores = replay_searchers(tables, HALVING, (1.0, 0.5), lambda *step: seen.append(step), seeds=(1,))
    assert [score.instance for score in scores[::2]] == [("a", 1, 1.0), ("a", 1, 0.5), ("b", 1, 1.0), ("b", 1, 0.5)]
    assert seen == [(2, 8), (4, 8), (6, 8), (8, 8)]
    assert all(score.regret == 0 for score in scores if score.is_best and score.max_share == 0.5)
    with pytest.raises(
        ConfigError, match=r"No table has a run with one of the seeds \[7\]. Their seeds are \[0, 1, 2\]"
    ):
        replay_searchers(tables, HALVING, seeds=(7,))


def test_a_searcher_is_left_out_where_a_table_lacks_a_run_and_that_is_noted():
    ranks = (2, 16)
    tables = [table("whole", has_part_runs=True, seeds=(0,), ranks=ranks), table("bare", seeds=(0,), ranks=ranks)]
    found = run_benchmark(tables, (*HALVING, PAPER), "successive_halving eta=4", max_shares=(0.3,))
    assert {score.table for score in found.scores if score.family == "paper"} == {"whole"}
    assert build_family_curves(found.scores)["paper"].instances == (("whole", 0, 0.3),)
    (note,) = found.notes()
    assert note.startswith(
        "paper was left out on bare: Table `bare` has no run of eye=2 bridge=0 tongue=0, learning rate 0.001 on 25 rows"
    )
    assert BenchmarkResult.model_validate_json(found.to_json()) == found
    with pytest.raises(ConfigError, match="has no run"):
        replay_searchers(tables[1:], (PAPER,))


@pytest.mark.slow
def test_processes_find_what_one_finds():
    tables = [table("a"), table("b")]
    assert replay_searchers(tables, HALVING, workers=2) == replay_searchers(tables, HALVING)


@pytest.mark.parametrize(
    "name", ["search.json", "search_held_out.json", "search_default.json", "search_default_held_out.json"]
)
def test_the_published_results_can_be_read(name):
    result = BenchmarkResult.load(Path(__file__).parents[3] / "benchmarks" / name)
    assert len(result.scores) > 50 and result.reference in result.families
