"""A tiny multimodal model and data on disk, and packs of runs on them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from marslora.core.allocation import Allocation
from marslora.core.runs import Failure, MemberResult, Observation, PackResult, ProgressEvent
from marslora.core.spec import DataSpec, MemberSpec, ModelSpec, PackSpec, TrainingSpec
from tests.unit.finetune.tiny import register_float64, write_model, write_rows


class Seen:
    """What a pack emitted."""

    def __init__(self, die_after=None):
        self.events = []
        self.die_after = die_after

    def __call__(self, event):
        self.events.append(event)
        if self.die_after is not None and sum(isinstance(e, ProgressEvent) for e in self.events) >= self.die_after:
            raise SystemExit("dropped dead")

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def failures(self):
        return self.of(Failure)

    def curve(self, member, metric="validation_loss"):
        return {e.examples: e.value for e in self.of(Observation) if e.member == member and e.metric == metric}

    def result(self, member):
        return next(event for event in self.of(MemberResult) if event.member == member)

    @property
    def pack(self):
        return self.of(PackResult)[-1]


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The folder with ``model/``, ``train.jsonl`` and ``validation.jsonl``."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("engine")
    write_model(folder / "model")
    write_rows(folder, "train", 40, 0)
    write_rows(folder, "validation", 12, 1)
    return folder


@pytest.fixture
def pack(world, tmp_path):
    """Makes specs: ``pack(member("a", language=4), batch_size=8, folder="x")``."""

    def make(*members, folder="members", full_examples=160, max_bytes=None, dtype=torch.float32, **training):
        training = {"batch_size": 8, "learning_rate": 5e-3, "evaluations": 5, **training}
        return PackSpec(
            id="pack",
            model=ModelSpec(path=register_float64(world / "model") if dtype == torch.float64 else str(world / "model")),
            data=DataSpec(train=(str(world / "train.jsonl"),), validation=(str(world / "validation.jsonl"),)),
            training=TrainingSpec(**training),
            full_examples=full_examples,
            members=members,
            checkpoint_folder=str(tmp_path / folder),
            cache_folder=str(world / "cache"),
            max_bytes=max_bytes,
        )

    return make


def member(name, until=80, data=32, seed=0, **ranks):
    """A member with ranks by part (0 where not named); fields of the spec under their own names."""
    own = ("learning_rate", "part_learning_rates", "alpha_over_rank", "dropout", "order_seed", "validations")
    fields = {k: ranks.pop(k) for k in own if k in ranks}
    allocation = Allocation.of({"vision": 0, "projector": 0, "language": 0, **ranks})
    return MemberSpec(id=name, allocation=allocation, data_examples=data, until_examples=until, seed=seed, **fields)


def go(spec, die_after=None, **options):
    """Run a pack and return what it emitted; with ``die_after``, drop dead at that many progress events."""
    from marslora.engine.worker import run_pack

    seen = Seen(die_after)
    try:
        run_pack(spec, seen, **options)
    except SystemExit:
        assert die_after is not None
    assert not seen.failures, seen.failures
    return seen


def tensors(spec, name, file="adapter_model"):
    """The tensors in a member's checkpoint."""
    return load_file(Path(spec.checkpoint_folder) / name / f"{file}.safetensors")
