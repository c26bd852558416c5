"""The laws on 30 real fine-tuning curves: how well they describe them, and how well they see ahead.

    python benchmarks/laws_flan.py flan.csv [--out benchmarks/laws_flan.json]

The file holds test losses of 30 pre-trained language models after fine-tuning on 200 to 1,638,400 examples of FLAN
(github.com/linhaowei1/Fine-tuning-Scaling-Law, Apache-2.0; Lin et al. 2024, arXiv 2402.02314). Two questions: the root
mean square log error of a law fitted to a whole curve, averaged over curves; and, fitted up to 51,200 examples, the
absolute log error at the five larger sizes.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from laws_in_data import PowerLaw, RectifiedLaw

from marslora.core.decision import LawPoint
from marslora.laws import AbstractLaw

LAST_SEEN = 51_200


def read(path: Path) -> dict[str, list[LawPoint]]:
    """The points of each model's curve, without the loss before fine-tuning."""
    with path.open() as file:
        header, *rows = csv.reader(file)
    columns = [(column, float(name)) for column, name in enumerate(header) if name.isdigit() and float(name) > 0]
    return {
        row[0]: [
            LawPoint(run=row[0], inputs={"data": size}, measured=float(row[column]), predicted=float("nan"))
            for column, size in columns
        ]
        for row in rows
    }


def measure(law: AbstractLaw, curves: dict[str, list[LawPoint]]) -> dict[str, Any]:
    """The figures of one law."""
    start = time.process_time()
    whole = [law.fit(points, name) for name, points in curves.items()]
    ahead: dict[float, list[float]] = {}
    statuses = []
    for name, points in curves.items():
        fit = law.fit([point for point in points if point.inputs["data"] <= LAST_SEEN], name)
        statuses.append(fit.status)
        for point in points:
            if (size := point.inputs["data"]) > LAST_SEEN:
                ahead.setdefault(size, []).append(abs(float(np.log(law.predict(fit, point.inputs) / point.measured))))
    return {
        "num_curves": len(curves),
        "in_sample_mean_log_rmsd": float(np.mean([fit.residual for fit in whole])),
        "in_sample_max_log_rmsd": float(np.max([fit.residual for fit in whole])),
        "num_converged": sum(fit.status == "converged" for fit in whole),
        "num_converged_on_prefix": statuses.count("converged"),
        "largest_gradient_in_standard_errors": float(np.max([fit.gradient for fit in whole])),
        "ahead_median_log_error": float(np.median(np.concatenate(list(ahead.values())))),
        "ahead_median_log_error_by_size": {f"{size:.0f}": float(np.median(found)) for size, found in ahead.items()},
        "cpu_seconds": time.process_time() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curves", type=Path, help="the CSV file of the curves")
    parser.add_argument("--out", type=Path, help="where the result is also written")
    arguments = parser.parse_args()
    curves = read(arguments.curves)
    result = {law.name: measure(law(law.Config(num_bootstraps=0)), curves) for law in (RectifiedLaw, PowerLaw)}
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
