"""Encode examples into a model's inputs: tokens, pictures, and labels on answers only; cached on disk by content."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray
from torch import Tensor

from marslora.core.errors import DataError
from marslora.core.labels import IGNORED
from marslora.core.vocabulary import read_vocabulary
from marslora.data._build import build_rows_folder
from marslora.data._collate import join_pictures, pad_texts
from marslora.data._example import Example
from marslora.data._ragged import Ragged, read_ragged
from marslora.data.splits import BadRow, RowProgress, check_bad_share

_LAYOUT = 6
"""The version of the cache's files: raise it if what is written changes, so that old folders are not read."""


@dataclass(frozen=True)
class EncodedRows:
    """The encoded rows of one split, read from memory maps. Refused rows are left out: see ``rows`` and ``skipped``."""

    texts: dict[str, Ragged]
    """By key of the processor: one entry per row, whose first axis is the row's tokens; ``labels`` is one of them."""
    pictures: dict[str, Ragged]
    """By key of the processor: one entry for every different sequence of media."""
    picture_of: NDArray[np.int64]
    """Row -> entry of ``pictures``; -1 for a row without any. Rows with equal entries have the same pictures and
    sounds."""
    by_row: tuple[str, ...]
    """The keys of ``pictures`` whose first axis counts rows; that of the others counts pictures, tiles or sounds."""
    rows: NDArray[np.int64]
    """Row -> index of its example."""
    skipped: tuple[BadRow, ...]
    """Rows that were refused, and why."""
    notes: dict[str, int]
    """What the chat template or the tokenizer left out -> the number of rows."""
    pad_token_id: int
    digest: str
    """Changes when a row, the processor or a limit changes."""
    folder: Path

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_tokens(self) -> NDArray[np.int64]:
        """Tokens of every row, image tokens included."""
        return self.texts["input_ids"].lengths

    @cached_property
    def num_answer_tokens(self) -> NDArray[np.int64]:
        """Tokens of every row that the loss counts."""
        labels = self.texts["labels"]
        return np.array([np.count_nonzero(labels[row] != IGNORED) for row in range(len(self))], dtype=np.int64)

    @property
    def used_tokens(self) -> NDArray[np.int64]:
        """Every id of a token in the rows, once, in increasing order."""
        return self.texts["input_ids"].distinct()

    def pick_varied(self, most: int) -> list[int]:
        """At most ``most`` rows that together have every kind of picture and sound of the split; else the first."""
        picked: list[int] = []
        for pictures in self.pictures.values():
            has_entry = np.array(pictures.lengths > 0)
            shows = np.flatnonzero((self.picture_of >= 0) & has_entry[self.picture_of])
            if len(shows) and not set(picked) & set(shows.tolist()):
                picked.append(int(shows[0]))
        others = (row for row in range(len(self)) if row not in picked)
        return sorted([*picked, *itertools.islice(others, max(most - len(picked), 0))][:most])

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        """The rows as keyword arguments of the model, on the CPU: texts (B, T, ...) padded on the right with
        attention 0 and label -100, pictures joined over the rows in their order."""
        length = int(self.num_tokens[indices].max())
        values = {"input_ids": self.pad_token_id, "labels": IGNORED}
        batch = {}
        for name, texts in self.texts.items():
            entries = [texts[row] for row in indices]
            if any(entry is not None for entry in entries):
                batch[name] = pad_texts(entries, length, values.get(name, 0))
        return batch | self._join_pictures(indices)

    def prompts(self, indices: Sequence[int], ends: Sequence[int]) -> dict[str, Tensor]:
        """The rows up to (not including) their tokens ``ends``, which they answer, as keyword arguments of the model:
        padded on the left with attention 0, with all pictures and sounds of the rows, without labels."""
        values, batch = {"input_ids": self.pad_token_id}, {}
        for name, texts in self.texts.items():
            entries = [texts[row] for row in indices]
            if name != "labels" and any(entry is not None for entry in entries):
                turned = [None if e is None else e[:end][::-1] for e, end in zip(entries, ends, strict=True)]
                batch[name] = pad_texts(turned, max(ends), values.get(name, 0)).flip(1)
        return batch | self._join_pictures(indices)

    def _join_pictures(self, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        batch = {}
        for name, pictures in self.pictures.items():
            entries = [pictures[place] if place >= 0 else None for place in self.picture_of[indices]]
            if any(entry is not None for entry in entries):
                batch[name] = join_pictures(entries, name in self.by_row)
        return batch


def encode(
    examples: Sequence[Example],
    processor: Any,
    *,
    cache_folder: str | Path | None = None,
    max_length: int | None = None,
    max_bad_share: float = 0.01,
    progress: RowProgress | None = None,
) -> EncodedRows:
    """Encode every example with the model's own processor and chat template.

    ``labels`` are the tokens of the answers, and -100 elsewhere: what the template marks with ``{% generation %}``, or,
    if it marks nothing, the assistant's turns, each with the tokens that end it.
    The result is written to ``cache_folder`` (None: a folder that is deleted with the object), under a name made of the
    content of the examples, the processor, its template and ``max_length``. A second call reads it; a damaged one is
    written again. Rows longer than ``max_length`` tokens, media that cannot be decoded are refused and
    listed in ``skipped``.
    Raises `DataError` if they are more than ``max_bad_share``, `ModelError` for a processor that cannot be used.
    """
    digest = _compute_digest(examples, processor, max_length)
    root = Path(tempfile.mkdtemp(prefix="marslora-")) if cache_folder is None else Path(cache_folder)
    with contextlib.ExitStack() as on_error:
        if cache_folder is None:
            on_error.callback(shutil.rmtree, root, ignore_errors=True)
        encoded = _read_or_build(root, digest, examples, processor, max_length, progress)
        if examples:
            check_bad_share(len(encoded.skipped), encoded.skipped, len(examples), max_bad_share, "rows")
        on_error.pop_all()
    if cache_folder is None:
        weakref.finalize(encoded, shutil.rmtree, root, ignore_errors=True)
    return encoded


def _read_or_build(
    cache_folder: Path,
    digest: str,
    examples: Sequence[Example],
    processor: Any,
    max_length: int | None,
    progress: RowProgress | None,
) -> EncodedRows:
    folder = _name_folder(cache_folder, digest)
    encoded = open_encoded(cache_folder, digest, processor)
    if encoded is None:
        shutil.rmtree(folder, ignore_errors=True)
        build_rows_folder(folder, examples, processor, max_length, progress or _show_nothing)
        encoded = open_encoded(cache_folder, digest, processor)
    if encoded is None:
        raise DataError(
            f"The encoded rows in `{folder}` were written but cannot be read back. Free some space on that disk, or "
            "choose another study folder."
        )
    return encoded


def _show_nothing(done: int, total: int) -> None:
    """Ignore progress, because nobody asked for it."""


def _name_folder(cache_folder: Path, digest: str) -> Path:
    return cache_folder / f"rows-{digest}"


def open_encoded(cache_folder: Path, digest: str, processor: Any) -> EncodedRows | None:
    """The rows of this digest in the cache; None if it has none, or damaged ones."""
    folder = _name_folder(cache_folder, digest)
    try:
        lists, meta = read_ragged(folder)
    except (OSError, EOFError, ValueError, KeyError):
        return None
    tokenizer = processor.tokenizer
    vocabulary = read_vocabulary(processor)
    paddings = [each for each in (tokenizer.pad_token_id, tokenizer.eos_token_id) if each is not None]
    return EncodedRows(
        texts={name.partition(".")[2]: values for name, values in lists.items() if name.startswith("texts.")},
        pictures={name.partition(".")[2]: values for name, values in lists.items() if name.startswith("pictures.")},
        picture_of=_read_numbers(lists["rows.picture_of"]),
        by_row=tuple(meta["by_row"]),
        rows=_read_numbers(lists["rows.rows"]),
        notes=meta["notes"],
        skipped=tuple(BadRow.parse(row) for row in meta["skipped"]),
        pad_token_id=next((each for each in paddings if not (vocabulary and vocabulary.find_beyond([each]))), 0),
        digest=digest,
        folder=folder,
    )


def _read_numbers(numbers: Ragged) -> NDArray[np.int64]:
    entry = numbers[0]
    return np.zeros(0, dtype=np.int64) if entry is None else np.array(entry)


def digest_processor(processor: Any, max_length: int | None) -> str:
    """16 hex digits that change when the processor, its template, its tokenizer or ``max_length`` does."""
    hashed = hashlib.sha256(f"{_LAYOUT} {transformers.__version__} {max_length}".encode())
    hashed.update(json.dumps(processor.to_dict(), sort_keys=True, default=str).encode())
    hashed.update(repr(processor.chat_template or processor.tokenizer.chat_template).encode())
    hashed.update(json.dumps(processor.tokenizer.init_kwargs, sort_keys=True, default=str).encode())
    hashed.update(repr(sorted(processor.tokenizer.get_vocab().items())).encode())
    hashed.update(repr(read_vocabulary(processor)).encode())
    return hashed.hexdigest()[:16]


def _compute_digest(examples: Sequence[Example], processor: Any, max_length: int | None) -> str:
    hashed = hashlib.sha256(digest_processor(processor, max_length).encode())
    limits: set[tuple[int, ...]] = set()
    for example in examples:
        hashed.update(example.digest.encode())
        limits |= {(image.max_pixels,) for image in example.images}
        limits |= {(video.max_pixels, video.max_frames) for video in example.videos}
    hashed.update(repr(sorted(limits)).encode())
    return hashed.hexdigest()[:20]
