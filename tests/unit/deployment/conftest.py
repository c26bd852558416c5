"""A finished study of a tiny model, which its tests read and do not change."""

import pytest
import torch

from marslora import api
from marslora.demo.model import embedded_folder
from marslora.demo.task_files import write_task


def train(folder, **options):
    """Train one setting of the embedded model for a few steps."""
    paths = write_task("both", folder / "rows", num_train=64, num_validation=8, num_test=4)
    values = {
        "model": str(embedded_folder()),
        "train": str(paths["train"]),
        "validation": str(paths["validation"]),
        "test": str(paths["test"]),
        "ranks": 16,
        "learning_rate": 1e-2,
        "examples": 192,
        "strategy": "uniform",
        "study": folder / "study",
    }
    return api.search(**{**values, **options})


@pytest.fixture(scope="session")
def decision(tmp_path_factory):
    torch.set_num_threads(1)
    return train(tmp_path_factory.mktemp("deployment"))


@pytest.fixture
def study(decision):
    return decision.folder


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    from PIL import Image

    path = tmp_path_factory.mktemp("picture") / "red.png"
    Image.new("RGB", (48, 48), (220, 40, 40)).save(path)
    return path
