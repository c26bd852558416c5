"""A search is measured against its own prediction."""

import pytest

from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate, DecisionRecord, Interval
from marslora.core.promise import Promise, check_promise
from marslora.core.runs import FinalResult

RANKS = Allocation.of(vision=4, language=16)


def decide(predicted):
    chosen = Candidate(allocation=RANKS, learning_rate=1e-3, status="chosen", reason="", predicted_loss=predicted)
    other = chosen.model_copy(update={"learning_rate": 2e-3, "status": "dropped", "predicted_loss": None})
    return DecisionRecord(
        strategy="mars", chosen=RANKS, learning_rate=1e-3, verdict="clear", summary="", candidates=(other, chosen)
    )


def end(loss):
    return FinalResult(
        id="final",
        adapter_folder="",
        allocation=RANKS,
        num_trainable=1,
        base_validation_loss=2.0,
        base_validation_accuracy=0.0,
        validation_loss=loss,
        validation_accuracy=0.5,
    )


@pytest.mark.parametrize(
    ("loss", "is_kept", "excess"),
    [(0.55, True, 0.0), (0.5, True, 0.0), (0.6, True, 0.0), (0.65, False, 0.05), (0.4, False, -0.1)],
)
def test_the_final_run_ends_inside_or_outside(loss, is_kept, excess):
    promise = check_promise(decide(Interval(value=0.54, low=0.5, high=0.6)), end(loss))
    assert promise.is_kept is is_kept and promise.excess == pytest.approx(excess)
    assert (promise.ended, promise.setting.learning_rate) == (loss, 1e-3)
    assert Promise.model_validate_json(promise.to_json()) == promise


def test_without_a_prediction_nothing_was_promised():
    assert check_promise(decide(None), end(0.5)) is None
