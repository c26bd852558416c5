"""When members are validated, what that costs, and the training losses in between."""

import pytest
import torch

from marslora.core.schedule import evaluation_steps, few_evaluation_steps
from marslora.engine import evaluate, loop
from tests.helpers.packs import go, member, tensors

STEPS = evaluation_steps(20, 5)
REGULAR = [8 * step for step in STEPS]
ROWS = 12


def up_to(until):
    return [examples for examples in REGULAR if examples <= until]


def test_members_are_validated_as_often_as_each_says(pack):
    seen = go(
        pack(
            member("regular", until=80, language=4),
            member("end", until=80, language=4, validations="end"),
            member("few", until=80, language=4, validations="few"),
        )
    )
    few = [8 * step for step in few_evaluation_steps(STEPS, 8, ROWS)]
    assert 0 < len([t for t in few if t <= 80]) < len(up_to(80))
    assert list(seen.curve("regular")) == [0, *up_to(80), 80]
    assert list(seen.curve("end")) == [0, 80]
    assert list(seen.curve("few")) == [0, *(t for t in few if t <= 80)]
    for name in ("end", "few"):  # the same run, less often looked at
        assert list(seen.curve(name, "train_loss")) == [*up_to(80), 80]
        assert seen.curve(name, "train_loss") == pytest.approx(seen.curve("regular", "train_loss"), rel=1e-5)
        for examples, loss in seen.curve(name).items():
            assert loss == pytest.approx(seen.curve("regular")[examples], rel=1e-5)


def test_only_members_that_are_due_are_scored(pack, monkeypatch):
    scored, real = [], loop.evaluate

    def record(base, batches, pack=None):
        scored.append([each.spec.id for each in pack.members] if pack else None)
        return real(base, batches, pack)

    monkeypatch.setattr(loop, "evaluate", record)
    seen = go(
        pack(
            member("a", until=40, language=4),
            member("b", until=40, language=2, seed=1, validations="end"),
            member("c", until=24, language=2, seed=2, validations="end"),
        )
    )
    packs = [names for names in scored if names]
    alone = [names for names in packs if names == ["a"]]
    assert len(alone) == len([t for t in REGULAR if t < 40 and t != 24])
    assert packs[-1] == ["a", "b"] and sum("c" in names for names in packs) == 1
    rows = {name: seen.result(name).cost.validation_examples for name in "abc"}
    assert rows == {"a": ROWS * (len(seen.curve("a")) - 1), "b": ROWS, "c": ROWS}
    started = ROWS * (None in scored)
    assert seen.pack.cost.validation_examples == sum(rows.values()) + started


def test_scoring_some_members_apart_changes_no_training(pack):
    a, b = member("a", language=4, dropout=0.1), member("b", vision=8, seed=7)
    go(plain := pack(a, b, folder="plain"))
    go(apart := pack(a, b.model_copy(update={"validations": "end"}), folder="apart"))
    for name in "ab":
        for file in ("adapter_model", "optimizer"):
            ours, others = tensors(apart, name, file), tensors(plain, name, file)
            assert ours.keys() == others.keys() and all(bool((ours[key] == others[key]).all()) for key in ours)


@pytest.mark.parametrize("validations", ["regular", "end", "few"])
def test_a_continued_run_has_the_points_of_one_that_was_trained_at_once(pack, validations):
    assert 24 not in REGULAR
    asked = {"language": 4, "validations": validations}
    short = go(pack(member("a", until=24, **asked)))
    assert list(short.curve("a", "train_loss")) == [*up_to(24), 24]
    longer = go(pack(member("a", until=80, **asked)))
    whole = go(pack(member("a", until=80, **asked), folder="whole"))
    assert longer.curve("a", "train_loss") == whole.curve("a", "train_loss")
    ends = {24: short.curve("a")[24]} if validations != "few" else {}  # the look at its first end remains
    assert longer.curve("a") == dict(sorted((whole.curve("a") | ends).items()))
    costs = [each.result("a").cost.validation_examples for each in (short, longer, whole)]
    assert costs[0] + costs[1] == costs[2] + ROWS * len(ends)


def test_a_run_may_be_looked_at_differently_when_it_goes_on(pack):
    go(pack(member("a", until=24, language=4, validations="end")))
    seen = go(pack(member("a", until=80, language=4)))
    assert list(seen.curve("a")) == [0, *sorted({24, *(t for t in REGULAR if 24 < t <= 80), 80})]


def test_the_untouched_model_is_validated_once_for_all_packs(pack, tmp_path, monkeypatch):
    calls, real = [], loop.evaluate

    def record(base, batches, pack=None):
        calls.append(pack is None)
        return real(base, batches, pack)

    monkeypatch.setattr(loop, "evaluate", record)
    folder = {"cache_folder": str(tmp_path / "cache")}
    specs = [pack(member(name, until=16, language=4), folder=name).model_copy(update=folder) for name in "ab"]
    first, second = map(go, specs)
    assert sum(calls) == 1
    assert first.curve("a")[0] == second.curve("b")[0]
    assert first.curve("a", "validation_accuracy")[0] == second.curve("b", "validation_accuracy")[0]
    monkeypatch.setattr(loop, "digest_weights", lambda model: "another model")
    go(pack(member("c", until=16, language=4), folder="c").model_copy(update=folder))
    assert sum(calls) == 2


def test_the_digest_of_weights_changes_with_any_of_them():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    before = evaluate.digest_weights(model)
    assert evaluate.digest_weights(model) == before
    with torch.no_grad():
        model[0].bias[1] += 0.5
    assert evaluate.digest_weights(model) != before


def test_scores_are_kept_exactly(tmp_path):
    scores = evaluate.Scores(torch.rand(1, dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64))
    assert evaluate.read_scores(tmp_path / "none.json") is None
    evaluate.write_scores(tmp_path / "scores.json", scores)
    assert evaluate.read_scores(tmp_path / "scores.json") == scores


def test_rates_of_parts_are_those_of_the_member(pack):
    fixed = member("a", language=4, vision=4, learning_rate=5e-3, part_learning_rates={"vision": 1e-30})
    seen = go(spec := pack(fixed, member("b", language=4, vision=4, learning_rate=5e-3)))
    still, moved = tensors(spec, "a"), tensors(spec, "b")
    ups = [key for key in still if "lora_B" in key and "vision" in key]
    assert ups and all(float(still[key].abs().max()) < 1e-20 for key in ups)
    assert all(float(moved[key].abs().max()) > 1e-4 for key in ups)
    assert seen.curve("a")[80] != seen.curve("b")[80]
