"""Adapters that PEFT has no type for: a folder that says how to build them, and putting one back on a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from marslora import methods
from marslora.core.errors import StudyError
from marslora.core.record import Record
from marslora.core.training import PluginSpec
from marslora.methods._base import AdapterPlan
from marslora.methods._find import make_method

if TYPE_CHECKING:
    from marslora.methods._layers import AdaptedModel

CONFIG, WEIGHTS = "marslora_adapter.json", "marslora_adapter.safetensors"


class SavedAdapter(Record):
    """What lies beside the weights."""

    format: int = 1
    kind: str
    """The adapter's name, or ``package.module:Class``."""
    options: dict[str, Any]
    plan: AdapterPlan


def write(folder: Path, change: AdaptedModel, method: Any) -> None:
    """Write ``change``, which ``method`` made, to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = SavedAdapter(
        kind=getattr(method, "plugin_name", None) or name_of(type(method)), options=method.options, plan=change.plan
    )
    (folder / CONFIG).write_text(saved.to_json())
    save_file(change.state(), folder / WEIGHTS, metadata={"format": "pt"})


def attach(model: nn.Module, folder: str | Path) -> Any:
    """The trained adapter in ``folder`` on ``model``, ready to be called, whichever kind it is.

    A plain folder of PEFT's gives a `PeftModel`. Any other gives the change: its ``model`` is what is called,
    ``use_task`` chooses a task, ``remove`` takes it off. Raises `StudyError` where the folder holds no adapter, or one
    for another model.
    """
    folder = Path(folder)
    if (folder / "adapter_config.json").exists():
        return PeftModel.from_pretrained(model, str(folder)).eval()
    try:
        saved = SavedAdapter.load(folder / CONFIG)
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise StudyError(f"{folder} holds no adapter that can be read: {error}.") from None
    absent = [path for path in (*saved.plan.ranks, *saved.plan.full_modules) if not _has(model, path)]
    if absent:
        raise StudyError(f"The adapter in {folder} is for another model: {type(model).__name__} has no `{absent[0]}`.")
    model.requires_grad_(False)
    change = make_method(PluginSpec(name=saved.kind, options=saved.options)).apply(model, saved.plan)
    change.load_state(state)
    change.model.requires_grad_(False).eval()
    return change


def name_of(kind: type) -> str:
    """The name by which users know a kind."""
    room, _, name = kind.__module__.rpartition(".")
    return name if room == methods.__name__ else f"{kind.__module__}:{kind.__name__}"


def _has(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True
