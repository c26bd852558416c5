"""Load a folder of PEFT, and compare every tensor of it with what the model then holds: PEFT itself would only warn."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict, load_peft_weights
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from torch import Tensor, nn

from marslora.core.errors import StudyError

NAMED = 3
"""Tensors that a message names; of more it says how many they are."""
_OTHER_MODEL = "Load the model that the adapter was trained on, or copy the adapter again."


def load_peft_folder(model: nn.Module, folder: Path) -> PeftModel:
    """``model`` with the adapter in ``folder``, ready to be called.

    Raises `StudyError`, and leaves the model as it was, unless each tensor of the folder has its place in the adapted
    model, and each weight of the adapter comes from the folder.
    """
    _check_family(model, folder)
    stored = _read_weights(model, folder)
    with _restore_on_error(model):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Found missing adapter keys")  # they are looked for below
                warnings.simplefilter("ignore", FutureWarning)  # PEFT calls `is_gradient_checkpointing` by its old name
                adapted = PeftModel.from_pretrained(model, str(folder), ignore_mismatched_sizes=True)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OSError) as error:
            raise StudyError(
                f"The adapter in {folder} cannot be put on {type(model).__name__} ({_first_line(error)}). "
                f"{_OTHER_MODEL}"
            ) from None
        _check_all_loaded(model, adapted, stored, folder)
    return adapted.eval()


def list_some(names: list[str]) -> str:
    """The first `NAMED` of some names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"`{name}`" for name in names[:NAMED]) + more


def check_finite(stored: Mapping[str, Tensor], folder: Path) -> None:
    """Raise `StudyError` for tensors of an adapter that hold numbers that are not finite."""
    broken = [name for name, tensor in stored.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise StudyError(
            f"The adapter in {folder} holds numbers that are not finite: {list_some(broken)}. Copy it again, or train "
            "it again."
        )


def _check_family(model: nn.Module, folder: Path) -> None:
    """Raise `StudyError` if PEFT noted that it adapted a model of another architecture, whose layers may fit."""
    try:
        noted = json.loads((folder / "adapter_config.json").read_text())["auto_mapping"]["base_model_class"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    known = getattr(transformers, str(noted), None)
    expected, found = getattr(known, "config_class", None), getattr(model, "config_class", None)
    if expected and found and expected is not found:
        raise StudyError(
            f"The adapter in {folder} belongs to another model: it was trained on a {noted}, and this is a "
            f"{type(model).__name__}. {_OTHER_MODEL}"
        )


def _read_weights(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """The tensors of the folder, named as PEFT names them when it loads them into ``model``."""
    names = getattr(model, "_checkpoint_conversion_mapping", {})
    if not (folder / SAFETENSORS_WEIGHTS_NAME).is_file():
        raise StudyError(
            f"{folder} has the settings of an adapter but no weights ({SAFETENSORS_WEIGHTS_NAME}; other formats are "
            "not read, because they can run code). Copy the adapter again, or save it with PEFT."
        )
    try:
        stored: dict[str, Tensor] = load_peft_weights(str(folder), device="cpu", key_mapping=names)
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        raise StudyError(
            f"The weights of the adapter in {folder} cannot be read ({_first_line(error)}). Copy it again, or train it "
            "again."
        ) from None
    check_finite(stored, folder)
    return stored


def _check_all_loaded(model: nn.Module, adapted: PeftModel, stored: Mapping[str, Tensor], folder: Path) -> None:
    own: dict[str, Tensor] = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    other = [name for name in stored if name in own and own[name].shape != stored[name].shape]
    missing = sorted(set(own) - set(stored))
    base = dict(adapted.named_parameters())
    unused = sorted(name for name in set(stored) - set(own) if not _equals(base.get(name), stored[name]))
    problems = [
        f"it has no {list_some(missing)}" if missing else "",
        f"its {list_some(unused)} {'have' if len(unused) > 1 else 'has'} no place" if unused else "",
        *(f"its `{name}` is {tuple(stored[name].shape)} instead of {tuple(own[name].shape)}" for name in other[:1]),
    ]
    if found := "; ".join(filter(None, problems)):
        raise StudyError(
            f"The adapter in {folder} belongs to another model than this {type(model).__name__}, or is damaged: "
            f"{found}. {_OTHER_MODEL}"
        )


def _equals(parameter: Tensor | None, stored: Tensor) -> bool:
    """Whether the model holds a stored tensor: PEFT also saves embeddings that were resized."""
    if parameter is None or parameter.shape != stored.shape:
        return False
    return bool(torch.equal(parameter.detach().to("cpu", stored.dtype), stored))


@contextlib.contextmanager
def _restore_on_error(model: nn.Module) -> Iterator[None]:
    """Put the modules of ``model`` back, and what they train, if what is done within it fails."""
    modules, had_settings = dict(model.named_modules()), hasattr(model, "peft_config")
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        yield
    except BaseException:
        for name, module in modules.items():  # parents come before what they hold
            if name and model.get_submodule(name) is not module:
                model.set_submodule(name, module)
        if not had_settings and hasattr(model, "peft_config"):
            del model.peft_config
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained[name])
        raise


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
