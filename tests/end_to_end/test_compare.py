"""A comparison on the embedded model, from the command line to the page."""

import json
import sys

import pytest

import marslora
from marslora import cli, recipes
from marslora.core import plugins
from marslora.core.allocation import Allocation
from marslora.core.comparison import Comparison
from marslora.core.decision import Candidate, DecisionRecord

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


def logit_size(outputs, batch):
    """A second objective."""
    return outputs.logits.float().square().mean()


@pytest.mark.slow
def test_every_recipe_trains(tmp_path):
    decision = tmp_path / "decision.json"
    chosen = Allocation.of(vision=8, projector=2, language=4)
    candidate = Candidate(allocation=chosen, status="chosen", reason="")
    decision.write_text(
        DecisionRecord(strategy="s", chosen=chosen, verdict="clear", summary="", candidates=(candidate,)).to_json()
    )
    special = {
        "mars_ranks": {"options": {"decision": str(decision)}},
        "pareto_lora": {
            "training": {
                "objectives": [
                    {"name": "answers", "rows": "all"},
                    {"name": "size", "function": "tests.end_to_end.test_compare:logit_size", "weight": 1e-3},
                ]
            }
        },
    }
    names = ["uniform", *(name for name in plugins.names(recipes) if name != "uniform")]
    found = marslora.compare(
        demo="small",
        methods=[{"recipe": name, **special.get(name, {})} for name in names],
        seeds=(0,),
        ranks=4,
        training={"examples": 32, "evaluations": 2, "learning_rate": 1e-3, "batch_size": 8},
        data={"max_validation": 16, "max_examples": 32, "test": []},
        out=tmp_path / "c",
    )
    assert [(each.name, each.error, [run.error for run in each.runs]) for each in found.methods] == [
        (name, "", [""]) for name in names
    ]
    counted = {each.name: each.num_planned for each in found.methods if each.num_trainable != each.num_planned}
    assert set(counted) <= {"eva", "geolora"}, counted  # their ranks move
    reference = found.reference.num_planned
    assert all(abs(each.num_planned / reference - 1) < 0.3 for each in found.methods)
