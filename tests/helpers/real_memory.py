"""Train a pack in a fresh process and print what was estimated and what it took, in bytes.

python -m tests.helpers.real_memory ARCHITECTURE MEMBERS PIECES DTYPE
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch

from marslora.core.spec import TrainingSpec
from marslora.engine.memory import measure_footprint
from marslora.engine.pack import Base, Member, Pack
from marslora.engine.step import train_step
from marslora.models.answers import AnswerHead
from marslora.models.discovery import discover
from tests.helpers import _tiny_vision, tiny_models
from tests.twins.worlds import member

WIDTH, ROWS, RANK = 256, 16, 32


def build(name, dtype):
    """A model that is large enough for its activations to be seen in the memory of a process."""
    _tiny_vision.TEXT.update(hidden_size=WIDTH, intermediate_size=1024, num_hidden_layers=6)
    _tiny_vision.TEXT.update(vocab_size=8000, num_attention_heads=WIDTH // 16, num_key_value_heads=8)
    _tiny_vision.QWEN_WINDOWED_VISION.update(out_hidden_size=WIDTH)
    model, batch = tiny_models.build(name)
    rows, kept = 2, {key: value.to(dtype) if value.is_floating_point() else value for key, value in batch.items()}
    text = torch.randint(7, 200, (rows, 180))
    for key, more in (("input_ids", text), ("labels", text), ("attention_mask", torch.ones_like(text))):
        kept[key] = torch.cat([kept[key], more], 1)
    if "mm_token_type_ids" in kept:
        kept["mm_token_type_ids"] = torch.cat([kept["mm_token_type_ids"], torch.zeros_like(text).int()], 1)
    return model.to(dtype).requires_grad_(False), kept


def read_status(key):
    """A number of bytes from the kernel: ``VmRSS`` now, ``VmHWM`` at most since the last reset."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) * 1024


def main(name, members, pieces, dtype):
    torch.set_num_threads(1)
    model, two = build(name, dtype)
    base = Base(model, discover(model), TrainingSpec(), torch.device("cpu"), dtype, AnswerHead(model))
    rows = ROWS // pieces
    piece = {key: torch.cat([value] * (rows // 2)) for key, value in two.items()}
    footprint = measure_footprint(base, member(base, RANK), base.batch(two))
    with Pack(base, [Member(member(base, 1))]) as warm:  # what is loaded at a first step only
        train_step(warm, [base.batch(two)], torch.ones(1, dtype=torch.bool))
    Path("/proc/self/clear_refs").write_text("5")
    before = read_status("VmRSS")
    with Pack(base, [Member(member(base, RANK, seed=k)) for k in range(members)]) as pack:
        for _ in range(2):
            train_step(pack, [base.batch(piece)] * pieces, torch.ones(members, dtype=torch.bool))
    print(footprint.bytes(rows, members), read_status("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), getattr(torch, sys.argv[4]))
