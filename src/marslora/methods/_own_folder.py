"""The folder format of adapters that PEFT does not have, and `attach`, which puts a saved adapter on a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from marslora import methods
from marslora.core.errors import StudyError
from marslora.core.record import Record
from marslora.core.training import PluginSpec
from marslora.methods._base import AbstractChange, AbstractMethod, AdapterPlan
from marslora.methods._find import make_method
from marslora.methods._pattern_check import check_patterns
from marslora.methods._peft_folder import check_finite, list_some, load_peft_folder

if TYPE_CHECKING:
    from marslora.methods._layers import AdaptedModel

CONFIG, WEIGHTS = "marslora_adapter.json", "marslora_adapter.safetensors"
"""Files of the folder: a `SavedAdapter`, and the tensors of `AbstractChange.state`."""

PEFT_CONFIG = "adapter_config.json"
"""The file that makes a folder an adapter of PEFT."""
IMPORTING_FIELDS = ("megatron_config", "tokenizer_name_or_path", "tokenizer_kwargs")
"""Fields of PEFT's configurations that make it import a module, or load a tokenizer, that they name."""

FORMAT = 2
"""The version of the format: it grows by one whenever folders of the version before cannot be read any more."""


class SavedAdapter(Record):
    """How to build an adapter before its weights are loaded."""

    format: int = FORMAT
    """The version of the folder's format."""
    adapter: str
    """The adapter's name, or ``package.module:Class``."""
    options: dict[str, Any]
    """The options that the adapter was made with."""
    plan: AdapterPlan


def write(folder: Path, change: AdaptedModel, method: AbstractMethod) -> None:
    """Write ``change``, which ``method`` made, to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = SavedAdapter(
        adapter=getattr(method, "plugin_name", None) or name_of(type(method)),
        options=method.config.as_dict(),
        plan=change.plan,
    )
    (folder / CONFIG).write_text(saved.to_json())
    save_file(change.state(), folder / WEIGHTS, metadata={"format": "pt"})


def attach(model: nn.Module, folder: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Put the trained adapter in ``folder`` on ``model`` and return it, ready to be called.

    For a plain PEFT folder this is a `PeftModel`. For any other it is an `AbstractChange`: call its ``model``, choose a
    task with ``use_task``, and take it off with ``remove``. Raises `StudyError` if the folder does not contain an
    adapter, or contains one for another model, or one that names code to import, without ``trust_remote_code``; the
    model is then as before. Each tensor of the folder has been found in the model, and the other way round.
    """
    folder = Path(folder)
    if not isinstance(model, nn.Module):
        raise StudyError(f"an adapter is put on a model, found {type(model).__name__}. Load the model first.")
    if (folder / PEFT_CONFIG).exists():
        if not trust_remote_code:
            _check_trust(folder, [name for name, _ in model.named_modules()])
        return load_peft_folder(model, folder)
    _check_format(folder)
    try:
        saved = SavedAdapter.load(folder / CONFIG)
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise StudyError(
            f"{folder} does not contain a readable adapter ({error}). "
            "Pass the folder `final/adapter` of a finished study."
        ) from None
    if ":" in saved.adapter and not trust_remote_code:
        raise _refuse_code(folder / CONFIG, f"`adapter`: {saved.adapter!r}")
    absent = [path for path in (*saved.plan.ranks, *saved.plan.full_modules) if not _has(model, path)]
    if absent:
        raise StudyError(
            f"The adapter in {folder} belongs to another model: {type(model).__name__} has no module `{absent[0]}`. "
            "Load the model that the adapter was trained on."
        )
    check_finite(state, folder)
    method = make_method(PluginSpec(name=saved.adapter, options=saved.options))
    model.requires_grad_(False)
    change = method.apply(model, saved.plan)
    try:
        _load_state(change, state, folder)
    except BaseException:
        change.remove()
        raise
    change.model.requires_grad_(False).eval()
    return change


def _load_state(change: AbstractChange, state: Mapping[str, Tensor], folder: Path) -> None:
    """Load the tensors of an adapter. Raises `StudyError` if one is missing, misshapen, or has no place."""
    try:
        change.load_state(state)
    except (StudyError, RuntimeError, KeyError) as error:
        raise StudyError(
            f"The adapter in {folder} belongs to another model than this {type(change.model).__name__}, or is damaged "
            f"({error}). Load the model that the adapter was trained on, or copy the adapter again."
        ) from None
    if unused := sorted(set(state) - set(change.state())):
        raise StudyError(
            f"The adapter in {folder} holds {list_some(unused)}, which this {type(change.model).__name__} has no place "
            "for. Load the model that the adapter was trained on, or copy the adapter again."
        )


def _check_trust(folder: Path, names: list[str]) -> None:
    """Raise `StudyError` for a PEFT configuration that makes PEFT import modules or load other files by name, or whose
    patterns take too long to match the ``names`` of modules."""
    try:
        config = json.loads((folder / PEFT_CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise StudyError(
            f"{folder / PEFT_CONFIG} cannot be read ({error}). Copy the adapter again, or train it again."
        ) from None
    for field in IMPORTING_FIELDS:
        if isinstance(config, dict) and config.get(field):
            raise _refuse_code(folder / PEFT_CONFIG, f"`{field}`: {config[field]!r}")
    check_patterns(config, names, folder / PEFT_CONFIG)


def _refuse_code(path: Path, what: str) -> StudyError:
    return StudyError(
        f"{path} names code that is not marslora's ({what}), which would be imported. If you trust the source, pass "
        "`trust_remote_code=True`."
    )


def _check_format(folder: Path) -> None:
    """Raise `StudyError` for a folder in the format of another version; a damaged one is left to the reader."""
    try:
        found = json.loads((folder / CONFIG).read_text())["format"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if found != FORMAT:
        raise StudyError(
            f"The adapter in {folder} must have format {FORMAT}, found {found}: another version of marslora wrote it. "
            "Attach it with that version, or train it again."
        )


def name_of(method_class: type) -> str:
    """Return the name by which users select a method: its file's name, or ``package.module:Class``."""
    package, _, name = method_class.__module__.rpartition(".")
    return name if package == methods.__name__ else f"{method_class.__module__}:{method_class.__name__}"


def _has(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True
