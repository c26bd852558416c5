"""A final run in float64 by itself: ``torchrun ... -m tests.helpers.float64_run MODEL_FOLDER SPEC.json``."""

import sys
from pathlib import Path

from marslora.finetune.__main__ import main as run
from tests.helpers.exactness import keep_float64
from tests.unit.finetune.tiny import register_float64


def main(folder: str, spec: str) -> int:
    """Register the float64 copy of the model in ``folder`` and run ``spec``, which names it."""
    with keep_float64():
        register_float64(Path(folder))
        return run([spec])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
