"""Where a model is: a folder, a name on the hub, an object in memory. Without torch, so that it is said at once."""

from __future__ import annotations

from pathlib import Path

from marslora.core.errors import ModelError
from marslora.models._hub import resolve_hub_name

MEMORY = "memory:"
"""What the path of a model in memory begins with."""


def check_model_path(path: str) -> None:
    """`ModelError` where no model can be loaded from ``path``: said before the slow imports that loading needs."""
    if not path.startswith(MEMORY):
        resolve_path(path)


def resolve_path(path: str) -> str:
    """``path`` if `from_pretrained` has a chance with it; `ModelError` for a folder that is missing or holds no model.

    A name of one or two words (``llava`` or ``owner/llava``) that is no folder here is taken for a hub name, and
    gives its folder in the cache where there is no network.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return str(folder)
    if folder.exists():
        raise ModelError(f"Model `{path}` is a file. Name the folder that holds its config.json.")
    in_a_folder_here = "/" in path and folder.parent.is_dir()
    if in_a_folder_here or path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ModelError(f"Model folder `{path}` does not exist. Name a folder with a config.json, or a hub name.")
    return resolve_hub_name(path)


def _check_folder(folder: Path) -> None:
    if (folder / "config.json").is_file():
        return
    if (folder / "adapter_config.json").is_file():
        raise ModelError(f"`{folder}` holds a PEFT adapter. Name the folder of its base model.")
    found = sorted(item.name for item in folder.iterdir())[:5]
    raise ModelError(f"`{folder}` is not a model folder: it has no config.json (found {found}).")
