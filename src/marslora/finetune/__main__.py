"""One final run over several devices: ``torchrun --nproc_per_node N -m marslora.finetune SPEC.json``."""

from __future__ import annotations

import sys
from pathlib import Path

from marslora.core.errors import EXIT_CODE, MarsloraError
from marslora.core.runs import Event, ProgressEvent
from marslora.core.spec import FinalSpec
from marslora.core.stopping import EXIT_INTERRUPTED, EXIT_TERMINATED, Terminated, exit_on_termination


def main(arguments: list[str]) -> int:
    """Run the `FinalSpec` in the given JSON file, print its events as lines of JSON, and return the exit code."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return EXIT_CODE
    from marslora.finetune.worker import run_final

    try:
        with exit_on_termination():
            run_final(FinalSpec.load(Path(arguments[0])), _print)
    except MarsloraError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CODE
    except (KeyboardInterrupt, Terminated) as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_TERMINATED if isinstance(stopped, Terminated) else EXIT_INTERRUPTED
    return 0


def _print(event: Event) -> None:
    if not isinstance(event, ProgressEvent):
        print(event.model_dump_json(), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
