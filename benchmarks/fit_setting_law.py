"""Learn the constants of the law of settings from tables of finished runs.

    python benchmarks/fit_setting_law.py TABLES... [--rounds 4] [--left-out benchmarks/left_out]

The law (`marslora.laws.setting_law`) has parameters that differ from study to study, and constants: the means and
scatter of the parameters, and the sizes of departures and errors. Both are learnt in turn, by maximum likelihood:

1. For every table and seed the parameters are fitted to all its curves. Their means and variances over the tables are
   the next prior, every task counting the same. The variances include the uncertainty of each fit, and are enlarged for
   the number of tasks as the variance of a prediction is.
2. Given these, the sizes of departures and errors maximise the likelihood of the curves of `NUM_SETTINGS` settings
   that are drawn from those within `RELEVANT` of the best one by the fitted curve: the others decide nothing.

With ``--left-out`` this is repeated without each task, for benchmarks that judge by that task. The task of a table is
its name up to the first underscore. Tables whose optimizer is not AdamW are left out: their ladders of learning rates
end below the best rate.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from marslora.core.arrays import Array
from marslora.core.schedule import num_steps
from marslora.core.training import TrainingSpec
from marslora.laws.setting_curve import Times
from marslora.laws.setting_features import Features, make_features
from marslora.laws.setting_kernel import Points, compute_departures, compute_noise, compute_surprise
from marslora.laws.setting_law import CONSTANTS_FILE, MOST_LEFT, Measurements, Study, fit_setting_law, make_points
from marslora.replay.simulate import Simulation
from marslora.replay.table import RunTable, find_tables
from marslora.strategies._reference import find_reference
from marslora.strategies._setting_predictions import make_measurements

FIRST_PRIOR = {
    "centre": (0.0, 0.35), "gap": (2.0, 1.0), "sharpness": (0.0, 0.5), "tail": (0.0, 0.7), "onset": (-1.5, 1.0),
    "rate_power": (-0.2, 0.2),
    "time_power": (0.0, 0.2), "base": (-1.0, 1.0), "limit": (1.2, 0.5), "excess": (-0.7, 0.7),
    "heat_limit": (1.0, 0.5), "heat": (-2.0, 0.7), "hot_power": (0.5, 0.2), "rank_power.language": (0.5, 0.3),
    "untrained.language": (0.5, 0.5), "drag.language": (0.0, 0.1), "share.tower": (-1.0, 1.0),
    "rank_power.tower": (0.5, 0.3), "untrained.tower": (0.1, 0.5), "drag.tower": (0.0, 0.1),
    "hot_share.tower": (-0.5, 0.5),
}  # fmt: skip
"""Mean and standard deviation of every parameter before any table is seen: wide, and soon forgotten."""
FIXED = ("centre",)
"""Parameters whose prior stays: all tables are of one model, whose best learning rate is known. The rates that are best
for other models at one rank scatter by a factor of 1.5 or more (23 published sweeps, `benchmarks/lora_sweeps.py`)."""
SIZES = {
    "walk_sd": 0.003, "level_sd": 0.02, "smooth_sd": 0.03, "own_sd": 0.03, "length": 1.0, "time_length": 1.0,
    "offset_sd": 0.05, "rows_sd": 0.4, "row_sd": 0.3,
    "validation_sd": 0.04, "point_sd": 0.03, "heat_sd": 1.0,
}  # fmt: skip
"""First values of the sizes of departures and errors."""
SURPRISES = {"common_final_sd": 0.1, "smooth_final_sd": 0.03, "own_final_sd": 0.03}
"""First values of the sizes of what no short run foretells of the best losses."""
RELEVANT = 0.5
"""Log loss above the best setting up to which a setting's departures count."""
BEGUN, SHARES = (2, 13), (0.1, 0.6)
"""Studies that are drawn: between how many settings are begun, and between which shares of a full run they go."""
ARRAYS = tuple(each.name for each in fields(Measurements) if each.name.endswith("_N"))
"""Names of the arrays of measurements."""
SHRINKAGE = 0.6
"""Share of the correlations between parameters that is not believed: there are more parameters than tasks.

The mean log likelihood of tasks that were left out was 1.76 at 0.3, 1.94 at 0.6, 1.93 at 0.7 and 1.83 at 0.9.
"""
NESTED_ROUNDS = 3
"""Rounds of learning the prior without a task, from that of all, before its studies are predicted."""
NUM_STUDIES = 16
"""Studies of each task from which the sizes of what no short run foretells are learnt."""
STEPS, RATE = 120, 0.05
"""Steps of Adam in each round, and its learning rate, which falls as a cosine."""


@dataclass(frozen=True)
class Case:
    """One seed of one table: all its curves at a constant learning rate, and the best losses of its full runs."""

    task: str
    features: Features
    measured: Measurements
    reference_best: bool
    """Whether the reference setting has the lowest best loss."""


def list_cases(tables: Sequence[RunTable]) -> list[Case]:
    return [
        make_case(Simulation(table, seed))
        for table in tables
        for seed in table.header.seeds
        if "muon" not in table.header.name
    ]


def make_case(simulation: Simulation) -> Case:
    """Every validation and training loss before the decay, as a search would take them, and every best loss."""
    problem = simulation.problem
    candidates = problem.candidates()
    last = max(t for t in problem.list_lengths() if t <= (1 - TrainingSpec().decay) * problem.full_examples)
    members = [problem.member(each, problem.num_train, last, "fit", validations="regular") for each in candidates]
    measured = make_measurements(problem, [simulation.train(member, None) for member in members], sys.maxsize)
    best_C = np.array([simulation._find_lowest_loss(each, simulation.seed) for each in candidates])
    one_C = np.ones(len(candidates))
    added = (np.arange(len(candidates)), 0 * one_C, np.log(best_C), 0 * one_C, -one_C.astype(int), one_C, one_C)
    measured = Measurements(
        *(np.concatenate([getattr(measured, name), more]) for name, more in zip(ARRAYS, added, strict=True)),
        log_start=measured.log_start,
    )
    parts = [part for part in problem.space.parts if part in problem.space.searched]
    length = num_steps(problem.full_examples, problem.batch_size)
    features = make_features(candidates, parts, problem.centre_rate, length)
    task = simulation.table.header.name.partition("_")[0]
    return Case(task, features, measured, bool(best_C.argmin() == find_reference(problem)))


def start_constants() -> dict[str, Any]:
    mean, sd = zip(*FIRST_PRIOR.values(), strict=True)
    prior = {"parameters": list(FIRST_PRIOR), "mean": list(mean), "covariance": np.diag(np.square(sd)).tolist()}
    return {"num_tasks": 5, **SIZES, **dict.fromkeys(SURPRISES, 0.01), **prior}


def learn_prior(cases: Sequence[Case], constants: Mapping[str, Any]) -> dict[str, Any]:
    """The means and the covariance of the parameters over the tables, every task counting the same."""
    values, covariances = defaultdict(list), defaultdict(list)
    for case in cases:
        study = Study(case.features, case.measured, constants)
        mode = study.find_mode(1.0)
        root_PP = solve_triangular(mode.root_PP, study.prior.root_PP.T, lower=True)
        values[case.task].append(study.prior.place(mode.phi_P, 1.0))
        covariances[case.task].append(root_PP.T @ root_PP)
    mean_P = np.mean([np.mean(own, axis=0) for own in values.values()], axis=0)
    mean_P[[list(FIRST_PRIOR).index(name) for name in FIXED]] = [FIRST_PRIOR[name][0] for name in FIXED]
    scatter_TPP = [np.mean([np.outer(v - mean_P, v - mean_P) for v in own], axis=0) for own in values.values()]
    covariance_PP = np.mean(scatter_TPP, axis=0)
    covariance_PP += np.mean([np.mean(own, axis=0) for own in covariances.values()], axis=0)
    covariance_PP = (1 - SHRINKAGE) * covariance_PP + SHRINKAGE * np.diag(np.diag(covariance_PP))
    return dict(constants) | {"num_tasks": len(values), "mean": mean_P.tolist(), "covariance": _fix(covariance_PP)}


def _fix(covariance_PP: Array) -> list[list[float]]:
    """The covariance in which parameters of `FIXED` keep their own variance, and are independent of the others."""
    for name in FIXED:
        p = list(FIRST_PRIOR).index(name)
        covariance_PP[p], covariance_PP[:, p] = 0.0, 0.0
        covariance_PP[p, p] = FIRST_PRIOR[name][1] ** 2
    fixed: list[list[float]] = covariance_PP.tolist()
    return fixed


@dataclass(frozen=True)
class Linear:
    """The curves of one case near its own best parameters."""

    case: Case
    error_N: Tensor
    """Measured minus predicted log losses, at the means of the prior, if the curves were linear in the parameters."""
    slope_NP: Tensor
    """Slopes of the curves in prior standard deviations."""
    relevant: Array
    """Settings within `RELEVANT` of the best one by the fitted curves."""


def linearise(case: Case, constants: Mapping[str, Any]) -> Linear:
    study = Study(case.features, case.measured, constants)
    phi_P = study.find_mode(1.0).phi_P
    nearby_SP = phi_P + np.concatenate([np.zeros((1, len(phi_P))), 1e-4 * np.eye(len(phi_P))])
    log_loss_SN = study.predict(study.prior.place(nearby_SP, 1.0), study.times)
    slope_NP = (log_loss_SN[1:] - log_loss_SN[0]).T / 1e-4
    size = len(case.features.log_rate_C)
    final_C = study.predict(study.prior.place(phi_P[None], 1.0), Times(np.arange(size), np.zeros(size), np.ones(size)))[
        0
    ]
    error_N = case.measured.log_loss_N - log_loss_SN[0] + slope_NP @ phi_P
    return Linear(
        case, torch.as_tensor(error_N), torch.as_tensor(slope_NP), np.flatnonzero(final_C < final_C.min() + RELEVANT)
    )


def measure_score(
    sizes: Mapping[str, Tensor], linear: Linear, begun: Sequence[int], share: float, constants: Mapping[str, Any]
) -> Tensor:
    """Log density of the best losses of the relevant settings, given curves of some up to a share of a full run.

    The mean of the density of all together and of each alone, per setting.
    """
    measured = linear.case.measured
    keep = np.isin(measured.setting_N, begun) & (measured.is_final_N == 0) & (measured.log_share_N <= math.log(share))
    keep_N = np.flatnonzero(keep)
    given = replace(measured, **{name: getattr(measured, name)[keep_N] for name in ARRAYS})
    points, num = make_points(linear.case.features, given, constants), len(keep_N)
    asked_N = np.concatenate([np.arange(num), num + linear.relevant])
    values = {each.name: torch.as_tensor(getattr(points, each.name)) for each in fields(Points)}
    points = Points(**{n: v[asked_N][:, asked_N] if n.endswith("_NN") else v[asked_N] for n, v in values.items()})
    place_N = np.concatenate([keep_N, np.flatnonzero(measured.is_final_N == 1)[linear.relevant]])
    slope_NP, error_N = linear.slope_NP[place_N], linear.error_N[place_N]
    covariance_NN = compute_departures(sizes, points, torch) + compute_noise(sizes, points, torch)
    covariance_NN = covariance_NN + compute_surprise({**constants, **sizes}, points, 1.0, torch) + slope_NP @ slope_NP.T
    root_NN = torch.linalg.cholesky(covariance_NN[:num, :num])
    across_NC = torch.linalg.solve_triangular(root_NN, covariance_NN[:num, num:], upper=False)
    white_N1 = torch.linalg.solve_triangular(root_NN, error_N[:num, None], upper=False)
    left_C1 = error_N[num:, None] - across_NC.T @ white_N1
    covariance_CC = covariance_NN[num:, num:] - across_NC.T @ across_NC
    root_CC = torch.linalg.cholesky(covariance_CC)
    white_C1 = torch.linalg.solve_triangular(root_CC, left_C1, upper=False)
    together = -(white_C1**2).sum() / 2 - root_CC.diagonal().log().sum()
    sd_C = covariance_CC.diagonal().sqrt()
    alone = -((left_C1[:, 0] / sd_C) ** 2 / 2 + sd_C.log()).sum()
    return (together + alone) / (2 * len(left_C1))


def maximise(first: Mapping[str, float], score: Callable[[dict[str, Tensor]], Tensor]) -> dict[str, float]:
    """Positive numbers that maximise a score, by Adam on their logarithms from their first values."""
    free = {name: torch.tensor(math.log(value), requires_grad=True) for name, value in first.items()}
    optimizer = torch.optim.Adam(list(free.values()), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        reached = score({name: value.exp() for name, value in free.items()})
        optimizer.zero_grad()
        (-reached).backward()
        optimizer.step()
        schedule.step()
        if step % 40 == 39:
            print(f"  step {step + 1}: {float(reached.detach()):.3f}", flush=True)
    return {name: float(value.detach().exp()) for name, value in free.items()}


def learn_sizes(cases: Sequence[Case], constants: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The sizes of departures and errors by the mean score of studies, every task counting the same."""
    rng = np.random.default_rng(seed)
    linears = [linearise(case, constants) for case in cases]
    tasks = [case.task for case in cases]
    weight_T = np.array([1 / tasks.count(task) for task in tasks])

    def score(sizes: dict[str, Tensor]) -> Tensor:
        picked = rng.choice(len(linears), size=8, p=weight_T / weight_T.sum())
        drawn = [_draw_study(len(linears[t].case.features.log_rate_C), rng) for t in picked]
        scores = [measure_score(sizes, linears[t], *own, constants) for t, own in zip(picked, drawn, strict=True)]
        return torch.stack(scores).mean()

    return dict(constants) | maximise({name: constants[name] for name in SIZES}, score)


def learn_surprises(cases: Sequence[Case], constants: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The sizes of what no short run foretells, by the likelihood of the best losses of `NUM_STUDIES` studies a task.

    Each task is predicted by the prior that the others have.
    """
    rng, outcomes = np.random.default_rng(seed), []
    for task in sorted({case.task for case in cases}):
        own, others = [each for each in cases if each.task == task], [each for each in cases if each.task != task]
        without = constants
        for _ in range(NESTED_ROUNDS):
            without = learn_prior(others, without)
        without = enlarge(without)
        outcomes += [measure_outcome(own[rng.integers(len(own))], without, rng) for _ in range(NUM_STUDIES)]
    known = {name: torch.tensor(value) for name, value in constants.items() if isinstance(value, float)}

    def score(sizes: dict[str, Tensor]) -> Tensor:
        scores = []
        for points, left, error_C, covariance_CC in outcomes:
            root_CC = torch.linalg.cholesky(covariance_CC + compute_surprise(known | sizes, points, left, torch))
            white_C1 = torch.linalg.solve_triangular(root_CC, error_C[:, None], upper=False)
            scores.append(-((white_C1**2).sum() / 2 + root_CC.diagonal().log().sum()) / len(error_C))
        return torch.stack(scores).mean()

    return dict(constants) | maximise(SURPRISES, score)


def _draw_study(num: int, rng: np.random.Generator) -> tuple[list[int], float]:
    """Settings that a study begins, and how far it trains them, as a share of a full run."""
    begun = rng.permutation(num)[: rng.integers(*BEGUN)]
    return sorted(begun.tolist()), float(np.exp(rng.uniform(*np.log(SHARES))))


def measure_outcome(
    case: Case, constants: Mapping[str, Any], rng: np.random.Generator
) -> tuple[Points, float, Tensor, Tensor]:
    """One drawn study: points of settings that may be best, the log time left, errors of the law, its covariance."""
    begun, share = _draw_study(len(case.features.log_rate_C), rng)
    measured = case.measured
    before = (measured.is_final_N == 0) & (measured.log_share_N <= math.log(share))
    keep_N = np.flatnonzero(before & np.isin(measured.setting_N, begun))
    given = replace(measured, **{name: getattr(measured, name)[keep_N] for name in ARRAYS})
    log_loss_SC = np.minimum(fit_setting_law(case.features, given, constants).draw(500, rng), measured.log_start)
    mean_C = log_loss_SC.mean(axis=0)
    relevant = np.flatnonzero(mean_C < mean_C.min() + RELEVANT)
    asked = np.flatnonzero(measured.is_final_N == 1)[relevant]
    final = replace(measured, **{name: getattr(measured, name)[asked] for name in ARRAYS})
    points, num = make_points(case.features, final, constants), len(relevant)
    values = {each.name: getattr(points, each.name) for each in fields(Points)}
    cut = {n: v[:num, :num] if n.endswith("_NN") else v[:num] for n, v in values.items()}
    error_C = final.log_loss_N - mean_C[relevant]
    covariance_CC = np.cov(log_loss_SC[:, relevant].T).reshape(num, num) + 1e-6 * np.eye(num)
    tensors = Points(**{name: torch.as_tensor(value) for name, value in cut.items()})
    left = float(min(-given.log_share_N.max(initial=-MOST_LEFT), MOST_LEFT))
    return tensors, left, torch.as_tensor(error_C), torch.as_tensor(covariance_CC)


def count_references(cases: Sequence[Case]) -> float:
    """The share of tasks in which the reference is best, by the rule of succession; a task counts by its tables."""
    by_task = defaultdict(list)
    for case in cases:
        by_task[case.task].append(case.reference_best)
    return float((sum(np.mean(own) for own in by_task.values()) + 1) / (len(by_task) + 2))


def learn(cases: Sequence[Case], rounds: int) -> dict[str, Any]:
    constants, began = start_constants(), time.monotonic()
    for number in range(rounds):
        constants = learn_prior(cases, constants)
        print(f"round {number + 1} of {rounds}: {time.monotonic() - began:.0f} s", flush=True)
    constants = learn_sizes(cases, constants, 0)
    print(f"sizes: {time.monotonic() - began:.0f} s", flush=True)
    constants = learn_surprises(cases, constants, 1)
    print(f"surprises: {time.monotonic() - began:.0f} s", flush=True)
    constants["reference_best"] = count_references(cases)
    return {name: _round(value) for name, value in enlarge(constants).items()}


def enlarge(constants: Mapping[str, Any]) -> dict[str, Any]:
    """The prior of a further task: its variance is larger than that over the few tasks that there are."""
    enlarged = (constants["num_tasks"] + 1) / (constants["num_tasks"] - 1)
    return dict(constants) | {"covariance": _fix(enlarged * np.array(constants["covariance"]))}


def _round(value: Any) -> Any:
    """Numbers to six significant digits, also in lists."""
    if isinstance(value, list):
        return [_round(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def save(path: Path, constants: Mapping[str, Any], about: Mapping[str, object]) -> None:
    path.write_text(json.dumps({"about": dict(about), "constants": dict(constants)}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path, help="Parquet files, or folders of them.")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=CONSTANTS_FILE)
    parser.add_argument("--left-out", type=Path, help="Folder for the constants learnt without each task.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    tables = find_tables(given.tables)
    cases = list_cases(tables)
    names = sorted(table.header.name for table in tables if "muon" not in table.header.name)
    save(given.out, learn(cases, given.rounds), {"tables": names})
    if given.left_out:
        given.left_out.mkdir(parents=True, exist_ok=True)
        for task in sorted({case.task for case in cases}):
            print(f"without {task}", flush=True)
            others = [case for case in cases if case.task != task]
            save(given.left_out / f"{task}.json", learn(others, given.rounds), {"left_out": task})


if __name__ == "__main__":
    main()
