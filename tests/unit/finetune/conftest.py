"""Specs of final runs on a tiny model and tiny data."""

import pytest
import torch

from marslora.core.allocation import Allocation
from marslora.core.spec import DataSpec, FinalSpec, ModelSpec, TrainingSpec
from tests.unit.finetune.tiny import run, write_model, write_rows


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


@pytest.fixture(scope="session")
def whole(world, info):
    """The spec of an uninterrupted run with the default settings, which has been run."""
    spec = maker(world, info, world)("whole")
    run(spec)
    return spec


@pytest.fixture(scope="session")
def no_dropout(world, info):
    """The same without dropout."""
    spec = maker(world, info, world)("no_dropout", training={"dropout": 0.0})
    run(spec)
    return spec


def maker(world, info, folder):
    def make(name="final", training=None, allocation=None, **more):
        allocation = allocation or Allocation.of(vision=2, projector=4, language=8)
        full = (training or {}).get("full", ())
        defaults = {"batch_size": 8, "learning_rate": 2e-2, "evaluations": 5, "dropout": 0.1, "keep": "last"}
        return FinalSpec(
            **{
                "model": ModelSpec(path=str(world / "model"), device="cpu"),
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
