"""The optimizers as `transformers.Trainer` uses them: accumulation, schedules, checkpoints."""

import pytest
import torch
from tests.helpers.exactness import EXACT
from transformers import Trainer, TrainingArguments, get_constant_schedule

from marslora import optim
from marslora.core import plugins
from marslora.optim import AbstractOptimizer, peft_groups


class Tiny(torch.nn.Module):
    """A loss with PEFT's parameter names."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lora_A = torch.nn.ModuleDict({"default": torch.nn.Linear(6, 2, bias=False)})
        self.lora_B = torch.nn.ModuleDict({"default": torch.nn.Linear(2, 3, bias=True)})
        self.double()

    def forward(self, x, labels):
        out = self.lora_B["default"](self.lora_A["default"](x))
        return {"loss": (out - labels).square().mean(), "logits": out}


def rows():
    make = torch.Generator().manual_seed(1)
    return [
        {"x": torch.randn(6, generator=make).double(), "labels": torch.randn(3, generator=make).double()}
        for _ in range(32)
    ]


def train(kind, folder, accumulation, resume=None, steps=6):
    model = Tiny()
    optimizer = kind(peft_groups(model), lr=0.01)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8 // accumulation,
        gradient_accumulation_steps=accumulation,
        max_steps=steps,
        save_steps=3,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        max_grad_norm=0.0,
    )
    schedule = get_constant_schedule(optimizer)
    trainer = Trainer(model, arguments, train_dataset=rows(), optimizers=(optimizer, schedule))
    trainer.train(resume_from_checkpoint=resume)
    return [param.detach().clone() for param in model.parameters()]


OTHERS = [name for name in plugins.names(optim) if name not in ("mars_m", "muon_mvr")]


@pytest.mark.parametrize("name", ["mars_m", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_trainer(name, tmp_path):
    kind = plugins.load(optim, name, AbstractOptimizer)
    whole = train(kind, tmp_path / "whole", 1)
    pieces = train(kind, tmp_path / "pieces", 4)
    resumed = train(kind, tmp_path / "whole", 1, resume=str(tmp_path / "whole/checkpoint-3"))
    start = list(Tiny().parameters())
    for a, b, c, s in zip(whole, pieces, resumed, start, strict=True):
        assert (a - s).norm() > 1e-3
        torch.testing.assert_close(b, a, rtol=EXACT, atol=EXACT)
        assert torch.equal(a, c)
