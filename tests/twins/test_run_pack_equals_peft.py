"""The whole engine, with every lever, against PEFT alone on the same rows."""

import pytest
import torch

from marslora.core.parts import ModelInfo
from marslora.core.schedule import num_steps
from marslora.engine.pack import Base
from marslora.engine.prepare import parts_of
from marslora.engine.rows import load_rows
from marslora.engine.solo import on_peft
from marslora.models import loading
from tests.twins.worlds import distance
from tests.unit.engine.conftest import go, member, pack, tensors, world  # noqa: F401


def peft_alone(spec, name):
    """The member's weights and validation loss when PEFT trains it on the same rows."""
    loaded = loading.load(spec.model)
    rows = load_rows(spec.data, loaded.processor, spec.cache_folder)
    info: ModelInfo = parts_of(spec.model, loaded, rows, spec.cache_folder)
    base = Base(loaded.model, info, spec.training, loaded.device, loaded.dtype)
    wanted = next(found for found in spec.members if found.id == name)
    steps = rows.steps(wanted.data_examples, spec.training, wanted.order_seed, 0, wanted.until_examples)
    with on_peft(base, wanted) as solo:
        solo.train(steps, num_steps(spec.full_examples, spec.training.batch_size))
        batch = rows.validation.batch(range(len(rows.validation)))
        with torch.no_grad():
            loss = float(solo.loss(batch)) / int((batch["labels"][:, 1:] != -100).sum())
        return {f"base_model.model.{key}": value for key, value in solo.weights().items()}, loss


MIXES = {
    "everything": [{"vision": 2, "projector": 4, "language": 4}, {"vision": 8, "language": 1}, {"projector": 16}],
    "tower frozen": [{"language": 4}, {"projector": 2, "language": 16}],
    "all but the language model frozen": [{"language": 4}, {"language": 16}],
    "only the tower": [{"vision": 4}, {"vision": 16}],
    "only the projector": [{"projector": 4}, {"projector": 1}],
}


@pytest.mark.parametrize("mix", MIXES)
def test_run_pack_trains_what_peft_trains(pack, mix):  # noqa: F811
    members = [
        member(
            f"m{index}", until=96, data=24, seed=index, dropout=0.1 * index, learning_rate=1e-3 * (1 + index), **ranks
        )
        for index, ranks in enumerate(MIXES[mix])
    ]
    spec = pack(*members, accumulation=2, clip_norm=0.3, gradient_checkpointing=mix == "everything")
    seen = go(spec)
    for one in members:
        weights, loss = peft_alone(spec, one.id)
        assert distance(tensors(spec, one.id), weights) < 1e-4, one.id
        assert seen.curve(one.id)[96] == pytest.approx(loss, rel=1e-5)
