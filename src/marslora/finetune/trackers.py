"""Trackers by the names that `transformers` has for them, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable

from transformers.integrations import integration_utils

from marslora.core.errors import ConfigError, MissingDependencyError
from marslora.core.runs import Event
from marslora.core.spec import TrackerSpec


def check(spec: TrackerSpec, _: Callable[[Event], None]) -> None:
    """The same for whoever plans a final run."""
    check_trackers(spec.names)


def check_trackers(names: tuple[str, ...]) -> None:
    """`ConfigError` for a tracker that `transformers` does not know, `MissingDependencyError` for one not installed."""
    known = sorted(integration_utils.INTEGRATION_TO_CALLBACK)
    installed = integration_utils.get_available_reporting_integrations()
    for name in names:
        if name not in known:
            raise ConfigError(f"`report_to` names `{name}`, which must be one of {known}.")
        if name not in installed:
            raise MissingDependencyError(f"`report_to` names `{name}`, which is not installed. Run: pip install {name}")
