"""Tiny models whose language model is quantised."""

import torch

from marslora.engine.pack import Base
from marslora.models.answers import AnswerHead
from marslora.models.discovery import discover
from marslora.models.probe import probe
from marslora.models.quantization import keep_layout, make_quantization
from tests.helpers import tiny_models
from tests.twins.worlds import TrainingSpec


def quantized_base(folder, name, method, dtype=torch.float32, **training):
    """A tiny model, saved and loaded with its language model quantised, and a batch."""
    model, batch = tiny_models.build(name)
    model.save_pretrained(folder)
    model = type(model).from_pretrained(
        folder, dtype=dtype, quantization_config=make_quantization(method, model, dtype), device_map={"": "cpu"}
    )
    keep_layout(model)
    model.requires_grad_(False).eval()
    info = probe(model, batch, discover(model))
    spec = TrainingSpec(**{"batch_size": 2, "learning_rate": 2**-9, **training})
    return Base(model, info, spec, torch.device("cpu"), dtype, AnswerHead(model)), batch
