"""Learn the constants of the law of settings from tables of finished runs, and say how well they predict other tasks.

    python benchmarks/fit_setting_law.py TABLES... [--steps 300] [--out src/marslora/laws/setting_law.json]

From every table and seed, studies are drawn: some settings begun, the better ones continued. The constants maximise the
log score of the best losses of all settings, given what such a study measures. A ridge keeps constants that the tables
say little about near plausible values. Each task is left out once, and the score on it is printed beside the score
that the constants reach on their own tables. The task of a table is its name up to the first underscore.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from marslora.core.runs import Run
from marslora.laws import Features, Measurements, make_features
from marslora.laws.setting_features import GROUPS, LOG2_UNIT
from marslora.laws.setting_kernel import (
    MOST_STEPS,
    USUAL_STEPS,
    Points,
    compute_common_covariance,
    compute_mean,
    compute_noise,
    compute_own_covariance,
)
from marslora.laws.setting_law import CONSTANTS_FILE, LOG_AMPLITUDES, load_constants, make_points, weigh_amplitudes
from marslora.replay.simulate import Simulation
from marslora.replay.table import RunTable, find_tables
from marslora.strategies._setting_predictions import make_measurements, predict_best_losses
from marslora.strategies.mars import MarsStrategy

DESIGNS = ((8, 1 / 16, 1 / 6, 0.35), (14, 1 / 10, 0.3, 0.6), (24, 1 / 16, 1 / 4, 0.45), (32, 1 / 20, 1 / 8, 0.3))
"""Studies that are drawn: settings begun, and the shares of a full run to which all, a quarter and two of them go."""
SEARCHED = (0.15, 0.4, 1.0, 2.0)
"""Budgets of the searches whose measurements are learnt from in the second round."""
MIN_POINTS = 5
"""A study with fewer measurements is left out."""
SHIFT_SD = 0.25
"""Studies are made with the middle of the ladder misplaced by this much in the rate's coordinate: half a doubling."""
TERMS = (*GROUPS, "smooth", "own")
LEARNT_LOGS = {
    "slope_sd": 0.3, "walk_sd": 0.2, "decay_sd": 0.1, "time_length": 2.0, "offset_sd": 0.05,
    "rows_sd": 0.5, "row_sd": 0.2, "validation_sd": 0.03, "point_sd": 0.01, "final_sd": 0.01,
    "amplitude_sd": 0.15, "tail_odds": 0.1, "evidence_power": 0.05,
    "length.trained": 1.0, "length.rank": 1.0, "length.rate": 1.0,
    **{f"sd.{term}": {"own": 0.02}.get(term, 0.1) for term in TERMS},
    **{f"gain_sd.{term}": {"smooth": 0.03, "own": 0.02}.get(term, 0.05) for term in TERMS},
}  # fmt: skip
"""Positive constants, with the values that the ridge keeps them near."""
LEARNT = {
    "slope_power": 0.5, "slope": -0.4, "decay": -0.1,
    **{f"growth.{term}": 0.3 for term in TERMS},
    **{f"{kind}.{group}": 0.0 for kind in ("mean", "drift", "bend", "gain") for group in GROUPS},
}  # fmt: skip
"""Constants of either sign, likewise."""
RATE = 0.03
"""Learning rate of Adam, which falls to 0 as a cosine."""
RIDGES = {
    "sd": 40.0,
    "amplitude_sd": 40.0,
    "growth": 2.0,
    "mean": 600.0,
    "drift": 600.0,
    "bend": 600.0,
    "gain": 600.0,
}
"""Weights of the squared departures of constants from their first values, by the start of their names.

There are few tasks, so the means of effects and their scatter stay near those of least squares over the tables.
"""
RIDGE = 0.5
"""The weight of all other constants: noise, the common curve, lengths."""
LEAST_SCATTER = 0.01
"""Least standard deviation of an effect over tables that the ridge starts from."""
LEAST_SPREAD = 0.1
"""Tables whose best losses differ by less between their quartiles say nothing about the shape of effects."""


@dataclass(frozen=True)
class Case:
    """One drawn study: what was measured, and what came."""

    table: str
    task: str
    features: Features
    measured: Measurements
    best_C: np.ndarray
    """Log of the best loss of every setting."""


def draw_cases(tables: Sequence[RunTable], rng: np.random.Generator) -> list[Case]:
    """Studies of every table and seed that measure as `DESIGNS` says."""
    runs = [(s, draw_runs(s, design, rng)) for s in list_simulations(tables) for design in DESIGNS]
    return [case for simulation, own in runs if (case := make_case(simulation, own, rng)) is not None]


def search_cases(tables: Sequence[RunTable], rng: np.random.Generator) -> list[Case]:
    """Studies of every table and seed that measure what `mars` does with the constants as they stand."""
    budgets = [Simulation(s.table, s.seed, budget) for s in list_simulations(tables) for budget in SEARCHED]
    return [case for each in budgets if (case := make_case(each, search_runs(each), rng)) is not None]


def list_simulations(tables: Sequence[RunTable]) -> list[Simulation]:
    return [Simulation(table, seed) for table in tables for seed in table.header.seeds]


def draw_runs(simulation: Simulation, design: tuple[int, float, float, float], rng: np.random.Generator) -> list[Run]:
    """Some settings begun, a quarter continued, two continued further, the better ones by validation loss."""
    problem = simulation.problem
    candidates, lengths = problem.candidates(), problem.list_lengths()
    num, *shares = design
    ends = [max((x for x in lengths if x <= share * problem.full_examples), default=lengths[0]) for share in shares]
    begun = [candidates[c] for c in rng.permutation(len(candidates))[: min(num, len(candidates))]]
    until = dict.fromkeys(begun, ends[0])
    for keep, end in ((max(num // 4, 3), ends[1]), (2, ends[2])):
        members = {each: problem.member(each, problem.num_train, until[each], "fit") for each in begun}
        begun = sorted(begun, key=lambda each: simulation.train(members[each], None).best_loss)[:keep]
        until.update(dict.fromkeys(begun, end))
    few = [problem.member(each, problem.num_train, end, "fit", validations="few") for each, end in until.items()]
    return [simulation.train(member, None) for member in few]


def search_runs(simulation: Simulation) -> list[Run]:
    strategy, runs = MarsStrategy(), dict[str, Run]()
    while members := strategy.propose(simulation.problem, list(runs.values())):
        for member in members:
            runs[member.id] = simulation.train(member, runs.get(member.id))
    return list(runs.values())


def name_task(table: RunTable) -> str:
    return table.header.name.partition("_")[0]


def make_case(simulation: Simulation, runs: Sequence[Run], rng: np.random.Generator) -> Case | None:
    problem, name = simulation.problem, simulation.table.header.name
    measured = make_measurements(problem, runs)
    if len(measured.setting_N) < MIN_POINTS:
        return None
    shifted = (problem.middle_rate or 1.0) * 2 ** (LOG2_UNIT * SHIFT_SD * rng.normal())
    num_steps = problem.full_examples / problem.batch_size
    features = make_features(problem.candidates(), problem.space.searched, shifted, num_steps)
    losses = [simulation._find_lowest_loss(each, simulation.seed) for each in problem.candidates()]
    return Case(name, name_task(simulation.table), features, measured, np.log(np.array(losses)))


def estimate_means(tables: Sequence[RunTable]) -> dict[str, float]:
    """First values of the means and their scatter: least squares over all settings at every point of every table.

    For each group of features the coefficients are then regressed on time and length; what is left is the scatter.
    """
    rows: dict[str, list[tuple[float, tuple[float, ...], float]]] = {group: [] for group in GROUPS}
    for simulation in list_simulations(tables):
        problem, index = simulation.problem, simulation._run_index
        runs = [index[each, problem.num_train, simulation.seed] for each in problem.candidates()]
        steps = problem.full_examples / problem.batch_size
        features = make_features(problem.candidates(), problem.space.searched, problem.middle_rate, steps)
        design = np.concatenate([np.ones((len(runs), 1)), features.value_CF], axis=1)
        curves = np.array(
            [np.interp(problem.list_lengths(), run.examples, np.log(run.validation_loss)) for run in runs]
        )
        best = np.log([min(run.validation_loss) for run in runs])
        if np.subtract(*np.quantile(best, [0.75, 0.25])) < LEAST_SPREAD:
            continue
        lengths = problem.list_lengths()
        seen = [*((length, curves[:, k], 0.0) for k, length in enumerate(lengths[:-1])), (lengths[-1], best, 1.0)]
        for length, loss_C, final in seen:
            clock = math.log(length / problem.full_examples * min(steps, MOST_STEPS) / USUAL_STEPS)
            weights = np.linalg.lstsq(design, loss_C, rcond=None)[0][1:].tolist()
            for group, weight in zip(features.group_F, weights, strict=True):
                rows[group].append((steps, (1.0, clock, clock**2, final), weight))
    return {name: value for group, own in rows.items() if own for name, value in _regress(group, own).items()}


def _regress(group: str, rows: Sequence[tuple[float, tuple[float, ...], float]]) -> dict[str, float]:
    """Means of a group by weighted least squares from (weight, powers of time and whether final, coefficient) rows."""
    trust, powers, value = (np.array(each) for each in zip(*rows, strict=True))
    trusted = powers.T * (trust / trust.mean())
    means = np.linalg.solve(trusted @ powers + np.diag([0.1, 0.1, 0.1, 1.0]), trusted @ value)
    names = [f"{kind}.{group}" for kind in ("mean", "drift", "bend", "gain")]
    scatter = max(float(np.std(value - powers @ means)), LEAST_SCATTER)
    return {**dict(zip(names, means.tolist(), strict=True)), f"sd.{group}": scatter}


def start_constants(estimated: Mapping[str, float]) -> dict[str, Tensor]:
    known = {**LEARNT_LOGS, **LEARNT, **estimated}
    logs = {name: math.log(value) if name in LEARNT_LOGS else value for name, value in known.items()}
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in logs.items()}


def read_constants(free: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.exp() if name in LEARNT_LOGS else value for name, value in free.items()}


def compute_ridge(free: Mapping[str, Tensor], centres: Mapping[str, Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for name, value in free.items():
        centre = centres[name]
        weight = RIDGES.get(name.partition(".")[0], RIDGE)
        total = total + weight * (value - centre) ** 2
    return total


def score(constants: Mapping[str, Tensor], case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Log densities: of all best losses together and of each alone, per setting; of the measurements, per point."""
    numbers = {name: float(value) for name, value in constants.items()}
    points = make_points(case.features, case.measured, numbers)
    length_D = torch.stack([constants[f"length.{scale}"] for scale in case.features.scale_D])
    values = {each.name: torch.as_tensor(getattr(points, each.name), dtype=torch.float64) for each in fields(Points)}
    place = np.concatenate([case.features.place_CD[case.measured.setting_N], case.features.place_CD])
    points = Points(**{**values, "place_ND": torch.as_tensor(place) / length_D})
    group_F, num = case.features.group_F, len(case.measured.setting_N)
    common_N, own_N = compute_mean(constants, group_F, points)
    rest_NN = compute_common_covariance(constants, points, torch) + compute_noise(constants, points, torch)
    own_NN = compute_own_covariance(constants, group_F, points, torch)
    seen_N, best_C = torch.as_tensor(case.measured.log_loss_N), torch.as_tensor(case.best_C)
    a_A = torch.tensor(LOG_AMPLITUDES, dtype=torch.float64).exp()[:, None]
    mean_AN = common_N + a_A * own_N
    covariance_ANN = rest_NN + a_A[:, :, None] ** 2 * own_NN
    root_ANN = torch.linalg.cholesky(covariance_ANN[:, :num, :num])
    across_ANC = torch.linalg.solve_triangular(root_ANN, covariance_ANN[:, :num, num:], upper=False)
    white_AN1 = torch.linalg.solve_triangular(root_ANN, (seen_N - mean_AN[:, :num])[:, :, None], upper=False)
    prior_A = torch.stack(weigh_amplitudes(constants)).log()
    likelihood_A = _log_density(white_AN1, root_ANN)
    weight_A = torch.log_softmax(constants["evidence_power"] * likelihood_A + prior_A, dim=0)
    error_AC = best_C - mean_AN[:, num:] - (across_ANC.mT @ white_AN1)[:, :, 0]
    covariance_ACC = covariance_ANN[:, num:, num:] - across_ANC.mT @ across_ANC
    root_ACC = torch.linalg.cholesky(covariance_ACC)
    together_A = _log_density(torch.linalg.solve_triangular(root_ACC, error_AC[:, :, None], upper=False), root_ACC)
    sd_AC = covariance_ACC.diagonal(dim1=1, dim2=2).sqrt()
    alone_AC = -((error_AC / sd_AC) ** 2) / 2 - sd_AC.log()
    return (
        torch.logsumexp(weight_A + together_A, dim=0) / len(case.best_C),
        torch.logsumexp(weight_A[:, None] + alone_AC, dim=0).mean(),
        torch.logsumexp(likelihood_A + prior_A, dim=0) / num,
    )


def _log_density(white_AN1: Tensor, root_ANN: Tensor) -> Tensor:
    """Log densities of Gaussian vectors, up to a constant, from their whitened values and covariances' roots: (A,)."""
    return -(white_AN1**2).sum(dim=(1, 2)) / 2 - root_ANN.diagonal(dim1=1, dim2=2).log().sum(dim=1)


def learn(
    cases: Sequence[Case], steps: int, seed: int, start: Mapping[str, Tensor], centres: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Adam on the mean of both scores over random batches of cases, with a ridge around first values.

    Studies of longer runs are drawn more often, in proportion to their steps: they are more like those of users.
    """
    rng, began = np.random.default_rng(seed), time.monotonic()
    weight_S = np.array([case.features.num_steps for case in cases])
    free = {name: value.detach().clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(list(free.values()), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        batch = rng.choice(len(cases), size=min(8, len(cases)), replace=False, p=weight_S / weight_S.sum())
        constants = read_constants(free)
        scores = [score(constants, cases[index]) for index in batch]
        together, alone, seen = (torch.stack(each).mean() for each in zip(*scores, strict=True))
        (-(together + alone + seen) / 2 + compute_ridge(free, centres) / (4 * len(cases))).backward()
        torch.nn.utils.clip_grad_norm_(list(free.values()), 5.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            seconds, values = (
                time.monotonic() - began,
                [round(float(each.detach()), 3) for each in (together, alone, seen)],
            )
            print(f"  step {step}: {values}, {seconds:.0f} s", flush=True)
    return {name: value.detach() for name, value in free.items()}


def evaluate(free: Mapping[str, Tensor], cases: Sequence[Case]) -> dict[str, float]:
    with torch.no_grad():
        constants = read_constants(free)
        scores = [[float(each) for each in score(constants, case)] for case in cases]
    means = np.mean(scores, axis=0).round(3).tolist()
    return dict(zip(("together", "alone", "measured"), means, strict=True))


def save(path: Path, free: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    constants = {name: float(f"{float(value):.4g}") for name, value in read_constants(free).items()}
    path.write_text(json.dumps({"about": dict(about), "constants": constants}, indent=1) + "\n")


def read_start(path: Path) -> dict[str, Tensor]:
    """The constants of a file, as they are learnt."""
    known = {**LEARNT_LOGS, **LEARNT, **json.loads(path.read_text())["constants"]}
    logs = {n: math.log(v) if n in LEARNT_LOGS else v for n, v in known.items()}
    return {n: torch.tensor(v, dtype=torch.float64) for n, v in logs.items()}


def leave_out(task: str, tables: Sequence[RunTable], cases: Sequence[Case], steps: int, out: Path) -> dict[str, float]:
    """Learn without a task; the score on it."""
    others, own = [c for c in cases if c.task != task], [c for c in cases if c.task == task]
    centres = start_constants(estimate_means([each for each in tables if name_task(each) != task]))
    without = learn(others, steps, 1, centres, centres)
    scores = evaluate(without, own)
    print(f"{task} left out: {scores}", flush=True)
    save(out / f"{task}.json", without, {"left_out": task, "score": scores})
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path, help="Parquet files, or folders of them.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=CONSTANTS_FILE)
    parser.add_argument("--left-out", type=Path, help="Folder for the constants learnt without each task.")
    parser.add_argument("--start", action="store_true", help="Begin at the constants in --out.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tables, rng = find_tables(given.tables), np.random.default_rng(0)
    cases = draw_cases(tables, rng)
    centres = start_constants(estimate_means(tables))
    print("first values", evaluate(centres, cases), flush=True)
    free = learn(cases, given.steps, 0, read_start(given.out) if given.start else centres, centres)
    save(CONSTANTS_FILE, free, {})
    for cache in (load_constants, predict_best_losses):
        cache.cache_clear()
    cases += search_cases(tables, rng)
    free = learn(cases, given.steps, 0, free, centres)
    names = sorted({case.table for case in cases})
    about: dict[str, object] = {"tables": names, "studies": len(cases), "score": evaluate(free, cases)}
    print(about, flush=True)
    save(given.out, free, about)
    if given.left_out:
        given.left_out.mkdir(parents=True, exist_ok=True)
        tasks = sorted({case.task for case in cases})
        left_out = {task: leave_out(task, tables, cases, given.steps, given.left_out) for task in tasks}
        save(given.out, free, {**about, "left_out": left_out})


if __name__ == "__main__":
    main()
