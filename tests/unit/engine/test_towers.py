"""How a frozen tower answers errors of its module."""

import pytest
import torch

from marslora.engine.towers import FrozenTower

OUT_OF_MEMORY = {
    "device": torch.OutOfMemoryError("CUDA out of memory"),
    "allocator": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes."),
}


class Fragile(torch.nn.Module):
    """Doubles a batch, and raises an error for a batch of one row."""

    def __init__(self, error):
        super().__init__()
        self.error, self.rows = error, []

    def forward(self, x):
        self.rows.append(len(x))
        if len(x) == 1 and self.error is not None:
            raise self.error
        return 2 * x


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_memory_that_runs_out_while_a_plan_is_tried_is_passed_on(error):
    module, tower = Fragile(error), FrozenTower(max_bytes=1 << 20)
    with tower.replace_forward(module, 2), pytest.raises(RuntimeError) as raised:
        module(torch.ones(4, 3))
    assert raised.value is error


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_memory_that_runs_out_later_is_passed_on(error):
    module, tower = Fragile(None), FrozenTower(max_bytes=1 << 20)
    with tower.replace_forward(module, 2):
        module(torch.ones(4, 3))
        assert tower.plan == "items"
        module.error = error
        with pytest.raises(RuntimeError) as raised:
            module(torch.zeros(4, 3))
    assert raised.value is error


def test_a_module_whose_batch_cannot_be_split_runs_once_for_all_members():
    module, tower = Fragile(RuntimeError("shapes do not fit")), FrozenTower(max_bytes=1 << 20)
    with tower.replace_forward(module, 2):
        assert torch.equal(module(torch.ones(4, 3)), 2 * torch.ones(4, 3))
        assert tower.plan == "once"
        module.rows.clear()
        assert torch.equal(module(torch.ones(4, 3)), 2 * torch.ones(4, 3))
    assert module.rows == [2]
