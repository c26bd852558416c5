"""``marslora doctor``: what this machine can do."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import typer
from packaging.requirements import Requirement
from rich.table import Table

from marslora.core.errors import MissingDependencyError
from marslora.listeners.console import PlainConsole, print_line
from marslora.report.numbers import format_bytes

PACKAGE = "marslora"
TESTED = {
    "torch": "2.13.0",
    "transformers": "5.24.0",
    "peft": "0.21.2",
    "accelerate": "1.15.0",
    "datasets": "5.2.0",
    "optuna": "5.0.0",
    "huggingface-hub": "2.4.0",
}
"""The versions that the tests last ran with together; a test compares them with what it runs with."""


def command() -> None:
    """Say what this machine can do: devices, precision, packages and extras.

    Exit code: 0 if all that is needed is there, 1 if a package is missing or too old.

    Example: marslora doctor
    """
    console, requirements = PlainConsole(), read_requirements()
    for name, value in describe_machine():
        print_line(console, (f"{name:<10}", "bold"), value)
    table = Table(box=None)
    for head in ("package", "needed", "installed", "tested with", ""):
        table.add_column(head)
    missing = 0
    for requirement in sorted(requirements, key=lambda each: each.name):
        if requirement.marker is None:
            installed, problem = check_requirement(requirement)
            missing += bool(problem)
            tested = TESTED.get(requirement.name, "")
            table.add_row(requirement.name, str(requirement.specifier), installed or "-", tested, problem)
    console.print(table)
    for extra, problems in check_extras(requirements):
        way = f"pip install 'marslora[{extra}]' ({', '.join(problems)})" if problems else "installed"
        print_line(console, (f"{extra:<10}", "bold"), way)
    if missing:
        raise typer.Exit(1)


def read_requirements() -> list[Requirement]:
    """What the installed package needs. Raises `MissingDependencyError` if it runs without having been installed."""
    try:
        return [*map(Requirement, metadata.requires(PACKAGE) or ())]
    except metadata.PackageNotFoundError:
        raise MissingDependencyError(
            "marslora runs from its sources, so what it needs is not known. Install it: pip install -e ."
        ) from None


def describe_machine() -> Iterator[tuple[str, str]]:
    """(name, value) of the system, its memory and its devices."""
    import psutil  # type: ignore[import-untyped]
    import torch

    version = metadata.version(PACKAGE)
    yield "marslora", f"{version}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    memory = psutil.virtual_memory()
    free = shutil.disk_usage(Path.cwd()).free
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "cpu", f"{cores} cores, {format_bytes(memory.available)} of {format_bytes(memory.total)} memory free"
    yield "disk", f"{format_bytes(free)} free in this folder"
    yield from describe_accelerators(torch)
    yield "precision", _describe_precision(torch)


def describe_accelerators(torch: Any) -> Iterator[tuple[str, str]]:
    """(``cuda:0``, its name and memory) of every accelerator, or that there is none."""
    if not torch.cuda.is_available():
        mps = torch.backends.mps.is_available()
        yield ("mps", "Apple GPU") if mps else ("gpu", "none that torch can use: everything runs on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield f"cuda:{index}", f"{name}, {format_bytes(free)} of {format_bytes(total)} memory free"


def _describe_precision(torch: Any) -> str:
    if torch.cuda.is_available():
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return (
            "bfloat16 (with --dtype auto), float32, float16" if has_bfloat16 else "float32 (with --dtype auto), float16"
        )
    return "float32 (with --dtype auto), bfloat16"


def check_requirement(requirement: Requirement) -> tuple[str, str]:
    """(installed version, what is wrong with it); both are empty where they do not apply."""
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return "", f"missing: pip install '{requirement.name}{requirement.specifier}'"
    if not requirement.specifier.contains(installed, prereleases=True):
        return installed, f"too old: pip install -U '{requirement.name}{requirement.specifier}'"
    return installed, ""


def check_extras(requirements: list[Requirement]) -> Iterator[tuple[str, list[str]]]:
    """(extra, the packages that it lacks here) of every extra."""
    for extra in sorted(metadata.metadata(PACKAGE).get_all("Provides-Extra") or ()):
        own = [r for r in requirements if r.marker is not None and r.marker.evaluate({"extra": extra})]
        yield extra, [r.name for r in own if check_requirement(r)[1]]
