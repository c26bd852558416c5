"""Where the parts of a model are: the module paths of its towers, its language model and its head."""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from marslora.models import overrides as override_files
from marslora.models._classes import list_modalities

PROJECTOR = re.compile(
    r"(^|\.)(multi_modal_projector|mm_projector|modality_projection|connector|projector|aligner"
    r"|(deepstack_)?merger(_list)?|vision_projection|vision_adapter|image_to_text_projection|language_projection"
    r"|visual_projection|embed_vision|embed_audio|vision_embedder|qformer|resampler_model|img_projection_\w+"
    r"|\w+_proj_for_\w+|high_res_vision_(neck|proj)|vision_embed_tokens)(?=\.|$)"
)
"""Names of projectors in `transformers`: between a tower and the language model, whatever each family calls them."""
GENERATOR = re.compile(
    r"(^|\.)(talker|token2wav|code2wav|vqmodel|generation_\w+|dit|codec_model|action_out_proj|embed_action_time"
    r"|word_timestamp_\w+)(\.|$)"
)
"""Names of modules that generate sound, images or actions, which fine-tuning on answers does not touch."""
TOWER_END = re.compile(r"\.proj\d?")
"""A direct child of a tower with this name maps to the language model's width (Qwen-Omni's audio towers)."""
MODALITIES = {"vision": ("image", "video"), "audio": ("audio",)}
"""The modalities that a tower of each part reads, as `transformers` calls them."""


def is_inside(name: str, path: str) -> bool:
    """Whether the module or parameter ``name`` is at or below ``path``; everything is below the empty path."""
    return not path or name == path or name.startswith(path + ".")


@dataclass(frozen=True)
class Layout:
    """Which part a path belongs to. Decided in this order: head, generator, override, tower, projector, language."""

    towers: dict[str, tuple[str, ...]]
    """Module paths by part."""
    decoder: str
    """The language model."""
    head: str | None
    """The layer that makes logits; None if it has no path of its own."""
    overrides: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Module paths by part, from the family's file in `marslora.models.overrides`."""
    projectors: tuple[str, ...] = ()
    """The topmost modules of the projector."""

    def part_of(self, name: str) -> str | None:
        """The part of a linear or parameter; None if it belongs to no part."""
        if (self.head is not None and is_inside(name, self.head)) or "lm_head" in name.split("."):
            return None
        if GENERATOR.search(name):
            return None
        for part, paths in self.overrides.items():
            if any(is_inside(name, path) for path in paths):
                return part
        for part, paths in self.towers.items():
            for path in paths:
                if is_inside(name, path):
                    rest = name[len(path) :]
                    return "projector" if PROJECTOR.search(rest) or TOWER_END.fullmatch(rest) else part
        if PROJECTOR.search(name):
            return "projector"
        return "language" if is_inside(name, self.decoder) else None

    def paths(self, part: str) -> tuple[str, ...]:
        """The module paths of ``part``; another part's path may lie inside one of them."""
        if part in self.overrides:
            return self.overrides[part]
        if part == "language":
            return (self.decoder,)
        return self.projectors if part == "projector" else self.towers.get(part, ())


def find_layout(model: Any) -> Layout:
    """The layout of ``model``, from what `transformers` declares, from names, and from the family's override file."""
    root = getattr(model, "thinker", model)  # the Omni classes wrap the model that reads and writes text
    names = {module: name for name, module in model.named_modules()}
    overrides = _read_overrides(model.config.model_type)
    towers = {part: _find_towers(model, root, part, names) for part in MODALITIES if part not in overrides}
    if not any(towers.values()) and isinstance(getattr(root, "encoder", None), nn.Module):
        towers["vision"] = (names[root.encoder],)
    decoder = root.get_decoder()
    head = root.get_output_embeddings()
    layout = Layout(
        towers=towers,
        decoder=names.get(decoder, "") if isinstance(decoder, nn.Module) else "",
        head=names.get(head),
        overrides=overrides,
    )
    return replace(layout, projectors=_find_projectors(model, layout))


def _find_towers(model: Any, root: Any, part: str, names: dict[nn.Module, str]) -> tuple[str, ...]:
    wanted = set(MODALITIES[part])
    if not wanted & list_modalities(root):
        return ()
    towers: list[str] = []
    encoder = root.get_encoder(modality=MODALITIES[part][0])
    if isinstance(encoder, nn.Module) and encoder is not root and encoder is not root.base_model:
        towers.append(names[encoder])
    for name, module in model.named_modules():
        if not name or not isinstance(module, PreTrainedModel) or any(is_inside(name, path) for path in towers):
            continue
        declared = list_modalities(module)
        if declared and declared <= wanted:
            towers.append(name)
    decoder = names.get(root.get_decoder(), "")
    return tuple(name for name in towers if not _is_something_else(name, decoder))


def _is_something_else(name: str, decoder: str) -> bool:
    """Whether it is a projector that is a model of its own, a generator, or a wrapper around the language model."""
    return bool(PROJECTOR.search(name) or GENERATOR.search(name)) or is_inside(decoder, name)


def _find_projectors(model: nn.Module, layout: Layout) -> tuple[str, ...]:
    """The topmost modules that belong to the projector."""
    topmost: list[str] = []
    for name, _ in model.named_modules():
        if name and layout.part_of(name) == "projector" and not any(is_inside(name, top) for top in topmost):
            topmost.append(name)
    return tuple(topmost)


def _read_overrides(model_type: str) -> dict[str, tuple[str, ...]]:
    name = f"{override_files.__name__}.{model_type.replace('-', '_').replace('.', '_')}"
    if importlib.util.find_spec(name) is None:
        return {}
    paths: dict[str, tuple[str, ...]] = importlib.import_module(name).PATHS
    return paths
