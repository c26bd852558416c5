"""What the modules inside a model must know of the batch that runs through it: tasks, kinds of tokens, padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from marslora.core.errors import ConfigError
from marslora.methods._base import QUESTION, TASK, UNIT_TASK

_TOKENS = {
    "image": ("image_token_id", "image_token_index", "video_token_id", "video_token_index"),
    "audio": ("audio_token_id", "audio_token_index"),
}


class RoutingRecord(NamedTuple):
    """What one router did with one batch, for the load balance."""

    part: str
    probabilities: Tensor
    """(..., N)"""
    chosen: Tensor
    """(...): the likeliest head."""


class BatchContext:
    """Shared by all modules of one change; `read` fills it before every forward."""

    def __init__(self, model: nn.Module, tasks: tuple[str, ...] = ()):
        self.tasks = tasks
        self.enabled = True
        """False: the model as it was given."""
        self.task: str | None = None
        """The task of every row of a batch that names none."""
        self.routed: list[RoutingRecord] = []
        self.tokens = token_ids(getattr(model, "config", None))
        self.modalities = ("text", *self.tokens)
        """The kinds of tokens in a language model's input; what is nothing else is text."""
        self.inputs: Mapping[str, Any] = {}
        self.labels: Mapping[str, Any] = {}

    def read(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Keep what is meant for the method; the rest, which is meant for the model."""
        self.labels = {name: batch[name] for name in (TASK, UNIT_TASK, QUESTION) if batch.get(name) is not None}
        self.inputs = {name: batch[name] for name in ("input_ids", "attention_mask") if batch.get(name) is not None}
        self.routed = []
        return {name: value for name, value in batch.items() if name not in (TASK, UNIT_TASK, QUESTION)}

    def hook(
        self, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A forward pre-hook of the model."""
        if args and isinstance(args[0], Tensor):
            named = {"input_ids": args[0], **named}
            args = args[1:]
        return args, self.read(named)

    def task_places(self, x: Tensor, part: str) -> Tensor:
        """The place of its task among `tasks` for everything that x holds, broadcastable to ``x.shape[:-1]``."""
        if (place := self._only_task()) is not None:
            return torch.full((1,) * (x.ndim - 1), place, device=x.device)
        if part != "language":
            unit_label = self.labels.get(UNIT_TASK)
            return spread(self.labels[TASK][:0] if unit_label is None else unit_label, x, part).to(x.device)
        ids_BT = self.inputs.get("input_ids")
        tokens = 1 if ids_BT is None else ids_BT.shape[-1]
        label_B = self.labels[TASK].to(x.device)
        flat = x.ndim == 2 and x.shape[0] == len(label_B) * tokens
        return spread(label_B.repeat_interleave(tokens) if flat else label_B, x, part)

    def modality_places(self, x: Tensor) -> Tensor:
        """The place among `kinds` of every token that a linear of the language model reads."""
        ids_BT = self.inputs.get("input_ids")
        if ids_BT is None or ids_BT.shape != x.shape[:-1]:
            raise ConfigError(
                f"What kind of token an input is cannot be told in a linear of the language model: it reads "
                f"{tuple(x.shape[:-1])} tokens, the batch has {None if ids_BT is None else tuple(ids_BT.shape)}. "
                "Leave such linears out with `targets`, or choose an adapter that does not ask for kinds of tokens."
            )
        place_BT = torch.zeros_like(ids_BT)
        for modality, ids in self.tokens.items():
            place_BT[torch.isin(ids_BT, torch.tensor(ids, device=ids_BT.device))] = self.modalities.index(modality)
        return place_BT

    def valid(self, shape: torch.Size) -> Tensor | None:
        """Which tokens of this shape are no padding; None: all of them."""
        mask = self.inputs.get("attention_mask")
        return mask.bool() if isinstance(mask, Tensor) and mask.shape == shape else None

    def questions(self, text_BT: Tensor) -> Tensor:
        """Which of the text tokens a user wrote. While generating, the prompt is all there is."""
        asked: Tensor | None = self.labels.get(QUESTION)
        if asked is not None and asked.shape == text_BT.shape:
            return text_BT & asked.bool()
        valid = self.valid(text_BT.shape)
        return text_BT if valid is None else text_BT & valid

    def _only_task(self) -> int | None:
        """The task of everything in the batch, where there is but one."""
        if self.task is not None:
            if self.task not in self.tasks:
                raise ConfigError(f"`{self.task}` is not among the tasks of this adapter: {list(self.tasks)}.")
            return self.tasks.index(self.task)
        if TASK not in self.labels:
            raise ConfigError(
                f"This adapter has one head for each of the tasks {list(self.tasks)}, and a batch names none. Pass "
                f"`{TASK}` (the place of every row's task), or choose one task with `use_task`."
            )
        places = self.labels[TASK].unique().tolist()
        return int(places[0]) if len(places) == 1 else None


def spread(label_U: Tensor, x: Tensor, part: str) -> Tensor:
    """Labels of U rows, pictures or patches for the first axis of x, which counts them or groups of as many.

    `ConfigError` where it counts something else, or a group holds two labels.
    """
    units, found = len(label_U), x.shape[0]
    group_FG = label_U.view(found, -1) if found and units and units % found == 0 else None
    if group_FG is None or not bool((group_FG == group_FG[:, :1]).all()):
        raise ConfigError(
            f"Tasks cannot be told apart in {part}: a linear reads {found} inputs for {units} rows or pictures of "
            f"several tasks. Give {part} rank 0, or leave such linears out with `targets`."
        )
    return group_FG[:, 0].view(-1, *(1,) * (x.ndim - 2))


def token_ids(config: Any) -> dict[str, tuple[int, ...]]:
    """The tokens that stand for pictures and sound in a model's input, by modality, as its configuration names them."""
    found: dict[str, set[int]] = {}
    for one in _configs(config):
        for modality, names in _TOKENS.items():
            ids = {getattr(one, name) for name in names if isinstance(getattr(one, name, None), int)}
            if ids:
                found.setdefault(modality, set()).update(ids)
    return {modality: tuple(sorted(ids)) for modality, ids in found.items()}


def _configs(config: Any) -> Iterator[Any]:
    """A configuration and those inside it."""
    if config is None:
        return
    yield config
    for name in getattr(config, "sub_configs", None) or ():
        yield from _configs(getattr(config, name, None))
