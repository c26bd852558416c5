"""The examples in the manual of the package run."""

import torch
from torch import nn

from marslora import methods
from marslora.methods import AdapterPlan
from tests.helpers.manuals import run_examples


def test_the_examples_run(tmp_path):
    seen = run_examples(methods)
    assert seen["names"] == [f"transformer.h.0.attn.c_attn.{factor}" for factor in ("lora_A", "lora_B.0")]
    assert seen["output"].shape == (1, 3, 32)
    model, x = nn.Sequential(nn.Linear(6, 4)).requires_grad_(False), torch.ones(2, 6)
    before = model(x)
    plan = AdapterPlan(ranks={"0": 1}, parts={"0": "language"})
    method = seen["OutputBias"](start=0.5)
    change = method.apply(model, plan)
    torch.testing.assert_close(change.model(x), before + 0.5)
    with change.disabled():
        torch.testing.assert_close(change.model(x), before)
    assert change.num_trainable() == method.count({"0": (6, 4)}, plan)
    change.save(tmp_path)
    change.remove()
    torch.testing.assert_close(model(x), before)
