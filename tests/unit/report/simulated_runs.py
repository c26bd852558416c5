"""The simulation behind the example studies: a small model, how fast its parts learn, the loss curves of its runs."""

import math

from marslora.core.parts import LinearInfo, ModelInfo, PartInfo
from marslora.core.runs import Cost, Run
from marslora.core.schedule import evaluation_steps
from marslora.core.spec import MemberSpec

FULL = 4096
POINTS = tuple(16 * step for step in evaluation_steps(FULL // 16, 12))


def part(name, linears, width, dead=0):
    layers = tuple(
        LinearInfo(name=f"model.{name}.{index}.proj", inputs=width, outputs=width, dead=index < dead)
        for index in range(linears)
    )
    return PartInfo(name=name, paths=(f"model.{name}",), num_parameters=linears * width * width * 2, linears=layers)


def model(*parts):
    return ModelInfo(
        architecture="LlavaForConditionalGeneration",
        modalities=("image", "text"),
        num_parameters=sum(each.num_parameters for each in parts) + 524288,
        parts=parts,
        unlabelled=("lm_head",),
    )


def time_to_learn(part, rank, data):
    scale, alpha = {"vision": (300.0, 0.35), "language": (900.0, 0.45), "audio": (500.0, 0.25)}.get(part, (400.0, 0.3))
    return 60 + 3 * scale * rank**-alpha * (data / 2048) ** 0.3


def loss_at(allocation, examples, data, effect, rng):
    gone, floor = 0.0, 0.62
    for name, rank in allocation.ranks:
        if rank > 0:
            tau = time_to_learn(name, rank, data)
            gone += (1 - math.exp(-2.3 * examples / tau)) * (0.55 if name == "language" else 0.4)
            best = {"vision": 4, "language": 16}.get(name, 8)
            floor += effect * 0.05 * math.log(rank / best) ** 2 if name != "projector" else 0.0
        else:
            floor += 0.15
    return (2.1 - floor) * math.exp(-1.9 * gone) + floor + 0.004 * rng.standard_normal()


def run(allocation, until, data, effect, rng, seed=0, status="complete"):
    examples = (0, *(point for point in POINTS if point <= until))
    name = "-".join(f"{part}{rank}" for part, rank in allocation.ranks if rank) + f".d{data}.s{seed}"
    return Run(
        member=MemberSpec(id=name, allocation=allocation, data_examples=data, until_examples=until, seed=seed),
        status=status,
        examples=examples,
        validation_loss=tuple(loss_at(allocation, each, data, effect, rng) for each in examples),
        cost=Cost(seconds=until / 400, examples=until),
    )
