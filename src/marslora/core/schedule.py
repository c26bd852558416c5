"""The learning-rate schedule (warm-up, stable, decay) and the validation points of a run.

Both are the same for a calibration run and for the final run that continues it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from marslora.core.errors import ConfigError
from marslora.core.spec import MAX_VALIDATION_SHARE, VALIDATION_WORK, MemberSpec, TrainingSpec

ADAMW_BETAS = (0.9, 0.999)
"""Of AdamW where they are not set."""
FIRST_SHARE = 1 / 256
"""The first validation point, as a share of a full run. A convention: earlier losses hardly differ between
allocations."""


def num_steps(examples: int, batch_size: int) -> int:
    """The number of optimizer steps for ``examples`` examples; the last batch may be smaller."""
    return math.ceil(examples / batch_size)


def rate_factor(step: int, total_steps: int, training: TrainingSpec, *, decays: bool) -> float:
    """The factor on the learning rate at optimizer step ``step`` (from 0) of a full run of ``total_steps`` steps.

    It rises linearly over the share ``training.warmup`` of the run and is then 1. If ``decays``, it falls linearly
    over the last share ``training.decay`` and would reach 0 one step after the end. Calibration runs do not decay:
    they are the beginning of a full run, and so comparable at every length (arXiv 2405.18392).
    """
    warmup_steps = math.ceil(training.warmup * total_steps)
    decay_steps = math.ceil(training.decay * total_steps)
    rising = (step + 1) / warmup_steps if step < warmup_steps else 1.0
    falling = (total_steps - step) / (decay_steps + 1) if decays and decay_steps else 1.0
    return max(0.0, min(1.0, rising, falling))


def evaluation_steps(total_steps: int, evaluations: int) -> tuple[int, ...]:
    """The steps of a full run after which to validate, ``evaluations`` of them, evenly spaced in the logarithm.

    The first is at `FIRST_SHARE` of the run, but not before the second step: the first losses hardly differ between
    allocations, and each would cost a whole validation. Short runs have fewer points, at most one per step.
    """
    if total_steps < 1:
        return ()
    first = min(max(math.ceil(FIRST_SHARE * total_steps), 2), total_steps)
    shares = (index / (evaluations - 1) for index in range(evaluations))
    return tuple(sorted({round(first * (total_steps / first) ** share) for share in shares} | {total_steps}))


def few_evaluation_steps(steps: Sequence[int], batch_size: int, num_validation: int) -> tuple[int, ...]:
    """Those of ``steps`` at which all validations so far take at most `MAX_VALIDATION_SHARE` of the operations."""
    kept: list[int] = []
    for step in steps:
        validating = VALIDATION_WORK * num_validation * (len(kept) + 1)
        if validating <= MAX_VALIDATION_SHARE * (step * batch_size + validating):
            kept.append(step)
    return tuple(kept)


def list_regular_points(training: TrainingSpec, full_examples: int) -> tuple[int, ...]:
    """The examples seen at the regular points of a full run, at which training losses are recorded."""
    steps = evaluation_steps(num_steps(full_examples, training.batch_size), training.evaluations)
    return tuple(step * training.batch_size for step in steps)


def list_validations(
    member: MemberSpec, training: TrainingSpec, full_examples: int, num_validation: int
) -> tuple[int, ...]:
    """The examples after which a member is validated on ``num_validation`` rows, as `MemberSpec.validations` says."""
    size, until = training.batch_size, member.until_examples
    points = list_regular_points(training, full_examples)
    regular = [examples for examples in points if examples <= until]
    if member.validations == "few":
        few = few_evaluation_steps([examples // size for examples in points], size, num_validation)
        return tuple(examples for examples in regular if examples // size in few)
    return tuple(dict.fromkeys([*(regular if member.validations == "regular" else ()), until]))


def final_evaluation_steps(total_steps: int, evaluations: int) -> tuple[int, ...]:
    """Like `evaluation_steps`, but evenly spaced after the beginning, since the final run's best point may be late."""
    even = [math.ceil(index * total_steps / evaluations) for index in range(1, evaluations + 1)]
    early = [step for step in evaluation_steps(total_steps, evaluations) if step < even[0]]
    return tuple(dict.fromkeys([*early, *even])) if total_steps else ()


def count_final_validations(training: TrainingSpec, full_examples: int) -> int:
    """How often a final run is validated after its start."""
    return len(final_evaluation_steps(num_steps(full_examples, training.batch_size), training.evaluations))


def full_examples(training: TrainingSpec, num_train: int) -> int:
    """The number of examples that a full run sees, rounded to whole batches.

    Raises `ConfigError` if a batch is larger than both the training set and the requested number of examples.
    """
    requested = training.examples or round(training.epochs * num_train)
    if training.batch_size > max(requested, num_train):
        raise ConfigError(
            f"`batch_size` must be at most {max(requested, num_train)}, since there are {num_train} training rows and "
            f"a full run has {requested} examples; found {training.batch_size}. Lower it, or give more rows."
        )
    return max(1, round(requested / training.batch_size)) * training.batch_size


def make_training_arguments(training: TrainingSpec, examples: int, seed: int) -> dict[str, Any]:
    """Keyword arguments of `transformers.TrainingArguments` for a run of ``examples`` examples, as a final run is.

    The learning rate follows `rate_factor`, one step later while it rises.
    """
    total_steps = num_steps(examples, training.batch_size)
    decay_steps = math.ceil(training.decay * total_steps)
    shape = {"num_decay_steps": decay_steps, "decay_type": "linear"}
    arguments = {
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "warmup_stable_decay" if decay_steps else "constant_with_warmup",
        "lr_scheduler_kwargs": shape if decay_steps else {},
        "warmup_steps": math.ceil(training.warmup * total_steps),
        "max_steps": total_steps,
        "per_device_train_batch_size": max(1, training.batch_size // training.accumulation),
        "gradient_accumulation_steps": training.accumulation,
        "gradient_checkpointing": training.gradient_checkpointing,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.clip_norm,
        "seed": seed,
    }
    if training.optimizer.name != "adamw":
        return arguments
    betas = training.optimizer.options.get("betas", ADAMW_BETAS)
    named = {
        "adam_beta1": betas[0],
        "adam_beta2": betas[1],
        "adam_epsilon": training.optimizer.options.get("eps", 1e-8),
    }
    return {**arguments, **named}
