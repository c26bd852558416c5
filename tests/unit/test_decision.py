"""What a decision gives to a training script of one's own."""

import pytest
import torch
from transformers import TrainingArguments, get_scheduler

from marslora.core.allocation import Allocation
from marslora.core.decision import Candidate, DecisionRecord
from marslora.core.errors import StudyError
from marslora.core.schedule import rate_factor
from marslora.core.setting import Setting
from marslora.core.spec import TrainingSpec
from marslora.decision import Decision
from marslora.report.markup import escape
from marslora.report.words import write_headline
from marslora.testing.exporters_contract import INFO
from tests.unit.report import example_studies

RANKS = Allocation.of(vision=0, projector=4, language=16)


def decide(tmp_path, rates=None, training=None, **own):
    chosen = {"learning_rate": rates, "part_learning_rates": own}
    record = DecisionRecord(
        strategy="mars",
        chosen=RANKS,
        verdict="clear",
        summary="Clear.",
        candidates=(Candidate(allocation=RANKS, status="chosen", reason="best", **chosen),),
        **chosen,
    )
    spec = record.setting.apply_to(TrainingSpec.parse({"batch_size": 8, **(training or {})}))
    return Decision(record=record, info=INFO, training=spec, full_examples=1600, seed=7, folder=tmp_path)


def construct(decision, tmp_path):
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **decision.training_arguments())


def test_training_arguments_train_as_the_final_run_does(tmp_path):
    options = {
        "accumulation": 2,
        "weight_decay": 0.01,
        "clip_norm": 0.5,
        "optimizer": {"name": "adamw", "options": {"betas": [0.8, 0.95], "eps": 1e-6}},
    }
    found = construct(decide(tmp_path, 1.6e-3, options), tmp_path)
    assert (found.learning_rate, found.max_steps, found.warmup_steps) == (1.6e-3, 200, 6)
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == (4, 2)
    assert (found.weight_decay, found.max_grad_norm, found.seed) == (0.01, 0.5, 7)
    assert (found.adam_beta1, found.adam_beta2, found.adam_epsilon) == (0.8, 0.95, 1e-6)


@pytest.mark.parametrize("shape", [{}, {"decay": 0.0}, {"warmup": 0.0, "decay": 0.5}])
def test_the_learning_rate_takes_the_course_of_the_final_run(tmp_path, shape):
    decision = decide(tmp_path, 1.0, shape)
    arguments = construct(decision, tmp_path)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    scheduler = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=arguments.get_warmup_steps(arguments.max_steps),
        num_training_steps=arguments.max_steps,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
    warmup = max(1, arguments.warmup_steps)
    for step in range(arguments.max_steps):
        wanted = rate_factor(step, arguments.max_steps, decision.training, decays=True)
        assert scheduler.get_last_lr()[0] == pytest.approx(wanted, abs=1.01 / warmup if step < warmup else 0.03)
        optimizer.step()
        scheduler.step()


def test_the_rate_that_was_given_holds_if_none_was_searched(tmp_path):
    assert decide(tmp_path, training={"learning_rate": 5e-4}).learning_rate == 5e-4
    assert construct(decide(tmp_path, training={"learning_rate": 5e-4}), tmp_path).learning_rate == 5e-4


def test_rates_of_parts_are_not_lost_without_a_word(tmp_path):
    decision = decide(tmp_path, 1e-3, {"part_learning_rates": {"projector": 1e-5}}, language=3e-3)
    assert decision.part_learning_rates == {"projector": 1e-5, "language": 3e-3}
    with pytest.warns(UserWarning, match=r"need groups of parameters: .*'language': 0\.003"):
        decision.training_arguments()


def test_trl_takes_the_same_arguments(tmp_path):
    trl = pytest.importorskip("trl")
    decision = decide(tmp_path, 1e-3, {"optimizer": "muon"})
    arguments = trl.SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **decision.training_arguments())
    assert arguments.learning_rate == 1e-3 and "adam_beta1" not in decision.training_arguments()


def test_a_setting_without_a_rate_changes_no_training():
    training = TrainingSpec(learning_rate=5e-4)
    assert Setting(allocation=RANKS).apply_to(training) == training


def decide_example(name, folder):
    data = example_studies.make_example(name)
    training = data.decision.setting.apply_to(data.spec.training)
    return Decision(
        record=data.decision, info=data.info, training=training, full_examples=100, seed=0, folder=folder, data=data
    )


@pytest.mark.parametrize("name", sorted(example_studies.EXAMPLES))
def test_a_notebook_shows_the_verdict_a_table_and_a_picture(name, tmp_path):
    decision = decide_example(name, tmp_path)
    view = decision._repr_html_()
    assert len(repr(decision)) < 250 and repr(decision).startswith(f"Decision({decision.record.setting}")
    assert write_headline(decision.data) in decision.summary == str(decision)
    assert escape(write_headline(decision.data)) in view
    assert view.count("(chosen)") == view.count(">chosen</td>") == 1
    assert view.count("<circle") == min(len(decision.record.candidates), 10) and "<script" not in view


def test_the_plots_are_figures_of_plotly_without_roles_of_colours(tmp_path):
    decision = decide_example("rates", tmp_path)
    plots = (decision.plot_candidates, decision.plot_rates, decision.plot_chances, decision.plot_final)
    for draw in (*plots, decision.plot_curves, decision.plot_costs):
        figure = draw()
        assert figure.layout.title.text and figure.data
        assert '"@' not in figure.to_json()
    assert decision.plot_candidates().layout.paper_bgcolor == "rgba(255,255,255,1)"


def test_a_plot_that_the_study_has_not_says_why(tmp_path):
    with pytest.raises(StudyError, match="nothing to plot: the learning rate was not searched"):
        decide_example("clear", tmp_path).plot_rates()
    with pytest.raises(StudyError, match="there was no final run"):
        decide_example("no_final", tmp_path).plot_final()
    with pytest.raises(StudyError, match="the decision has no study"):
        decide(tmp_path).plot_rates()
    assert decide(tmp_path).summary == "Clear." and decide(tmp_path)._repr_html_() == "<p>Clear.</p>"


def test_what_a_notebook_prints_of_a_model_is_one_line():
    assert repr(INFO).startswith(f"ModelInfo({INFO.architecture}, ") and len(repr(INFO)) < 300
