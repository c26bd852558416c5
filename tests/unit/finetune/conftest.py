"""Specs of final runs on a tiny model and tiny data."""

import pytest
import torch

from marslora.core.allocation import Allocation
from marslora.core.spec import DataSpec, FinalSpec, ModelSpec, TrainingSpec
from tests.helpers.exactness import keep_float64
from tests.unit.finetune.tiny import register_float64, run, write_model, write_rows


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The folder with ``model/`` and three data files."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("world")
    write_model(folder / "model")
    for name, count, seed in (("train", 48, 0), ("validation", 16, 1), ("test", 12, 2)):
        write_rows(folder, name, count, seed)
    return folder


@pytest.fixture(scope="session")
def info(world):
    from marslora.models.loading import describe

    return describe(ModelSpec(path=str(world / "model")))


@pytest.fixture
def final_spec(world, info, tmp_path):
    """Makes specs: ``final_spec(name="a", training={...}, full_examples=...)``."""
    return maker(world, info, tmp_path)


@pytest.fixture
def exact_spec(world, info, tmp_path):
    """Makes specs of runs in float64, where what is equal in theory is equal but for the last digits."""
    with keep_float64():
        yield maker(world, info, tmp_path, torch.float64)


@pytest.fixture(scope="session")
def whole(world, info):
    """The spec of an uninterrupted run with the default settings, which has been run."""
    spec = maker(world, info, world)("whole")
    run(spec)
    return spec


@pytest.fixture(scope="session")
def no_dropout(world, info):
    """The same without dropout, in float64."""
    spec = maker(world, info, world, torch.float64)("no_dropout", training={"dropout": 0.0})
    with keep_float64():
        run(spec)
    return spec


def maker(world, info, folder, dtype=torch.float32):
    path = register_float64(world / "model") if dtype == torch.float64 else str(world / "model")

    def make(name="final", training=None, allocation=None, **more):
        allocation = allocation or Allocation.of(vision=2, projector=4, language=8)
        full = (training or {}).get("full", ())
        defaults = {"batch_size": 8, "learning_rate": 2e-2, "evaluations": 5, "dropout": 0.1, "keep": "last"}
        return FinalSpec(
            **{
                "model": ModelSpec(path=path, device="cpu"),
                "data": DataSpec(
                    train=(str(world / "train.jsonl"),),
                    validation=(str(world / "validation.jsonl"),),
                    test=(str(world / "test.jsonl"),),
                ),
                "training": TrainingSpec(**{**defaults, **(training or {})}),
                "allocation": allocation,
                "module_ranks": info.module_ranks(allocation),
                "full_modules": tuple(path for part in full for path in info.part(part).whole),
                "full_examples": 40,
                "output_folder": str(folder / name),
                "cache_folder": str(world / "cache"),
                **more,
            }
        )

    return make
