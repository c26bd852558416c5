"""Ask a trained adapter about pictures, sounds and texts, and its base model the same beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from marslora.core.errors import ConfigError
from marslora.data.prompts import encode_question, find_end_tokens
from marslora.deployment.trained import TrainedStudy, find_trained
from marslora.methods import AbstractChange, attach
from marslora.models.generation import generate_greedily
from marslora.models.loading import LoadedModel, load_alone

MAX_TOKENS = 256
"""Tokens after which an answer is cut by default; a convention: a long paragraph."""


class Answers(NamedTuple):
    """The answers to one question."""

    adapted: str
    """Of the model with the adapter."""
    base: str | None
    """Of the model without it; None if it was not asked."""


@dataclass(frozen=True)
class Answerer:
    """A model with its adapter, which answers greedily: the same question has the same answer."""

    loaded: LoadedModel
    adapted: Any
    """What `marslora.attach` returned."""
    end_tokens: tuple[int, ...]
    max_pixels: int

    def ask(
        self,
        question: str,
        images: Sequence[Any] = (),
        sounds: Sequence[Any] = (),
        *,
        base: bool = True,
        max_tokens: int = MAX_TOKENS,
    ) -> Answers:
        """Answer a question about pictures and sounds (paths, bytes, PIL images), with ``base`` also without adapter.

        Raises `DataError` for pictures or sounds that cannot be read, or that the model does not take.
        """
        inputs = encode_question(self.loaded.processor, question, images, sounds, self.max_pixels)
        adapted = self._answer(inputs, max_tokens)
        if not base:
            return Answers(adapted, None)
        with self._without_adapter():
            return Answers(adapted, self._answer(inputs, max_tokens))

    def _answer(self, inputs: dict[str, Any], max_tokens: int) -> str:
        tokenizer = self.loaded.processor.tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.end_tokens[0]
        (tokens,) = generate_greedily(
            self._generator,
            inputs,
            max_tokens=max_tokens,
            end_tokens=self.end_tokens,
            pad_token=pad,
            dtype=self.loaded.dtype,
        )
        text: str = tokenizer.decode(tokens, skip_special_tokens=True)
        return text.strip()

    @property
    def _generator(self) -> nn.Module:
        model: nn.Module = self.loaded.model if isinstance(self.adapted, AbstractChange) else self.adapted
        return model

    def _without_adapter(self) -> contextlib.AbstractContextManager[Any]:
        change = self.adapted
        return change.disabled() if isinstance(change, AbstractChange) else change.disable_adapter()


def open_answerer(
    folder: Path,
    *,
    model: str | None = None,
    device: str = "",
    task: str | None = None,
    trust_remote_code: bool = False,
) -> Answerer:
    """Load the model and the adapter of the study in ``folder``; ``model`` and ``device`` override the study's.

    ``task`` is needed by an adapter that has one change for each task. Raises what `find_trained`, loading the model
    and attaching the adapter raise.
    """
    study = find_trained(folder, model=model, device=device, trust_remote_code=trust_remote_code)
    loaded = load_alone(study.model)
    adapted = attach(loaded.model, study.adapter, trust_remote_code=trust_remote_code)
    _choose_task(study, adapted, task)
    return Answerer(loaded, adapted, find_end_tokens(loaded.processor), study.data.max_pixels)


def _choose_task(study: TrainedStudy, adapted: Any, task: str | None) -> None:
    tasks = adapted.plan.tasks if isinstance(adapted, AbstractChange) and hasattr(adapted, "plan") else ()
    if task is None and not tasks:
        return
    if task not in tasks:
        known = f"one of {list(tasks)}" if tasks else "left out, since the adapter has no tasks"
        raise ConfigError(f"`task` of the adapter `{study.adapter_name}` must be {known}; found {task!r}.")
    adapted.use_task(task)
