"""The promise of a search, compared with its own final run: the contents of ``promise.json``."""

from __future__ import annotations

from marslora.core.decision import DecisionRecord, Interval
from marslora.core.record import Record
from marslora.core.runs import FinalResult, MetricResult
from marslora.core.setting import Setting


class Promise(Record):
    """The predicted loss of the chosen setting, and the loss of the final run that trained it."""

    strategy: str
    setting: Setting
    predicted: Interval
    """The predicted validation loss at the best point of the final run, in nats per answer token."""
    ended: float
    """The validation loss of the final run at its best point, in nats per answer token."""
    is_kept: bool
    """Whether ``ended`` lies in the interval."""
    metric: MetricResult | None = None
    """What a metric said of the final run, if one chose its point; nothing was predicted of it."""

    @property
    def excess(self) -> float:
        """How far ``ended`` lies above the interval, in nats; negative below it and 0 inside."""
        return max(self.ended - self.predicted.high, 0.0) + min(self.ended - self.predicted.low, 0.0)


def check_promise(decision: DecisionRecord, final: FinalResult) -> Promise | None:
    """Compare the prediction for the chosen setting with the final run; None if the strategy predicted no loss."""
    predicted, ended = decision.chosen_candidate.predicted_loss, final.reached_loss
    if predicted is None:
        return None
    return Promise(
        strategy=decision.strategy,
        setting=decision.setting,
        predicted=predicted,
        ended=ended,
        is_kept=predicted.low <= ended <= predicted.high,
        metric=final.metric,
    )
