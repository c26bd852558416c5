"""The second part of alignment: projector and LoRA of the language model, on questions about pictures."""

from __future__ import annotations

import json
import random
import time

import torch
from peft import LoraConfig, inject_adapter_in_model
from questions import Questions

RANK, BATCH, STEPS = 12, 16, 640
BLOCK = 8
"""Batches that are drawn together, so that answers of like lengths share a batch."""
RATES = {"projector": 3e-4, "language": 5e-4}
SAVE_EVERY, MEASURE_EVERY = 50, 200


class Training:
    """Training with checkpoints of an `align.Alignment`."""

    def __init__(self, alignment) -> None:
        self.alignment, self.step, self.log = alignment, 0, []
        language = alignment.core.language_model
        inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"), language)
        added = [parameter for name, parameter in language.named_parameters() if "lora_" in name]
        for parameter in added:
            parameter.data, parameter.requires_grad = parameter.data.float(), True
        self.groups = {"projector": list(alignment.projector.parameters()), "language": added}
        groups = [{"params": parameters, "top": RATES[name]} for name, parameters in self.groups.items()]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.questions = Questions(alignment.pictures)
        self.path = alignment.folder / "language.pt"

    @property
    def parameters(self) -> list[torch.Tensor]:
        return [parameter.data for parameters in self.groups.values() for parameter in parameters]

    def run(self) -> list[dict]:
        """Train from the last checkpoint to the end; what was measured on held-out pictures."""
        if self.path.exists():
            self._load()
        else:
            self._measure()
        start, first = time.perf_counter(), self.step
        while self.step < STEPS:
            loss = self._take_step()
            if self.step % 10 == 0:
                pace = (time.perf_counter() - start) / (self.step - first)
                print(f"step {self.step}: loss {loss:.2f}, {pace:.2f} s a step", flush=True)
            if self.step % MEASURE_EVERY == 0 or self.step == STEPS:
                self._measure()
            if self.step % SAVE_EVERY == 0 or self.step == STEPS:
                self._save()
        return self.log

    def _take_step(self) -> float:
        block, place = divmod(self.step, BLOCK)
        if place == 0 or not hasattr(self, "batches"):
            self.batches = self._make_block(block)
        warm, cool = min(1, (self.step + 1) / 40), min(1, 2 * (1 - self.step / STEPS))
        for group in self.optimizer.param_groups:
            group["lr"] = group["top"] * warm * cool
        batch = self.batches[place]
        view = self.alignment.views[(block + self.step) % len(self.alignment.views)]
        total, number = self.alignment.sum_losses(batch, view[[index for index, *_ in batch]])
        loss = total / number
        loss.backward()
        for parameters in self.groups.values():
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return loss.item()

    def _make_block(self, number: int) -> list[list]:
        rows = [self.alignment.encode(*row) for row in self.questions.draw(number, BLOCK * BATCH)]
        rows.sort(key=lambda row: len(row[1] + row[2]))
        batches = [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]
        random.Random(number).shuffle(batches)
        return batches

    def _measure(self) -> None:
        self.log.append({"step": self.step, "examples": BATCH * self.step, "held_out": self.alignment.measure()})
        print(json.dumps(self.log[-1]), flush=True)

    def _save(self) -> None:
        state = {"step": self.step, "log": self.log, "optimizer": self.optimizer.state_dict()}
        torch.save(state | {"parameters": self.parameters}, self.path.with_suffix(".partial"))
        self.path.with_suffix(".partial").rename(self.path)

    def _load(self) -> None:
        state = torch.load(self.path)
        self.step, self.log = state["step"], state["log"]
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, value in zip(self.parameters, state["parameters"], strict=True):
            parameter.copy_(value)
