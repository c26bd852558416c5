"""One final run over several devices: ``torchrun --nproc_per_node N -m marslora.finetune SPEC.json``.

A plan that names Python code from outside marslora, or whose model comes with some, also needs
``--trust-remote-code``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from marslora.core.errors import EXIT_CODE, ConfigError, MarsloraError
from marslora.core.plain_text import escape_controls
from marslora.core.runs import Event, ProgressEvent
from marslora.core.spec import FinalSpec
from marslora.core.stopping import EXIT_INTERRUPTED, EXIT_TERMINATED, Terminated, exit_on_termination

TRUST = "--trust-remote-code"
"""The word that allows to run code that a plan names."""


def main(arguments: list[str]) -> int:
    """Run the `FinalSpec` in the given JSON file, print its events as lines of JSON, and return the exit code."""
    paths = [word for word in arguments if word != TRUST]
    if len(paths) != 1 or paths[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return EXIT_CODE
    from marslora.finetune.worker import run_final

    try:
        spec = _read_plan(Path(paths[0]), trusts=TRUST in arguments)
        with exit_on_termination():
            run_final(spec, _print)
    except MarsloraError as error:
        print(f"error: {escape_controls(str(error))}", file=sys.stderr)
        return EXIT_CODE
    except (KeyboardInterrupt, Terminated) as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_TERMINATED if isinstance(stopped, Terminated) else EXIT_INTERRUPTED
    return 0


def _read_plan(path: Path, *, trusts: bool) -> FinalSpec:
    """Raises `ConfigError` for a file that is no plan, and for one that names code that is not trusted."""
    try:
        spec = FinalSpec.load(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is not the plan of a final run ({error}). Name plan/final.json of a study."
        ) from None
    training = spec.training
    named = [plugin.name for plugin in (training.adapter, training.optimizer, training.gradients) if ":" in plugin.name]
    named += [objective.function for objective in training.objectives if objective.function is not None]
    named += ["the model's own code"] if spec.model.trust_remote_code else []
    if named and not trusts:
        raise ConfigError(
            f"{path} names code that is not marslora's ({', '.join(named)}), which would be run. If you trust it, add "
            f"{TRUST}."
        )
    return spec


def _print(event: Event) -> None:
    if not isinstance(event, ProgressEvent):
        print(event.model_dump_json(), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
