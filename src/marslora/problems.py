"""What keeps a decision from being relied on, and what to change: runs are missing, diverged, or do not decide.

A search that ends with such a problem says it before anything else, and its command exits with `EXIT_UNSETTLED`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from marslora.core.corners import describe_corners
from marslora.core.decision import DecisionRecord
from marslora.core.parts import ModelInfo
from marslora.core.runs import Run
from marslora.core.spec import StudySpec, TrainingSpec

MOST_NAMED = 5
"""Runs that a sentence names at most."""


def complete_summary(decision: DecisionRecord, runs: Sequence[Run], spec: StudySpec, info: ModelInfo) -> DecisionRecord:
    """The decision with its problems, with which its summary begins, the parts that no gradient reaches, and its
    corners, for whichever strategy."""
    problems = find_problems(decision, runs, spec.calibration)
    sentences = (*problems, decision.summary, info.describe_unreached(spec.trained_parts))
    space = info.leave_unreached(spec.space)
    corners = describe_corners(decision.setting, space, spec.learning_rates, spec.search.max_rank)
    summary = " ".join(filter(None, sentences))
    return decision.model_copy(update={"problems": problems, "summary": summary, "corners": corners})


def find_problems(decision: DecisionRecord, runs: Sequence[Run], training: TrainingSpec) -> tuple[str, ...]:
    """A sentence or two for each reason not to rely on ``decision``, each with what to do; empty if there is none."""
    return tuple(_iterate_problems(decision, runs, training))


def has_measured(runs: Sequence[Run]) -> bool:
    """Whether any of the runs ended with a finite loss; also if nothing was to be measured."""
    return not runs or any(run.last_examples and run.last_loss < float("inf") for run in runs)


def _iterate_problems(decision: DecisionRecord, runs: Sequence[Run], training: TrainingSpec) -> Iterator[str]:
    missing = [run.member.id for run in runs if run.status == "failed"]
    if missing:
        yield (
            f"{len(missing)} of {len(runs)} runs are missing ({_name_some(missing)}): they failed twice, and the "
            "choice was made without them. The messages above say why; run the same command again to train them."
        )
    diverged = [run for run in runs if run.status == "diverged"]
    if diverged and not has_measured(runs):
        yield (
            f"{len(diverged)} of {len(runs)} runs diverged and none can be used, so nothing was measured and no "
            f"adapter is trained. Lower the learning rate (--lr, now {training.learning_rate:g}) or raise --warmup "
            f"(now {training.warmup:g})."
        )
    elif runs and decision.verdict == "fallback" and len(decision.candidates) > 1:
        yield (
            f"The runs do not decide between the {len(decision.candidates)} candidates: {decision.fallback}. Give a "
            "larger budget (--budget), or fewer ranks (--ranks)."
        )


def _name_some(names: Sequence[str]) -> str:
    more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
