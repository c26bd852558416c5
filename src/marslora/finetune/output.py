"""The output folder of a final run: which spec it belongs to, its adapter, its result."""

from __future__ import annotations

import shutil
from pathlib import Path

from marslora.core.errors import MarsloraError
from marslora.core.files import explain_write_errors, replace_folder, write_text
from marslora.core.runs import FinalResult
from marslora.core.spec import FinalSpec
from marslora.finetune.checkpoints import remove_broken
from marslora.methods import AbstractChange

RESULT, DIGEST = "final.json", "spec_digest"


def adapter_folder(spec: FinalSpec) -> Path:
    """Where the trained adapter goes."""
    return Path(spec.output_folder) / "adapter"


def read_result(spec: FinalSpec) -> FinalResult | None:
    """The result of an earlier run of the same spec, if there is one, with the places where things are now."""
    folder = Path(spec.output_folder)
    try:
        if (folder / DIGEST).read_text() != spec.inputs_digest() or not adapter_folder(spec).is_dir():
            return None
        result = FinalResult.load(folder / RESULT)
    except (OSError, ValueError, MarsloraError):
        return None
    return result.model_copy(update={"id": spec.id, "adapter_folder": str(adapter_folder(spec))})


def claim_folder(spec: FinalSpec) -> None:
    """Claim the folder for ``spec``: results and checkpoints of another spec, and half-written ones, go."""
    folder, digest = Path(spec.output_folder), spec.inputs_digest()
    (folder / RESULT).unlink(missing_ok=True)
    remove_broken(folder / "checkpoints", digest)
    write_text(folder / DIGEST, digest)


def save(spec: FinalSpec, change: AbstractChange, result: FinalResult) -> None:
    """Write the adapter, then the result, which says that the adapter is whole."""
    folder = Path(spec.output_folder)
    beside = folder / ".adapter"
    shutil.rmtree(beside, ignore_errors=True)
    with explain_write_errors(beside):
        change.save(beside)
    replace_folder(beside, adapter_folder(spec))
    write_text(folder / RESULT, result.to_json())
