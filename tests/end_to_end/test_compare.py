"""A comparison on the embedded model, from the command line to the page."""

import json
import sys

import pytest

import marslora
from marslora import cli
from marslora.core.comparison import Comparison

METHODS = ("uniform", "hydralora:heads=2,rate.projector=0.5")


@pytest.mark.slow
def test_two_methods_on_the_embedded_task(tmp_path, monkeypatch, capsys):
    words = ["compare", "--demo", "small", "--out", str(tmp_path / "c"), "--examples", "128", "--seeds", "0,1"]
    words += [word for method in METHODS for word in ("--method", method)]

    def run():
        monkeypatch.setattr(sys, "argv", ["marslora", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    out = run()
    assert "uniform" in out
    assert "compare.html" in out
    found = Comparison.load(tmp_path / "c" / "compare.json")
    uniform, hydra = found.methods
    assert abs(hydra.num_planned / uniform.num_planned - 1) < 0.1
    assert hydra.num_planned == hydra.num_trainable
    for method in found.methods:
        for result in method.results.values():
            assert result.test_loss < result.base_test_loss
            assert result.cost.examples == 128
            assert result.cost.flops > 0
    assert hydra.training.part_learning_rates == {"projector": pytest.approx(hydra.training.learning_rate / 2)}
    for seed, result in uniform.results.items():
        assert result.base_test_loss == hydra.results[seed].base_test_loss
    text = run()
    assert "Training" not in text
    assert json.loads((tmp_path / "c" / "compare.json").read_text())["equal"] == "parameters"


@pytest.mark.slow
def test_from_python_at_equal_compute(tmp_path):
    found = marslora.compare(
        demo="small",
        methods=["uniform", {"recipe": "moka", "ranks": 8}],
        seeds=(0,),
        equal="compute",
        training={"examples": 64, "evaluations": 2},
        out=tmp_path / "c",
    )
    uniform, moka = found.methods
    assert uniform.examples == 64
    assert moka.examples * moka.flops_per_row == pytest.approx(64 * uniform.flops_per_row, rel=0.15)
    assert (tmp_path / "c" / "compare.html").exists()
