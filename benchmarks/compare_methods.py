"""Methods at equal trainable parameters on the embedded task `both`, each at its better learning rate of two.

    python benchmarks/compare_methods.py --folder FOLDER [--json benchmarks/compare_methods.json] [--decision STUDY]
    python benchmarks/compare_methods.py --folder FOLDER --equal compute --rates 3e-3 --json ..._compute.json

Rules, fixed before running: LoRA of rank 16 in every part is the reference; ranks of the others are scaled to its count
of trainable parameters. Half of the task's full run (1,200 examples), three seeds, no dropout, the same rows and order.
Every method is trained at 1e-3, the task's own learning rate, and at 3e-3; the better one by mean validation loss
counts, and the test rows decide. Parts have learning rates of their own only where that is the method. Everything else
is the recipe's. Intervals are Student's 90 % over seeds, differences paired by seed. With --decision, LoRA at the
ranks that a study decided for takes part as `mars_ranks`; what the study cost is not in its row. With --equal compute
all ranks are 16 and examples are scaled until training, and what comes before it, cost as many operations.

A run that is in FOLDER already is not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import marslora
from marslora.comparison.summary import compute_student_interval, summarise_differences
from marslora.core.comparison import Comparison, MethodSummary

RATES = (1e-3, 3e-3)
METHODS: list[str | dict] = [
    "uniform",
    {"recipe": "differential_rates", "name": "vision, projector rate / 10"},
    {"recipe": "uniform", "name": "vision rate x 3", "rate_factors": {"vision": 3.0}},
    {"recipe": "asymlora", "rate_factors": {}},
    {"recipe": "llava_mole", "rate_factors": {}},
    "adalora",
    "geolora",
    "eva",
    "moka",
    "dora",
]
SETTINGS = {"examples": 1200, "evaluations": 6, "dropout": 0.0}


def of(comparison: Comparison, name: str) -> MethodSummary:
    return next(method for method in comparison.methods if method.name == name)


def row(found: dict[float, Comparison], name: str, reference: MethodSummary | None) -> dict:
    """One method: losses at every rate, and everything else at the better one."""
    entries = {rate: of(comparison, name) for rate, comparison in found.items()}
    rate = min(entries, key=lambda each: entries[each].validation_loss.value if entries[each].results else float("inf"))
    best = entries[rate]
    if not best.results:
        return {"method": name, "error": best.error or best.runs[0].error}
    difference = summarise_differences(best.results, reference.results, "test_loss") if reference else None
    return {
        "method": name,
        "source": best.source,
        "ranks": best.allocation.as_dict(),
        "examples": best.examples,
        "planned_parameters": best.num_planned,
        "trained_parameters": best.num_trainable,
        "learning_rate": rate,
        "test_loss": {
            f"{each:g}": [one.test_loss for one in entry.results.values()] for each, entry in entries.items()
        },
        "validation_loss": {
            f"{each:g}": [one.validation_loss for one in entry.results.values()] for each, entry in entries.items()
        },
        "best_test_loss": best.test_loss.model_dump(),
        "best_test_accuracy": best.test_accuracy.model_dump(),
        "difference": difference and difference.model_dump(),
        "seconds": best.cost.seconds,
        "flops": best.cost.flops,
        "peak_bytes": best.cost.peak_bytes,
    }


def table(rows: list[dict]) -> str:
    """Markdown, lowest test loss first."""
    done = sorted((each for each in rows if "error" not in each), key=lambda each: each["best_test_loss"]["value"])
    flops = next(each for each in rows if each["method"] == "uniform")["flops"]
    rates = " | ".join(f"test loss at {rate}" for rate in done[0]["test_loss"])
    lines = [f"| method | rank | examples | parameters | {rates} | best minus uniform's | operations |"]
    lines.append("|---|---|---:|---:|" + "---:|" * (len(done[0]["test_loss"]) + 2))
    for each in done:
        ranks = list(dict.fromkeys(each["ranks"].values()))
        losses = [_mean(values) for values in each["test_loss"].values()]
        difference = each["difference"]
        apart = (
            f"{difference['value']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})" if difference else ""
        )
        name = ranks[0] if len(ranks) == 1 else " / ".join(map(str, each["ranks"].values()))
        cells = [
            each["method"],
            name,
            f"{each['examples']:,}",
            f"{each['trained_parameters']:,}",
            *losses,
            apart,
            f"{each['flops'] / flops:.2f}",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, *(f"{each['method']}: {each['error']}" for each in rows if "error" in each)])


def _mean(values: list[float]) -> str:
    if not values:
        return "-"
    found = compute_student_interval(values)
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where runs are kept")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--decision", help="a study of the same task")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--equal", choices=["parameters", "compute"], default="parameters")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    given = parser.parse_args()
    methods = list(METHODS)
    if given.decision:
        methods.append({"recipe": "mars_ranks", "options": {"decision": given.decision}})
    found = {
        rate: marslora.compare(
            demo="both",
            methods=methods,
            ranks=16,
            seeds=range(given.seeds),
            equal=given.equal,
            training={**SETTINGS, "learning_rate": rate},
            out=given.folder / f"rate-{rate:g}",
        )
        for rate in given.rates
    }
    first = found[given.rates[0]]
    names = [method.name for method in first.methods]
    reference = row(found, names[0], None)
    counts = of(found[reference["learning_rate"]], names[0])
    rows = [reference, *(row(found, name, counts) for name in names[1:])]
    settings = {
        **SETTINGS,
        "equal": given.equal,
        "rates": given.rates,
        "seeds": given.seeds,
        "task": "both",
        "reference": names[0],
    }
    base = {"base_test_loss": first.base_test_loss, "versions": first.versions, "device": first.device}
    given.json.write_text(json.dumps({"settings": settings, **base, "methods": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
