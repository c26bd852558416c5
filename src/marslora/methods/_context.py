"""What modules inside a model need to know about the current batch: tasks, modalities of tokens, padding."""

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
"""Fields of a configuration in `transformers` that hold the placeholder tokens of a modality."""


class RoutingRecord(NamedTuple):
    """The routing of one batch by one router, for the load balance."""

    part: str
    probabilities: Tensor
    """The probability of every head for every token, (..., N)."""
    chosen: Tensor
    """The index of the likeliest head for every token, (...)."""


class BatchContext:
    """The current batch, shared by all modules of a change. `read` updates it before every forward."""

    def __init__(self, model: nn.Module, tasks: tuple[str, ...] = ()):
        self.tasks = tasks
        self.enabled = True
        """If False, the model computes what it did before the change."""
        self.task: str | None = None
        """The task of all rows, or None if batches name their tasks."""
        self.routed: list[RoutingRecord] = []
        """One record for each router that ran since the last `read`."""
        self.tokens = token_ids(getattr(model, "config", None))
        self.modalities = ("text", *self.tokens)
        """The modalities of the tokens that a language model reads. Tokens of no other modality are text."""
        self.inputs: Mapping[str, Any] = {}
        self.labels: Mapping[str, Any] = {}

    def read(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Store the entries of a batch that are meant for the method, and return the rest, which is for the model."""
        self.labels = {name: batch[name] for name in (TASK, UNIT_TASK, QUESTION) if batch.get(name) is not None}
        self.inputs = {name: batch[name] for name in ("input_ids", "attention_mask") if batch.get(name) is not None}
        self.routed = []
        return {name: value for name, value in batch.items() if name not in (TASK, UNIT_TASK, QUESTION)}

    def hook(
        self, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read the batch in a forward pre-hook of the model."""
        if args and isinstance(args[0], Tensor):
            named = {"input_ids": args[0], **named}
            args = args[1:]
        return args, self.read(named)

    def task_places(self, x: Tensor, part: str) -> Tensor:
        """Return the index in `tasks` of every token's task, broadcastable to ``x.shape[:-1]``."""
        if (place := self._only_task()) is not None:
            return torch.full((1,) * (x.ndim - 1), place, device=x.device)
        if part != "language":
            unit_label = self.labels.get(UNIT_TASK)
            return align_labels(self.labels[TASK][:0] if unit_label is None else unit_label, x, part).to(x.device)
        ids_BT = self.inputs.get("input_ids")
        tokens = 1 if ids_BT is None else ids_BT.shape[-1]
        label_B = self.labels[TASK].to(x.device)
        flat = x.ndim == 2 and x.shape[0] == len(label_B) * tokens
        return align_labels(label_B.repeat_interleave(tokens) if flat else label_B, x, part)

    def modality_places(self, x: Tensor) -> Tensor:
        """Return the index in `modalities` of every token that a linear of the language model reads."""
        ids_BT = self.inputs.get("input_ids")
        if ids_BT is None or ids_BT.shape != x.shape[:-1]:
            raise ConfigError(
                f"The modality of tokens is unknown in a linear of the language model, because it reads "
                f"{tuple(x.shape[:-1])} tokens and the batch has {None if ids_BT is None else tuple(ids_BT.shape)}. "
                "Exclude such linears with `targets`, or choose an adapter that does not depend on modalities."
            )
        place_BT = torch.zeros_like(ids_BT)
        for modality, ids in self.tokens.items():
            place_BT[torch.isin(ids_BT, torch.tensor(ids, device=ids_BT.device))] = self.modalities.index(modality)
        return place_BT

    def valid(self, shape: torch.Size) -> Tensor | None:
        """Return which tokens of this shape are not padding, or None if that is unknown and all count."""
        mask = self.inputs.get("attention_mask")
        return mask.bool() if isinstance(mask, Tensor) and mask.shape == shape else None

    def questions(self, text_BT: Tensor) -> Tensor:
        """Return which text tokens a user wrote. If the batch does not say (in generation), it is all of them."""
        written: Tensor | None = self.labels.get(QUESTION)
        if written is not None and written.shape == text_BT.shape:
            return text_BT & written.bool()
        valid = self.valid(text_BT.shape)
        return text_BT if valid is None else text_BT & valid

    def _only_task(self) -> int | None:
        """Return the index of the batch's task if it has a single one, otherwise None."""
        if self.task is not None:
            if self.task not in self.tasks:
                raise ConfigError(
                    f"The adapter has no task `{self.task}`. The argument of `use_task` must be one of "
                    f"{list(self.tasks)}, or None if batches name their tasks."
                )
            return self.tasks.index(self.task)
        if TASK not in self.labels:
            raise ConfigError(
                f"The adapter has one head for each of the tasks {list(self.tasks)}, but the batch does not name any. "
                f"Pass `{TASK}`, the index of every row's task, or choose one task with `use_task`."
            )
        places = self.labels[TASK].unique().tolist()
        return int(places[0]) if len(places) == 1 else None


def align_labels(label_U: Tensor, x: Tensor, part: str) -> Tensor:
    """Return labels of U rows, pictures or patches along the first axis of x, which counts them or equal groups.

    Raises `ConfigError` if it counts something else, or if a group has two labels.
    """
    units, length = len(label_U), x.shape[0]
    group_FG = label_U.view(length, -1) if length and units and units % length == 0 else None
    if group_FG is None or not bool((group_FG == group_FG[:, :1]).all()):
        raise ConfigError(
            f"The task of an input is unknown in {part}, because a linear reads {length} inputs for {units} rows or "
            f"pictures of several tasks. Give {part} rank 0, or exclude such linears with `targets`."
        )
    return group_FG[:, 0].view(-1, *(1,) * (x.ndim - 2))


def token_ids(config: Any) -> dict[str, tuple[int, ...]]:
    """Return the placeholder tokens of pictures and sound by modality, read from a model's configuration."""
    tokens: dict[str, set[int]] = {}
    for each in _configs(config):
        for modality, names in _TOKENS.items():
            ids = {getattr(each, name) for name in names if isinstance(getattr(each, name, None), int)}
            if ids:
                tokens.setdefault(modality, set()).update(ids)
    return {modality: tuple(sorted(ids)) for modality, ids in tokens.items()}


def _configs(config: Any) -> Iterator[Any]:
    """Iterate over a configuration and those nested in it."""
    if config is None:
        return
    yield config
    for name in getattr(config, "sub_configs", None) or ():
        yield from _configs(getattr(config, name, None))
