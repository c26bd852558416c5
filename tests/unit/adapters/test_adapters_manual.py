"""The examples in the manual of the package run."""

import torch
from torch import nn

from marslora import adapters
from marslora.adapters import MemberSettings, TrainingPosition
from tests.helpers.manuals import run_examples


def test_the_examples_run():
    seen = run_examples(adapters)
    assert seen["output"].shape == (10, 4)
    assert seen["trained"] == {"lora_A": (2, 3, 6), "lora_B": (2, 4, 3)}
    base = nn.Linear(6, 4)
    adapter = seen["OutputGain"](base, "fc", [MemberSettings(1), MemberSettings(0)], TrainingPosition(), start=2.0)
    x = torch.ones(2, 6)
    torch.testing.assert_close(adapter(x), torch.tensor([[2.0], [1.0]]) * base(x))
