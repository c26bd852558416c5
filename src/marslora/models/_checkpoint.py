"""Look at the files of a checkpoint before and after they are loaded: which are there, whole, and what they hold.

Only the headers of safetensors are read (names, types and places of tensors), never the weights, so this takes moments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from torch import Tensor

from marslora.core.errors import ModelError
from marslora.core.tensor_files import read_header

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The files from which `transformers` takes weights, the first that exists; others are archives of torch."""
QUANTISED_TYPES = frozenset({"I8", "U8", "BOOL"})
"""Types of numbers in safetensors that weights have only where they are quantised; types of 8-bit floats begin with F8.
"""
_POINTER = b"version https://git-lfs"
"""The beginning of the small text that Git LFS leaves in the place of a file that was not downloaded."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the header of its file announces it."""

    name: str
    dtype: str
    file: Path


def find_model_folder(path: str) -> Path | None:
    """The folder of a model's files, that of a hub name in the cache; None if there is none."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    cached = try_to_load_from_cache(path, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def check_files(folder: Path) -> None:
    """Raise `ModelError` for weights of which a file is missing, cut short or was never downloaded.

    Weights that are no safetensors are left to `transformers`.
    """
    for file in list_files(folder):
        if not file.is_file():
            raise ModelError(
                f"The weights of `{folder}` are not complete: {INDEX} names {file.name}, which is not there. "
                "Download or save the model again."
            )
        with file.open("rb") as opened:
            if opened.read(len(_POINTER)) == _POINTER:
                raise ModelError(
                    f"`{file}` is a pointer of Git LFS, not the weights. Run `git lfs pull` in that folder, or "
                    "download the model again."
                )
        try:
            read_header(file)
        except ValueError as error:
            raise ModelError(
                f"The weights of `{folder}` are damaged: {error}. Download or save the model again."
            ) from None
    _check_names(folder)


def list_files(folder: Path) -> list[Path]:
    """The files of safetensors that `transformers` reads the weights from; none if there are no safetensors.

    Raises `ModelError` for an index that cannot be read.
    """
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        return [folder / WEIGHTS] if (folder / WEIGHTS).exists() else []
    try:
        names = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
        return sorted(folder / name for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"`{folder / INDEX}` must say in which file each tensor is, under `weight_map`, and cannot be read "
            f"({type(error).__name__}: {error}). Download or save the model again."
        ) from None


def list_stored(folder: Path) -> Iterator[StoredTensor]:
    """Every tensor of a checkpoint that is stored as safetensors."""
    for file in list_files(folder):
        for name, value in read_header(file).items():
            yield StoredTensor(name, str(value["dtype"]), file)


def read_stored(folder: Path, name: str) -> Tensor | None:
    """The tensor ``name`` of a model as its file holds it; None if the file calls it otherwise.

    A name's beginning may differ: `transformers` renames whole modules when it loads older checkpoints.
    """
    stored = list(list_stored(folder))
    tail = name
    while tail:
        same = [each for each in stored if each.name == tail or each.name.endswith(f".{tail}")]
        if len(same) == 1:
            with safe_open(same[0].file, framework="pt") as opened:
                tensor: Tensor = opened.get_tensor(same[0].name)
            return tensor
        if len(same) > 1:
            return None
        tail = tail.partition(".")[2]
    return None


def find_quantised(folder: Path) -> list[StoredTensor]:
    """The tensors whose numbers are of a type that only quantised weights have."""
    return [each for each in list_stored(folder) if each.dtype in QUANTISED_TYPES or each.dtype.startswith("F8")]


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers of a tensor are finite, in one pass without a copy."""
    if not tensor.is_floating_point() or tensor.numel() == 0 or tensor.is_meta:
        return True
    if tensor.dtype.itemsize == 1:
        tensor = tensor.to(torch.float32)
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _check_names(folder: Path) -> None:
    places: dict[str, Path] = {}
    for each in list_stored(folder):
        if other := places.get(each.name):
            raise ModelError(
                f"The weights of `{folder}` hold `{each.name}` twice, in {other.name} and in {each.file.name}, and "
                "only one would be used. Remove the file that does not belong to the model."
            )
        places[each.name] = each.file
