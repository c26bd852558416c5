"""Every packed adapter, those from outside included: a pack is what its members would have been, one at a time."""

import pytest
import torch

from marslora import adapters
from marslora.core import plugins
from tests.helpers.exactness import EXACT, distance
from tests.helpers.outside_adapter import NAME
from tests.twins.worlds import member, tiny_base, train_packed, varied

EVERY = [(name, {}) for name in (*plugins.names(adapters), NAME)] + [
    ("lora", {"use_dora": True}),
    (NAME, {"start": 0.5}),
]


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_members_end_where_a_pack_of_one_takes_them(name, options):
    base, batch = tiny_base(dtype=torch.float64, adapter={"name": name, "options": options}, full=("projector",))
    specs = [member(base, 2, seed=1), member(base, {"vision": 0, "language": 4}, seed=2, learning_rate=5e-3)]
    steps = varied(batch, 4)
    together, losses_TK = train_packed(base, specs, steps)
    for k, spec in enumerate(specs):
        (alone,), own_T1 = train_packed(base, [spec], steps)
        assert distance(together[k], alone) < EXACT
        assert torch.allclose(losses_TK[:, k], own_T1[:, 0], rtol=EXACT, atol=0)
