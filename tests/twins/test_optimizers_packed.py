"""Every optimizer in a pack of different ranks, against the same optimizer on PEFT alone."""

import pytest

from marslora import optim
from marslora.core import kinds
from tests.twins.worlds import distance, member, tiny_base, train_alone, train_packed, varied

ROUNDING = 2e-3
"""Orthogonal steps give small singular values of a gradient, where float32 rounding is, the size of large ones."""
ONE_PASS = [name for name in kinds.names(optim) if name != "muon_mvr"]


@pytest.mark.parametrize("name", ONE_PASS)
def test_a_pack_is_its_members_on_peft(name):
    base, batch = tiny_base(optimizer={"name": name}, weight_decay=0.1)
    specs = [member(base, 2, seed=1), member(base, 8, seed=2, learning_rate=5e-3)]
    steps = varied(batch, 3)
    packed, _ = train_packed(base, specs, steps)
    for weights, spec in zip(packed, specs, strict=True):
        alone, _ = train_alone(base, spec, steps)
        assert distance(weights, alone) < (1e-5 if name == "adamw" else ROUNDING)
