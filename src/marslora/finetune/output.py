"""The output folder of a final run, which holds the digest of its spec, the adapter and the result."""

from __future__ import annotations

import shutil
from pathlib import Path

from marslora.core.content import find_damage
from marslora.core.errors import MarsloraError
from marslora.core.files import explain_write_errors, replace_folder, write_text
from marslora.core.runs import FinalResult
from marslora.core.spec import FinalSpec
from marslora.finetune.checkpoints import remove_broken
from marslora.methods import AbstractChange

RESULT, DIGEST = "final.json", "spec_digest"


def get_adapter_folder(spec: FinalSpec) -> Path:
    """The folder of the trained adapter, inside the output folder."""
    return Path(spec.output_folder) / "adapter"


def read_result(spec: FinalSpec) -> FinalResult | None:
    """The result of an earlier run of the same spec, with today's id and adapter folder; None if there is none."""
    folder = Path(spec.output_folder)
    try:
        if (folder / DIGEST).read_text() != spec.inputs_digest() or find_damage(get_adapter_folder(spec)):
            return None
        result = FinalResult.load(folder / RESULT)
    except (OSError, ValueError, MarsloraError):
        return None
    return result.model_copy(update={"id": spec.id, "adapter_folder": str(get_adapter_folder(spec))})


def claim_folder(spec: FinalSpec) -> None:
    """Claim the output folder for ``spec``: remove results and checkpoints of other specs, and incomplete ones."""
    folder, digest = Path(spec.output_folder), spec.inputs_digest()
    (folder / RESULT).unlink(missing_ok=True)
    remove_broken(folder / "checkpoints", digest)
    write_text(folder / DIGEST, digest)


def save_result(spec: FinalSpec, change: AbstractChange, result: FinalResult) -> None:
    """Write the adapter, then the result, whose presence means that the adapter is complete. Raises `WriteError`."""
    folder = Path(spec.output_folder)
    temporary = folder / ".adapter"
    shutil.rmtree(temporary, ignore_errors=True)
    with explain_write_errors(temporary):
        change.save(temporary)
    replace_folder(temporary, get_adapter_folder(spec))
    write_text(folder / RESULT, result.to_json())
