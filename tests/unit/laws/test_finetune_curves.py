"""The laws on 30 real fine-tuning curves (Lin et al. 2024), where their file is at hand."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from benchmarks.laws_in_data import PowerLaw, RectifiedLaw

from marslora.core.decision import LawPoint

FILE = Path(os.environ.get("MARSLORA_FINETUNE_CURVES", "missing"))
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="MARSLORA_FINETUNE_CURVES names no file")
LAST_SEEN = 51_200


def curves():
    with FILE.open() as file:
        header, *rows = csv.reader(file)
    columns = [(column, float(name)) for column, name in enumerate(header) if name.isdigit() and float(name) > 0]
    for row in rows:
        yield [
            LawPoint(run=row[0], inputs={"data": size}, measured=float(row[column]), predicted=float("nan"))
            for column, size in columns
        ]


@pytest.mark.slow
def test_the_rectified_law_describes_every_curve_and_extrapolates_better_than_a_power():
    fitted, ahead = [], {"rectified": [], "power": []}
    laws = {kind.name: kind(kind.Config(num_bootstraps=0)) for kind in (RectifiedLaw, PowerLaw)}
    for points in curves():
        fitted.append(laws["rectified"].fit(points))
        for name, law in laws.items():
            fit = law.fit([point for point in points if point.inputs["data"] <= LAST_SEEN])
            errors = [
                abs(np.log(law.predict(fit, point.inputs) / point.measured))
                for point in points
                if point.inputs["data"] > LAST_SEEN
            ]
            ahead[name] += errors
    assert len(fitted) == 30
    assert [fit.status for fit in fitted] == ["converged"] * 30
    assert np.mean([fit.residual for fit in fitted]) <= 0.008
    assert np.median(ahead["rectified"]) < 0.5 * np.median(ahead["power"])
