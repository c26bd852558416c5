"""Locate a model: a folder, a name on the hub, or an object in memory. Without torch, so that errors come at once."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from marslora.core.content import digest_model_folder
from marslora.core.errors import ModelError
from marslora.models._hub import resolve_hub_name

MEMORY = "memory:"
"""The beginning of the path of a model in memory."""


def check_model_path(path: str) -> None:
    """Raise `ModelError` if no model can be loaded from ``path``, before the slow imports that loading needs."""
    if not path.startswith(MEMORY):
        resolve_path(path)


def resolve_path(path: str) -> str:
    """What `from_pretrained` should get for ``path``; `ModelError` for a folder that is missing or has no model.

    A name of one or two words (``llava`` or ``owner/llava``) that is not a folder here is taken for a hub name; without
    a network it becomes its folder in the cache.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return str(folder)
    if folder.exists():
        raise ModelError(
            f"Model `{path}` must be a folder or a hub name, but is a file. Name the folder that holds it."
        )
    in_a_folder_here = "/" in path and folder.parent.is_dir()
    if in_a_folder_here or path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ModelError(f"Model folder `{path}` does not exist. Name a folder with a config.json, or a hub name.")
    return resolve_hub_name(path)


def fingerprint_model_files(path: str) -> str:
    """A digest of what a model's files hold, wherever they are; that of one in memory is in its name."""
    if path.startswith(MEMORY):
        return path
    folder = Path(path).expanduser()
    if not folder.is_dir():
        cached = try_to_load_from_cache(path, "config.json")
        if not isinstance(cached, str):
            return path
        folder = Path(cached).parent
    return digest_model_folder(folder)


def _check_folder(folder: Path) -> None:
    if (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"`{folder}` holds both a model (config.json) and a PEFT adapter (adapter_config.json), and "
                "`transformers` would load the adapter's base model instead. Move the adapter to a folder of its own."
            )
        return
    if (folder / "adapter_config.json").is_file():
        raise ModelError(f"`{folder}` must hold a model, but holds a PEFT adapter. Name the folder of its base model.")
    files = sorted(item.name for item in folder.iterdir())[:5]
    raise ModelError(
        f"`{folder}` is not a model folder: it has no config.json (found {files}). Name the folder that has one."
    )
