"""Exact steps in Trainer against the published recursion written out in plain torch."""

import pytest
import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments, get_constant_schedule

from marslora.core.errors import ConfigError
from marslora.finetune.exact_trainer import ExactTrainer
from marslora.finetune.worker import count_final_flops
from marslora.optim import peft_groups
from marslora.optim.mars_m import MarsM
from tests.unit.finetune.tiny import run

LR, BETA, GAMMA, LIMIT = 0.01, 0.95, 0.4, 0.1
STEPS, PIECES, ROWS = 6, 2, 4


class Tiny(torch.nn.Module):
    """LoRA's factors with dropout between them; remembers the random state of every forward."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lora_A = torch.nn.ModuleDict({"default": torch.nn.Linear(6, 4, bias=False)})
        self.drop = torch.nn.Dropout(0.4)
        self.lora_B = torch.nn.ModuleDict({"default": torch.nn.Linear(4, 5)})
        self.double()
        self.random_states = []

    def forward(self, x, labels):
        self.random_states.append(torch.get_rng_state())
        out = self.lora_B["default"](self.drop(self.lora_A["default"](x)))
        return {"loss": mse_loss(out, labels), "logits": out}


def rows():
    make = torch.Generator().manual_seed(1)
    return [
        {"x": torch.randn(6, generator=make).double(), "labels": torch.randn(5, generator=make).double()}
        for _ in range(STEPS * PIECES * ROWS)
    ]


class InOrder(ExactTrainer):
    def get_train_dataloader(self):
        return DataLoader(self.train_dataset, batch_size=ROWS, shuffle=False)


def exact_optimizer(model):
    return MarsM(peft_groups(model), lr=LR, gamma=GAMMA, exact=True, precondition="polar")


def trainer_of(folder, kind=InOrder, optimizer=exact_optimizer, **more):
    model = Tiny()
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=PIECES,
        max_steps=STEPS,
        save_steps=3,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        max_grad_norm=LIMIT,
        **more,
    )
    made = optimizer(model)
    return kind(model, arguments, train_dataset=rows(), optimizers=(made, get_constant_schedule(made)))


def written_out(random_states):
    """Where the recursion goes: a matrix by its exact polar factor, a vector by AdamW."""
    model = Tiny()
    here = [param.detach().clone() for param in model.parameters()]
    before, momenta = here, [torch.zeros_like(value) for value in here]
    moments = [[torch.zeros_like(value) for value in here] for _ in range(2)]
    data, clipped = rows(), []

    def gradients(point, step):
        model.zero_grad()
        with torch.no_grad():
            for param, value in zip(model.parameters(), point, strict=True):
                param.copy_(value)
        for piece in range(step * PIECES, (step + 1) * PIECES):
            batch = data[piece * ROWS : (piece + 1) * ROWS]
            torch.set_rng_state(random_states[2 * piece])
            x, labels = (torch.stack([row[name] for row in batch]) for name in ("x", "labels"))
            (model(x, labels)["loss"] / PIECES).backward()
        return [param.grad.clone() for param in model.parameters()]

    for step in range(STEPS):
        lasts, grads = gradients(before, step), gradients(here, step)
        share = min(1.0, LIMIT / (float(torch.cat([g.flatten() for g in grads]).norm()) + 1e-6))
        clipped.append(share < 1)
        before, now = here, []
        for i, (x, g, last) in enumerate(zip(here, grads, lasts, strict=True)):
            g, last = g * share, last * share
            if x.ndim == 2:
                c = g + (GAMMA * BETA / (1 - BETA) * (g - last) if step else 0.0)
                momenta[i] = BETA * momenta[i] + (1 - BETA) * c / max(1.0, float(c.norm()))
                u, _, vt = torch.linalg.svd(momenta[i], full_matrices=False)
                now.append(x - LR * 0.2 * max(x.shape) ** 0.5 * u @ vt)
            else:
                moments[0][i] = 0.9 * moments[0][i] + 0.1 * g
                moments[1][i] = 0.95 * moments[1][i] + 0.05 * g**2
                size = (1 - 0.95 ** (step + 1)) ** 0.5 / (1 - 0.9 ** (step + 1))
                now.append(x - LR * size * moments[0][i] / (1e-8 + moments[1][i].sqrt()))
        here = now
    assert any(clipped)
    return here


def test_exact_steps_are_the_recursion_written_out(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.train()
    states = trainer.model.random_states
    assert len(states) == 2 * PIECES * STEPS
    assert all(torch.equal(a, b) for a, b in zip(states[::2], states[1::2], strict=True)), "the same dropout masks"
    assert not torch.equal(states[0], states[2])
    start = list(Tiny().parameters())
    for param, expected, first in zip(trainer.model.parameters(), written_out(states), start, strict=True):
        assert (param - first).norm() > 1e-3
        torch.testing.assert_close(param.detach(), expected, rtol=1e-10, atol=1e-12)


def test_exact_steps_go_on_from_a_checkpoint(tmp_path):
    whole, resumed = trainer_of(tmp_path), trainer_of(tmp_path)
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert len(resumed.model.random_states) == PIECES * STEPS
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_plain_trainer_is_told_what_to_use(tmp_path):
    with pytest.raises(ConfigError, match="ExactTrainer"):
        trainer_of(tmp_path, kind=Trainer).train()


class Sharded(ExactTrainer):
    """A Trainer that finds DeepSpeed in its surroundings."""

    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.is_deepspeed_enabled = True


def test_what_cannot_be_exact_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="found MarsM"):
        trainer_of(tmp_path, optimizer=lambda model: MarsM(peft_groups(model)))
    with pytest.raises(ConfigError, match="DeepSpeed or FSDP"):
        trainer_of(tmp_path, kind=Sharded)


EXACT = {"name": "mars_m", "options": {"exact": True}}
OBJECTIVES = [{"name": "pictures", "rows": "pictures"}, {"name": "words", "rows": "text"}]


@pytest.mark.parametrize(
    ("training", "message"),
    [({"objectives": OBJECTIVES}, "2 objectives"), ({"adapter": {"name": "geolora"}}, "adapter `geolora`")],
)
def test_final_runs_that_cannot_be_exact_are_refused(final_spec, training, message):
    with pytest.raises(ConfigError, match=message):
        run(final_spec(training={"optimizer": EXACT, "dropout": 0.0, **training}))


def test_exact_steps_cost_two_passes(final_spec):
    found = []
    for exact in (False, True):
        spec = final_spec(training={"optimizer": {"name": "mars_m", "options": {"exact": exact}}})
        count_final_flops(spec, found.append)
    assert found[1].flops_per_row == 2 * found[0].flops_per_row > 0
