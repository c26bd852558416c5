"""The examples in the manual of the package run."""

import torch
from tests.helpers.manuals import run_examples

from marslora import optim


def test_the_examples_run(capsys):
    seen = run_examples(optim)
    assert "MarsM" in capsys.readouterr().out
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.tensor([1.0, -2.0, 0.0])
    seen["SignDescent"]([param], lr=0.5).step()
    assert param.tolist() == [0.5, 1.5, 1.0]
