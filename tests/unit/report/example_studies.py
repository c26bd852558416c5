"""Example studies with known laws: what a search would have left in its folder, made without training."""

import functools
import itertools
import math
from dataclasses import replace

import numpy as np

from marslora.core.allocation import Allocation, Space
from marslora.core.decision import Candidate, ClosedForm, DecisionRecord, Interval
from marslora.core.runs import Cost, DataSummary, FinalResult
from marslora.core.setting import Setting
from marslora.core.spec import StudySpec
from marslora.laws.convergence import ConvergenceLaw, make_points
from marslora.laws.performance import PerformanceLaw
from marslora.laws.performance import make_points as loss_points
from marslora.report.data import ReportData
from tests.unit.report.simulated_runs import FULL, POINTS, loss_at, model, part, run, time_to_learn

CONVERGENCE = ConvergenceLaw(ConvergenceLaw.Config(num_bootstraps=30))
PERFORMANCE = PerformanceLaw(PerformanceLaw.Config(num_bootstraps=30, forms=("multiplicative", "additive")))
LADDER = (1, 4, 16, 64)
SNIPPET = """# LoRA ranks that marslora chose for LlavaForConditionalGeneration: vision 4, projector 16, language 16.
from peft import LoraConfig

lora_config = LoraConfig(
    r=16,
    lora_alpha=32,
    lora_dropout=0.0,
    target_modules=r"model\\.(language_model|vision_tower|multi_modal_projector)\\..*",
    rank_pattern={r"^model\\.vision_tower\\..*": 4},
    alpha_pattern={r"^model\\.vision_tower\\..*": 8},
)
"""


def interval(value, width):
    return Interval(value=value, low=value - width, high=value + width)


def candidate(allocation, searched, chosen, probability, effect, width, rng, info, joint):
    times = {part: interval(time_to_learn(part, allocation[part], 2048), 40.0) for part in searched}
    logs = [math.log(each.value) for each in times.values()]
    imbalance = max(logs) - min(logs)
    seen = joint.get(allocation)
    dropped = imbalance > 0.75 or probability < 0.004
    status = "chosen" if allocation == chosen else "dropped" if dropped else "kept"
    reasons = {
        "chosen": "lowest expected loss among the balanced allocations",
        "kept": "balanced, but expected to end higher",
        "dropped": f"the parts would converge a factor of {math.exp(imbalance):.1f} apart"
        if imbalance > 0.75
        else "almost certainly not the best",
    }
    quiet = np.random.default_rng(0)
    value = loss_at(allocation, FULL, 2048, effect, quiet)
    return Candidate(
        allocation=allocation,
        status=status,
        reason=reasons[status],
        num_trainable=info.num_trainable(allocation),
        convergence_examples=times,
        imbalance=interval(imbalance, 0.1),
        predicted_loss=interval(value, width),
        observed_loss=seen.last_loss if seen else None,
        observed_examples=seen.last_examples if seen else None,
        p_best=probability,
        expected_regret=max(0.0, value - 0.62) * 0.3,
    )


def make_study_data(ladders, searched, *, effect=1.0, width=0.07, verdict="clear", chosen=None, seed=0):
    """The whole study: part runs, candidate runs, fitted laws, a decision, a final run."""
    rng = np.random.default_rng(seed)
    info = model(
        part("vision", 12, 64, dead=2),
        *([part("audio", 8, 64)] if "audio" in ladders else []),
        part("projector", 2, 96),
        part("language", 28, 96),
    )
    space = Space.of(ladders)
    spec = StudySpec.parse(
        {
            "model": {"path": "studies/tiny-llava"},
            "data": {"train": ["train.jsonl"], "test": ["test.jsonl"]},
            "space": space.model_dump(),
            "training": {"examples": FULL, "learning_rate": 1e-3},
        }
    )
    zero = Allocation.of(dict.fromkeys(space.parts, 0))
    solo = {
        name: [
            run(zero.replace(**{name: rank}), 2560 if rank > 1 else 512, data, effect, rng)
            for rank in ladders[name]
            for data in (512, 2048)
        ]
        for name in searched
    }
    allocations = list(space.allocations())
    joint = [run(each, 256, 2048, effect, rng) for each in allocations[::3]]
    laws = [CONVERGENCE.fit(make_points(solo[name], name, horizon=FULL), name) for name in searched]
    laws.append(PERFORMANCE.fit(loss_points(joint, least_examples=32), "allocation"))
    finals = np.array([loss_at(each, FULL, 2048, effect, np.random.default_rng(0)) for each in allocations])
    weight = np.exp(-(finals - finals.min()) / (width * 0.6))
    probability = weight / weight.sum()
    best = allocations[int(finals.argmin())] if chosen is None else chosen
    if best not in [each.member.allocation for each in joint]:
        joint.append(run(best, 256, 2048, effect, rng))
    order = np.argsort(-probability)
    held = np.cumsum(probability[order])
    plausible = tuple(Setting(allocation=allocations[index]) for index in order[: int(np.searchsorted(held, 0.9)) + 1])
    seen = {each.member.allocation: each for each in joint}
    candidates = tuple(
        candidate(each, searched, best, float(p), effect, width, rng, info, seen)
        for each, p in zip(allocations, probability, strict=True)
    )
    runs = [*itertools.chain(*solo.values()), *joint]
    decision = DecisionRecord(
        strategy="mars",
        chosen=best,
        verdict=verdict,
        summary=f"{best} is expected to end lowest; its parts converge together.",
        candidates=candidates,
        plausible=plausible,
        laws=tuple(laws),
        closed_forms=(
            ClosedForm(part="vision", given="language", given_rank=16, rank=5.1, status="solved"),
            ClosedForm(part="vision", given="language", given_rank=64, rank=None, status="no_real_solution"),
        ),
        continue_run=next(each.member.id for each in joint if each.member.allocation == best),
        calibration=Cost(seconds=21.5, examples=6144, flops=3.1e12, peak_bytes=900 * 2**20),
        calibration_full_runs=0.61,
        assumptions=(
            "The learning rate is right for every rank (alpha/r is constant).",
            "Noise is alike across ranks.",
        ),
        next_steps=("Run three more seeds of vision=4 language=16.", "Try a learning rate twice as high."),
    )
    curve = tuple(point for point in POINTS if point > 256)
    final = FinalResult(
        id="studies/tiny-llava/final",
        allocation=best,
        adapter_folder="studies/tiny-llava/final/adapter",
        num_trainable=info.num_trainable(best),
        base_validation_loss=2.1,
        base_validation_accuracy=0.312,
        validation_loss=0.655,
        validation_accuracy=0.843,
        test_loss=0.671,
        test_accuracy=0.838,
        base_test_loss=2.13,
        base_test_accuracy=0.305,
        examples=curve,
        validation_curve=tuple(loss_at(best, each, 2048, effect, rng) for each in curve),
        started_at_examples=256,
        cost=Cost(seconds=34.0, examples=FULL - 256, flops=2.0e12, peak_bytes=700 * 2**20),
    )
    return ReportData(
        spec=spec,
        info=info,
        decision=decision,
        runs=runs,
        final=final,
        full_examples=FULL,
        summary=DataSummary(num_train=2048, num_validation=256, num_test=256, answer_tokens=6.4, tokens=51.0),
        device="cpu (2 threads)",
        versions={"marslora": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.2"},
        snippet=SNIPPET,
    )


def clear():
    """Two parts, four by four, one clear winner, and a uniform run to compare with."""
    data = make_study_data({"vision": LADDER, "projector": (16,), "language": LADDER}, ("vision", "language"))
    even = data.decision.chosen.replace(vision=14, language=14)
    uniform = data.final.model_copy(
        update={
            "allocation": even,
            "num_trainable": data.num_trainable(even),
            "validation_loss": 0.683,
            "started_at_examples": 0,
            "validation_curve": tuple(v + 0.03 for v in data.final.validation_curve),
        }
    )
    return replace(data, uniform=uniform)


def three_parts():
    """Three searched parts: too many for a map."""
    ladder = (2, 8, 32)
    ladders = {"vision": ladder, "audio": ladder, "projector": (8,), "language": ladder}
    return make_study_data(ladders, ("vision", "audio", "language"), width=0.03)


def one_part():
    """Only the language model's rank is searched."""
    return make_study_data({"vision": (8,), "projector": (16,), "language": (1, 4, 16, 64)}, ("language",))


def null():
    """Rank does not matter: the cheapest allocation is taken."""
    cheapest = Allocation.of(vision=1, projector=16, language=1)
    ladders = {"vision": LADDER, "projector": (16,), "language": LADDER}
    return make_study_data(
        ladders, ("vision", "language"), effect=0.0, width=0.2, verdict="indistinguishable", chosen=cheapest
    )


def failed():
    """A law that failed, runs that diverged, rows that were skipped, and a fallback."""
    data = make_study_data(
        {"vision": LADDER, "projector": (16,), "language": LADDER},
        ("vision", "language"),
        verdict="fallback",
        chosen=Allocation.of(vision=16, projector=16, language=16),
    )
    vision, *others = data.decision.laws
    broken = CONVERGENCE.make_failed_fit("vision", "only 1 of 8 runs converged: train longer", vision.points)
    runs = [
        each.model_copy(update={"status": "diverged"}) if index in (1, 9) else each
        for index, each in enumerate(data.runs)
    ]
    bare = tuple(
        each.model_copy(update={"p_best": None, "convergence_examples": {}, "imbalance": None})
        for each in data.decision.candidates
    )
    decision = data.decision.model_copy(
        update={
            "laws": (broken, *others),
            "candidates": bare,
            "plausible": (),
            "summary": "Law-C of vision could not be fitted, so the habitual uniform rank 16 was taken.",
            "fallback": "uniform rank 16, because the law of vision failed",
        }
    )
    bad = data.summary.model_copy(update={"num_bad": 3, "bad_rows": ("train.jsonl:17: image cat.png is missing",)})
    return replace(data, decision=decision, runs=runs, summary=bad)


def no_final():
    """Decided, not trained."""
    return replace(make_example("clear"), final=None, uniform=None)


RATES = (4.2e-4, 8.5e-4, 1.7e-3, 3.4e-3, 6.8e-3)


def loss_with_rate(allocation, rate):
    """A full run: the vision tower hardly helps, more rank helps the language model, and wants a smaller rate."""
    best = 1.7e-3 * (16 / allocation["language"]) ** 0.4
    tower = -0.005 if allocation["vision"] == 16 else 0.04 * (allocation["vision"] == 64)
    return 0.7 - 0.03 * math.log(allocation["language"] / 16) + 0.12 * math.log(rate / best) ** 2 + tower


def rates():
    """Ranks and learning rates, and a vision tower that may be left as it is."""
    data = make_example("clear")
    space = Space.of({"vision": (0, 4, 16, 64), "projector": (16,), "language": (4, 16, 64)})
    settings = [
        Setting(allocation=each, learning_rate=rate, part_learning_rates=own)
        for each in space.allocations()
        for rate in RATES
        for own in ((), (("vision", 3 * rate),))
        if each["vision"] or not own
    ]
    finals = np.array([loss_with_rate(s.allocation, s.learning_rate) for s in settings])
    finals += 0.01 * np.array([len(s.part_learning_rates) for s in settings])
    weight = np.exp(-(finals - finals.min()) / 0.01)
    chances = weight / weight.sum()
    order = [int(index) for index in np.argsort(-chances)]
    best, held = settings[order[0]], int(np.searchsorted(np.cumsum(chances[order]), 0.9)) + 1
    candidates = tuple(
        Candidate(
            allocation=setting.allocation,
            learning_rate=setting.learning_rate,
            part_learning_rates=dict(setting.part_learning_rates),
            status="chosen" if setting == best else "kept" if chance > 0.01 else "dropped",
            reason="lowest expected loss" if setting == best else "expected to end higher",
            num_trainable=data.info.num_trainable(setting.allocation),
            predicted_loss=interval(float(value), 0.03),
            p_best=float(chance),
            expected_regret=float(value - finals.min()),
        )
        for setting, value, chance in zip(settings, finals, chances, strict=True)
    )
    decision = DecisionRecord(
        strategy="mars",
        chosen=best.allocation,
        learning_rate=best.learning_rate,
        part_learning_rates=dict(best.part_learning_rates),
        verdict="clear",
        summary=f"{best} is expected to end lowest.",
        candidates=candidates,
        plausible=tuple(settings[index] for index in order[:held]),
        calibration=data.decision.calibration,
        calibration_full_runs=0.61,
    )
    runs = [
        each.model_copy(update={"member": each.member.model_copy(update={"learning_rate": rate, "id": f"run{index}"})})
        for index, (each, rate) in enumerate(
            itertools.product([run for run in data.runs if len(run.member.allocation.active) == 3][:3], RATES[1:4])
        )
    ]
    spec = data.spec.model_copy(
        update={"space": space, "learning_rates": RATES, "part_rate_factors": {"vision": (1.0, 3.0)}}
    )
    final = data.final.model_copy(update={"allocation": best.allocation})
    return replace(data, spec=spec, decision=decision, runs=runs, final=final, uniform=None)


EXAMPLES = {each.__name__: each for each in (clear, three_parts, one_part, null, failed, no_final, rates)}


@functools.cache
def make_example(name):
    """Return one of the example studies; each is made once."""
    return EXAMPLES[name]()
