"""A pruner that stops a trial where the strategy has seen enough of it."""

from __future__ import annotations

from optuna import Study
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from marslora.core.spec import MemberSpec
from marslora.optuna._runs import IS_FINAL, MEMBER


class MarsPruner(BasePruner):
    """Prunes a trial once it has reported as many examples as the strategy asked for, but never the final run."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:  # noqa: ARG002
        """Whether the strategy has seen enough of the trial."""
        if not trial.user_attrs.get(MEMBER) or trial.user_attrs.get(IS_FINAL) or trial.last_step is None:
            return False
        return trial.last_step >= MemberSpec.parse(trial.user_attrs[MEMBER]).until_examples
