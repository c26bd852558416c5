"""Check the names of trackers, which are those of `transformers`, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable

from transformers.integrations import integration_utils

from marslora.core.errors import ConfigError, MissingDependencyError
from marslora.core.runs import Event
from marslora.core.spec import TrackerSpec


def check(spec: TrackerSpec, _: Callable[[Event], None]) -> None:
    """Check the trackers of ``spec``, as `check_trackers` does; called by an executor, it emits nothing."""
    check_trackers(spec.names)


def check_trackers(names: tuple[str, ...]) -> None:
    """Raise `ConfigError` for an unknown tracker and `MissingDependencyError` for one that is not installed."""
    known = sorted(integration_utils.INTEGRATION_TO_CALLBACK)
    installed = integration_utils.get_available_reporting_integrations()
    for name in names:
        if name not in known:
            raise ConfigError(f"`report_to` must name trackers that `transformers` knows, {known}; found `{name}`.")
        if name not in installed:
            raise MissingDependencyError(
                f"`report_to` names the tracker `{name}`, which is not installed. Run: pip install {name}"
            )
