"""A training wing without torch: two parts whose runs follow known power laws, for tests of the thinking wing."""

import math
import os
import random
from pathlib import Path

from marslora.core.files import write_text
from marslora.core.parts import LinearInfo, ModelInfo, PartInfo
from marslora.core.runs import (
    Cost,
    CountResult,
    DataSummary,
    Failure,
    FinalResult,
    MemberResult,
    Observation,
    PackResult,
    Prepared,
    ProgressEvent,
)

BEST = {"vision": 4, "language": 16}
BEST_RATE, TOO_HIGH = 1e-3, 0.1
"""The best learning rate, and the least at which runs diverge at once."""
INFO = ModelInfo(
    architecture="FakeLlava",
    modalities=("image", "text"),
    num_parameters=3000,
    parts=tuple(
        PartInfo(
            name=name,
            paths=(name,),
            num_parameters=1000,
            linears=(LinearInfo(name=f"{name}.layers.0.q_proj", inputs=32, outputs=32),),
        )
        for name in ("vision", "projector", "language")
    ),
)
PREPARED = Prepared(
    info=INFO, data=DataSummary(num_train=512, num_validation=64, num_test=64, fingerprint="f"), device="cpu"
)


def prepare(spec, emit):
    emit(PREPARED)


def loss(allocation, examples, seed, rate=BEST_RATE):
    """A bowl in log rank around `BEST` and in log rate around `BEST_RATE`, a power law in examples, a little noise."""
    ranks = {part: allocation.get(part) for part in BEST}
    bowl = sum(0.05 * math.log2(max(rank, 0.5) / BEST[part]) ** 2 for part, rank in ranks.items())
    noise = random.Random(f"{ranks}{examples}{seed}").gauss(0, 0.002)
    bowl += 0.1 * math.log2(rate / BEST_RATE) ** 2 if examples else 0.0
    return 0.3 + bowl + 2.0 * (1 + examples / 40) ** -0.8 + noise


def run_pack(spec, emit):
    for member in spec.members:
        if os.environ.get("FAKE_DIE_AT") == member.id:
            raise KeyboardInterrupt
        rate = member.learning_rate or BEST_RATE
        points = [0, *(2**n for n in range(4, 20) if 2**n < member.until_examples), member.until_examples]
        if rate >= TOO_HIGH:
            emit(Observation(member=member.id, examples=0, metric="validation_loss", value=2.3))
            emit(MemberResult(member=member.id, status="diverged", examples=16, message="loss became NaN"))
            continue
        looks = points if member.validations == "regular" else {0, member.until_examples}
        for examples in points:
            value = loss(member.allocation, examples, member.seed, rate)
            if examples in looks:
                emit(Observation(member=member.id, examples=examples, metric="validation_loss", value=value))
            if examples:
                emit(Observation(member=member.id, examples=examples, metric="train_loss", value=value))
        emit(
            MemberResult(
                member=member.id,
                status="complete",
                examples=member.until_examples,
                cost=Cost(seconds=0.1, examples=member.until_examples, flops=1e6 * member.until_examples),
            )
        )
    emit(PackResult(pack=spec.id, members=(), cost=Cost()))


def run_final(spec, emit):
    value = loss(spec.allocation, spec.full_examples, 0, spec.training.learning_rate)
    write_text(Path(spec.output_folder, "adapter", "weights.json"), "{}")
    emit(
        FinalResult(
            id=spec.id,
            allocation=spec.allocation,
            adapter_folder=f"{spec.output_folder}/adapter",
            num_trainable=INFO.num_trainable(spec.allocation),
            base_validation_loss=loss(spec.allocation.keep_only(), 0, 0),
            base_validation_accuracy=0.1,
            validation_loss=value,
            validation_accuracy=0.9,
            examples=(0, spec.full_examples),
            validation_curve=(3.0, value),
            cost=Cost(seconds=1.0, examples=spec.full_examples, flops=1e6 * spec.full_examples),
        )
    )


def count_parameters(spec, emit):
    """Plain LoRA as it is, hydralora three times as much; llava_mole cannot be counted."""
    name = spec.run.training.adapter.name
    if name == "llava_mole":
        emit(Failure(id=spec.id, error="ConfigError", message="no experts here"))
        return
    factor = 3 if name == "hydralora" else 1
    emit(CountResult(num_trainable=tuple(factor * INFO.num_trainable(each) for each in spec.allocations)))


def count_row_flops(spec, emit):
    """Hydralora takes twice as much a row, eva as much as 128 rows before it begins."""
    name = spec.training.adapter.name
    factor = 2.0 if name == "hydralora" else 1.0
    emit(CountResult(num_trainable=(1,), flops_per_row=1e6 * factor, flops_before=128e6 if name == "eva" else 0.0))


def train(spec, emit):
    """A run of a comparison; adapters named in FAKE_FAIL fail, the run named in FAKE_DIE_AT is interrupted."""
    emit(ProgressEvent(task=spec.id, done=spec.full_examples / 2, total=spec.full_examples))
    if spec.training.adapter.name in os.environ.get("FAKE_FAIL", "").split():
        emit(Failure(id=spec.id, error="OutOfMemoryError", message="no room"))
        return
    if os.environ.get("FAKE_DIE_AT", "never") in spec.output_folder:
        raise KeyboardInterrupt
    value = loss(spec.allocation, spec.full_examples, spec.seed) + 0.01 * spec.seed
    emit(
        FinalResult(
            id=spec.id,
            allocation=spec.allocation,
            adapter_folder=f"{spec.output_folder}/adapter",
            num_trainable=INFO.num_trainable(spec.allocation),
            base_validation_loss=2.0,
            base_validation_accuracy=0.1,
            validation_loss=value,
            validation_accuracy=0.9,
            examples=(0, spec.full_examples),
            validation_curve=(2.0, value),
            cost=Cost(seconds=1.0, examples=spec.full_examples, flops=1e6 * spec.full_examples),
        )
    )
