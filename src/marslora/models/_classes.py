"""From a model's folder to its configuration and the class that `transformers` builds from it."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
)

from marslora.core.errors import ModelError
from marslora.models.folders import resolve_path


def read_config(path: str, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The configuration in ``path``; `ModelError` where there is none that `transformers` knows."""
    try:
        return AutoConfig.from_pretrained(resolve_path(path), trust_remote_code=trust_remote_code)
    except ModelError:
        raise
    except Exception as error:  # a wrong field raises what its own validator chose
        raise ModelError(
            f"The configuration of `{path}` cannot be read: {first_line(error)}. It must be a folder that "
            "`transformers` can load, or a hub name that can be reached from here."
        ) from None


def find_model_class(config: PreTrainedConfig, path: str) -> type[PreTrainedModel]:
    """The multimodal class of a configuration; `ModelError` for one that only reads text."""
    found = _mapped_class(config) or _named_class(config)
    if found is None or list_modalities(found) <= {"text"}:
        raise ModelError(
            f"`{path}` ({config.model_type}) is not multimodal: its model reads text only. "
            "Name a model that takes pictures or sound, e.g. a LLaVA, Qwen-VL or Qwen-Audio model."
        )
    return found


def list_modalities(model: Any) -> set[str]:
    """What a model (or its class) declares to read, e.g. ``{"image", "text"}``."""
    declared = model.input_modalities
    return {declared} if isinstance(declared, str) else set(declared or ())


def first_line(error: Exception) -> str:
    """The first line of an error's text, without its full stop."""
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")


def _mapped_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    for mapping in (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_FOR_MULTIMODAL_LM_MAPPING):
        if type(config) in mapping:
            found: Any = mapping[type(config)]
            first: type[PreTrainedModel] = found[0] if isinstance(found, tuple) else found
            return first
    return None


def _named_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    name = (config.architectures or [None])[0]
    found = getattr(transformers, name, None) if name else None
    return found if isinstance(found, type) and issubclass(found, PreTrainedModel) else None
