"""Warm-up, stable, decay, and when to look: the same for a calibration run and the final run it may become."""

from __future__ import annotations

import math

from marslora.core.errors import ConfigError
from marslora.core.spec import TrainingSpec

FIRST_SHARE = 1 / 256
"""Of a full run: nothing is measured before."""


def num_steps(examples: int, batch_size: int) -> int:
    """Optimizer steps that see ``examples`` examples, the last one possibly a shorter batch."""
    return math.ceil(examples / batch_size)


def rate_factor(step: int, total_steps: int, training: TrainingSpec, *, decays: bool) -> float:
    """What the learning rate is multiplied by at optimizer step ``step`` (from 0) of a full run of ``total_steps``.

    It rises linearly over the first ``training.warmup`` of the run, then is 1; where ``decays``, it falls linearly
    over the last ``training.decay`` of the run, so that the step after the last one would have 0. Calibration runs do
    not decay: they are the beginning of a full run, comparable at every length (arXiv 2405.18392).
    """
    warmup_steps = math.ceil(training.warmup * total_steps)
    decay_steps = math.ceil(training.decay * total_steps)
    rising = (step + 1) / warmup_steps if step < warmup_steps else 1.0
    falling = (total_steps - step) / (decay_steps + 1) if decays and decay_steps else 1.0
    return max(0.0, min(1.0, rising, falling))


def evaluation_steps(total_steps: int, evaluations: int) -> tuple[int, ...]:
    """The steps of a full run after which validation is measured: to the last, even in the logarithm.

    They begin with `FIRST_SHARE` and the second step: what is seen before tells allocations apart the least and would
    cost the most, a whole validation every few steps. Small runs have fewer points than asked, because two of them
    would fall on one step.
    """
    if total_steps < 1:
        return ()
    first = min(max(math.ceil(FIRST_SHARE * total_steps), 2), total_steps)
    shares = (index / (evaluations - 1) for index in range(evaluations))
    return tuple(sorted({round(first * (total_steps / first) ** share) for share in shares} | {total_steps}))


def final_evaluation_steps(total_steps: int, evaluations: int) -> tuple[int, ...]:
    """The same for a final run, but evenly spaced after the beginning: its best point, which is kept, may come late."""
    even = [math.ceil(index * total_steps / evaluations) for index in range(1, evaluations + 1)]
    early = [step for step in evaluation_steps(total_steps, evaluations) if step < even[0]]
    return tuple(dict.fromkeys([*early, *even])) if total_steps else ()


def full_examples(training: TrainingSpec, num_train: int) -> int:
    """Examples seen by a full run over ``num_train`` training rows, whole batches.

    Raises `ConfigError` for a batch that holds more than all rows and than what was asked for.
    """
    asked = training.examples or round(training.epochs * num_train)
    if training.batch_size > max(asked, num_train):
        raise ConfigError(
            f"`batch_size` is {training.batch_size}, more than the {num_train} training rows and the {asked} examples "
            "of a full run. Lower it."
        )
    return max(1, round(asked / training.batch_size)) * training.batch_size
