"""The words: what was chosen, how sure, what it gained and cost."""

from dataclasses import replace

import pytest

from marslora.core.decision import Effect, Interval
from marslora.core.runs import Cost
from marslora.core.schedule import final_evaluation_steps
from marslora.core.setting import Setting
from marslora.core.spec import VALIDATION_WORK
from marslora.report import numbers, sections, tables, words
from marslora.report.data import (
    compute_final_spending,
    compute_grid_spending,
    compute_total_spending,
    estimate_full_run_seconds,
)
from tests.unit.report import example_studies


def plain(text):
    return text.replace(numbers.SPACE, " ")


def said(data):
    return plain("\n".join(words.write_summary_lines(data)))


def test_a_clear_verdict_names_ranks_probability_gain_and_cost(clear):
    lines = said(clear)
    assert lines.startswith("Give vision rank 4 and language rank 16.")
    chance = plain(numbers.format_percent(clear.chosen.p_best))
    assert f"best of 16 allocations with probability {chance}" in lines
    assert "The validation loss was 2.100 before and 0.655 after training" in lines
    assert "31.2 % of answer tokens were right before and 84.3 % after" in lines
    assert "the loss was 2.130 before and 0.671 after training" in lines
    assert "It ended lower than uniform rank 14" in lines
    assert "0.655 against 0.683" in lines
    last = 1 - 256 / clear.full_work
    assert (
        f"It cost {0.61 + last:.2f} full runs and 55.5 s: 0.61 for calibration, {last:.2f} for the final run." in lines
    )
    assert "Training all 16 allocations would cost 16 full runs" in lines
    assert "Adapter: studies/tiny-llava/final/adapter" in lines


def test_losing_to_uniform_is_said(clear):
    better = clear.uniform.model_copy(update={"validation_loss": 0.5})
    assert "It ended no lower than uniform rank 14" in said(replace(clear, uniform=better))


def test_no_winner_is_said_with_the_number_of_candidates():
    data = example_studies.make_example("null")
    assert words.write_headline(data) == "No clear winner; a good choice: vision rank 1 and language rank 1"
    number = len(data.decision.plausible)
    assert number > 10
    assert f"{number} of 16 allocations together hold 90 %" in said(data) and "The chosen one has" in said(data)


def test_a_fallback_claims_no_probability():
    data = example_studies.make_example("failed")
    assert words.write_headline(data).startswith("Undecided; a fallback")
    assert "so there is no probability of being best" in said(data)
    assert "with probability" not in said(data)


def test_notices_name_runs_rows_and_laws():
    titles = [notice.title for notice in words.collect_notices(example_studies.make_example("failed"))]
    assert titles[0] == "This choice is a fallback"
    assert "2 of 23 runs did not end well" in titles
    assert "3 rows could not be used" in titles
    text = next(n.text for n in words.collect_notices(example_studies.make_example("failed")) if "rows" in n.title)
    assert "train.jsonl:17: image cat.png is missing" in text


def test_training_that_hurt_is_said(clear):
    worse = clear.final.model_copy(update={"validation_loss": 2.5})
    assert words.collect_notices(replace(clear, final=worse))[0].title == "Training did not help"


def test_without_a_final_run_the_gain_is_expected_not_claimed():
    data = example_studies.make_example("no_final")
    lines = said(data)
    assert "expected to reach" in lines
    assert "1 for the final run, which has not been made yet" in lines
    assert "Adapter:" not in lines
    assert compute_final_spending(data).runs == 1.0


def test_a_uniform_choice_is_not_compared_with_another_uniform_rank():
    data = example_studies.make_example("null")
    assert data.uniform is None
    assert "Uniform rank" not in said(data)
    assert "The chosen ranks are already uniform." in said(data)
    assert "uniform" not in said(example_studies.make_example("one_part"))


def test_three_parts_are_listed():
    assert words.write_headline(example_studies.make_example("three_parts")).count("rank") == 3
    assert " and language rank" in words.write_headline(example_studies.make_example("three_parts"))


def choose(data, setting=None, **more):
    """The study with another choice."""
    wanted = setting or data.decision.setting
    candidates = tuple(
        each.model_copy(update={"status": "chosen" if each.setting == wanted else "kept"})
        for each in data.decision.candidates
    )
    rates = {"learning_rate": wanted.learning_rate, "part_learning_rates": dict(wanted.part_learning_rates)}
    update = {"chosen": wanted.allocation, **rates, "candidates": candidates, **more}
    return replace(data, decision=data.decision.model_copy(update=update))


def believe(data, chance):
    """The study whose candidates that train the vision tower are the best with this probability."""
    known = data.decision.candidates
    trains = [each.allocation["vision"] > 0 for each in known]
    shares = {True: chance / sum(trains), False: (1 - chance) / (len(trains) - sum(trains))}
    candidates = (each.model_copy(update={"p_best": shares[t]}) for each, t in zip(known, trains, strict=True))
    return replace(data, decision=data.decision.model_copy(update={"candidates": tuple(candidates)}))


def frozen_tower(data):
    """The setting of the study that leaves the vision tower as it is."""
    return Setting(allocation=data.decision.chosen.replace(vision=0), learning_rate=data.decision.learning_rate)


@pytest.mark.parametrize(
    ("trains", "chance", "said_first"),
    [
        (True, 0.97, "Train the vision tower (probability 97 %). Give vision rank 16 and language rank 64"),
        (False, 0.04, "Leave the vision tower as it is (probability 96 %). Give language rank 64"),
        (True, 0.6, "Training the vision tower pays with probability 60 %. Give vision rank 16 and"),
        (False, 0.6, "Training the vision tower pays with probability 60 %; it is left as it is. Give language"),
    ],
)
def test_the_head_answers_first_whether_the_tower_should_be_trained(trains, chance, said_first):
    data = believe(example_studies.make_example("rates"), chance)
    data = data if trains else choose(data, frozen_tower(data))
    assert plain(words.write_headline(data)).startswith(said_first)
    assert words.write_headline(data).endswith(", at learning rate 0.00085")


def test_the_tower_is_answered_without_a_probability_and_in_a_tie():
    data = example_studies.make_example("rates")
    bare = tuple(each.model_copy(update={"p_best": None}) for each in data.decision.candidates)
    observed = replace(data, decision=data.decision.model_copy(update={"candidates": bare}))
    assert words.write_headline(observed).startswith("Give vision rank 16 and language rank 64")
    left = choose(observed, frozen_tower(observed))
    assert words.write_headline(left).startswith("Leave the vision tower as it is. Give language rank 64, at")
    tie = choose(believe(data, 0.02), frozen_tower(data), verdict="indistinguishable")
    assert "No clear winner; a good choice: language rank 64, at learning rate 0.00085" in words.write_headline(tie)
    fallback = choose(data, frozen_tower(data), verdict="fallback")
    assert words.write_headline(fallback).startswith("Undecided; a fallback: vision rank 0 and language rank 64, at")


def test_a_tower_that_must_be_trained_raises_no_question(clear):
    assert words.write_headline(clear) == "Give vision rank 4 and language rank 16"


def test_settings_are_named_with_their_rates():
    lines = said(example_studies.make_example("rates"))
    assert "It is the best of 105 settings with probability" in lines
    assert "vision 16, language 64, learning rate 0.00085, vision rate 0.0025" in lines
    assert "Training all 105 settings would cost 105 full runs" in lines
    assert "A setting is a rank for every part" in words.explain_terms(example_studies.make_example("rates"))


def test_a_choice_at_the_edge_of_its_ladder_is_said_as_the_decision_says_it(clear):
    corner = "Rank 64 is the largest of language: larger ones (--ranks) may be better."
    data = replace(clear, decision=clear.decision.model_copy(update={"corners": (corner,)}))
    assert [notice.text for notice in words.collect_notices(data) if "edge" in notice.title] == [corner]
    assert not [notice for notice in words.collect_notices(clear) if "edge" in notice.title]


def test_the_uniform_rank_is_named_whatever_else_its_adapter_trains(clear):
    assert "uniform rank 14" in said(clear)
    routers = clear.uniform.model_copy(update={"num_trainable": clear.uniform.num_trainable + 1000})
    assert "uniform rank 14" in said(replace(clear, uniform=routers))


def test_a_grid_costs_as_many_runs_as_it_has_cells(data):
    assert compute_grid_spending(data).runs == len(data.decision.candidates)
    assert compute_total_spending(data).runs == pytest.approx(0.61 + compute_final_spending(data).runs)


def test_a_grid_trains_the_candidates_alone(clear):
    few = tuple(each for each in clear.decision.candidates if each.allocation["vision"] < 64)
    limited = replace(clear, decision=clear.decision.model_copy(update={"candidates": few}))
    assert limited.num_candidates == 12
    assert compute_grid_spending(limited).runs == limited.num_candidates
    assert f"Training all {limited.num_candidates} allocations" in words.describe_cost(limited)


def test_candidates_at_one_rate_are_allocations():
    data = example_studies.make_example("rates")
    same = tuple(each for each in data.decision.candidates if each.setting.part_learning_rates == ())
    one = tuple(each for each in same if each.learning_rate == 8.5e-4)
    at_one_rate = replace(data, decision=data.decision.model_copy(update={"candidates": one}))
    assert (data.candidate_noun, at_one_rate.candidate_noun) == ("setting", "allocation")
    assert words.write_headline(at_one_rate).endswith(", at learning rate 0.00085")


def test_without_timings_no_seconds_are_claimed(clear):
    untimed = replace(
        clear,
        final=clear.final.model_copy(update={"cost": Cost()}),
        uniform=None,
        decision=clear.decision.model_copy(update={"calibration": Cost()}),
    )
    assert estimate_full_run_seconds(untimed) is None
    assert words.describe_cost(untimed).startswith(f"It cost {0.61 + 1 - 256 / clear.full_work:.2f} full runs: ")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0 %"), (0.004, "< 1 %"), (0.5, "50 %"), (0.997, "> 99 %"), (1.0, "100 %"), (None, "-")]
)
def test_shares_are_never_rounded_to_certainty(value, text):
    assert plain(numbers.format_percent(value)) == text


@pytest.mark.parametrize(("seconds", "text"), [(2.345, "2.35 s"), (90, "1.5 min"), (7200, "2.0 h"), (None, "-")])
def test_durations_read_well(seconds, text):
    assert plain(numbers.format_duration(seconds)) == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("only two runs", "Only two runs."),
        ("a.vision is unknown", "a.vision is unknown."),
        ("Done.", "Done."),
        ("", ""),
    ],
)
def test_a_message_becomes_a_sentence_without_harming_symbols(raw, text):
    assert words.make_sentence(raw) == text


def test_a_caveat_beside_a_clear_verdict_is_no_fallback(clear):
    decision = clear.decision.model_copy(update={"fallback": "the data contradict the balance hypothesis"})
    notice = words.collect_notices(replace(clear, decision=decision))[0]
    assert (notice.level, notice.text) == ("care", "The data contradict the balance hypothesis.")


def test_a_choice_by_observation_alone_claims_no_probability(clear):
    bare = tuple(each.model_copy(update={"p_best": None}) for each in clear.decision.candidates)
    data = replace(clear, decision=clear.decision.model_copy(update={"candidates": bare}))
    assert "this strategy does not estimate how sure" in words.describe_certainty(data)


def test_an_adapter_from_before_the_end_says_so(clear):
    final = clear.final
    kept = final.model_copy(update={"kept_examples": final.examples[-2]})
    assert not any("where the loss was lowest" in line for line in words.describe_gain(clear))
    line = next(line for line in words.describe_gain(replace(clear, final=kept)) if "where the loss was lowest" in line)
    assert f"{final.examples[-2]:,}" in line and f"{final.examples[-1]:,}" in line


def test_terms_are_explained_if_the_page_uses_them(clear):
    explained = words.explain_terms(clear)
    assert all(term in explained for term in ("full run", "nats", "P(best)", "Law-C", "Law-P"))
    observed = tuple(each.model_copy(update={"p_best": None}) for each in clear.decision.candidates)
    bare = clear.decision.model_copy(update={"candidates": observed, "laws": ()})
    explained = words.explain_terms(replace(clear, decision=bare))
    assert not any(term in explained for term in ("P(best)", "Law-C", "Law-P"))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.6, 0.7, "inside the interval"),
        (0.5, 0.6, "0.055 nats above"),
        (0.7, 0.8, "0.045 nats below"),
    ],
)
def test_the_prediction_is_compared_with_the_final_run(clear, low, high, words):
    predicted = Interval(value=(low + high) / 2, low=low, high=high)
    chosen = clear.chosen.model_copy(update={"predicted_loss": predicted})
    others = tuple(each for each in clear.decision.candidates if each.status != "chosen")
    decision = clear.decision.model_copy(update={"candidates": (chosen, *others)})
    sentence = f"The search had predicted {low:.3f} to {high:.3f} (90 % interval); the run ended at 0.655, {words}"
    assert sentence in said(replace(clear, decision=decision))


def test_without_a_final_run_or_a_prediction_no_promise_is_checked(clear):
    assert "had predicted" not in said(replace(clear, final=None, uniform=None))
    chosen = clear.chosen.model_copy(update={"predicted_loss": None})
    decision = clear.decision.model_copy(update={"candidates": (chosen,)})
    assert "had predicted" not in said(replace(clear, decision=decision))


def test_a_full_run_is_the_final_run_with_its_validations(clear):
    looks = final_evaluation_steps(clear.full_examples // 16, clear.spec.training.evaluations)
    whole = Cost(examples=clear.full_examples, validation_examples=256 * len(looks))
    assert clear.full_work == clear.full_examples + VALIDATION_WORK * 256 * len(looks)
    assert clear.count_full_runs(whole) == 1
    assert clear.count_full_runs(Cost(examples=clear.full_examples)) < 1
    assert replace(clear, summary=None).full_work == clear.full_examples


@pytest.mark.parametrize(("verdict", "opening"), words.OPENINGS.items())
def test_an_open_verdict_is_introduced_as_what_it_is(verdict, opening):
    data = choose(
        example_studies.make_example("rates"), frozen_tower(example_studies.make_example("rates")), verdict=verdict
    )
    assert f"{opening}: language rank 64" in words.write_headline(data)
    assert "hold" in words.describe_certainty(data)
    page = str(sections.render_verdict(data))
    assert "How sure" in page


def test_what_matters_is_said_in_words_and_in_a_table():
    def effect(knob, value, verdict):
        nats = Interval(value=value, low=value / 2, high=2 * value)
        fields = {"knob": knob, "nats": nats, "share": nats, "best": "0.0016", "worst": "0.0004", "verdict": verdict}
        return Effect.model_validate(fields)

    data = example_studies.make_example("rates")
    effects = (effect("learning rate", 0.4, "matters"), effect("vision rank", 0.001, "does not matter"))
    data = replace(data, decision=data.decision.model_copy(update={"effects": effects}))
    assert "What matters: learning rate (0.400 nats between 0.0016 and 0.0004)." in said(data)
    assert "What does not matter: vision rank." in said(data)
    table = str(tables.build_effects_table(data))
    assert "0.400 (0.200 to 0.800)" in plain(table) and "does not matter" in table


def test_a_tower_whose_effect_is_not_resolved_is_called_open():
    data = example_studies.make_example("rates")
    nats = Interval(value=0.1, low=-0.1, high=0.3)
    fields = {"knob": "training vision", "nats": nats, "share": nats, "best": "trained", "worst": "not trained"}
    effect = Effect.model_validate({**fields, "verdict": "unresolved"})
    data = replace(data, decision=data.decision.model_copy(update={"effects": (effect,)}))
    assert plain(words.write_headline(data)).startswith("Train the vision tower, though that is open (it pays with")
