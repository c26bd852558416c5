"""Refuse regular expressions that a stranger's adapter holds if matching them would take forever."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from marslora.core.errors import StudyError

MATCH_SECONDS = 0.2
"""How long one match may take. Names of modules have some hundred characters, and a match takes microseconds."""
START_SECONDS, PAIR_SECONDS = 1.0, 1e-4
"""How long all matches may take: to start with, and for each of them."""
PATTERN_FIELDS = ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save", "target_parameters")
"""Fields of PEFT's configurations whose texts are regular expressions; in lists they are plain endings of names."""
KEY_FIELDS = ("rank_pattern", "alpha_pattern")
"""Fields whose keys are regular expressions."""
FORMS = ("{}", r"(.*\.)?({})$", r".*\.[^.]*\.?{}\.(\d+)\.")
"""How PEFT puts a pattern together before it matches the name of a module."""
_MATCH = """
import json, re, signal, sys
patterns, names, seconds, forms = json.load(sys.stdin)

def stop(*_):
    raise TimeoutError

signal.signal(signal.SIGALRM, stop)
for number, pattern in enumerate(patterns):
    for form in forms:
        try:
            signal.setitimer(signal.ITIMER_REAL, 5 * seconds)
            compiled = re.compile(form.replace("{}", pattern))
            for name in names:
                signal.setitimer(signal.ITIMER_REAL, seconds)
                compiled.match(name)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except TimeoutError:
            sys.exit(f"{number}")
        except Exception:
            pass  # PEFT says so
"""
"""A program that matches patterns with names, and ends with the number of the first one that takes too long."""


def check_patterns(config: Any, names: Iterable[str], path: Path) -> None:
    """Raise `StudyError` if a pattern in PEFT's configuration ``config`` takes long to match one of the ``names``.

    They are matched in a process of its own, since nothing else can end a match everywhere.
    """
    patterns = sorted(set(_list_patterns(config))) if isinstance(config, Mapping) else []
    known = sorted(set(names))
    if not patterns:
        return
    seconds = START_SECONDS + PAIR_SECONDS * len(patterns) * len(known) * len(FORMS)
    request = json.dumps([patterns, known, MATCH_SECONDS, FORMS])
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _MATCH], input=request, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise _refuse(path, patterns) from None
    if done.returncode:
        number = done.stderr.strip()
        raise _refuse(path, [patterns[int(number)]] if number.isdigit() else patterns)


def _list_patterns(config: Mapping[str, Any]) -> Iterator[str]:
    """The texts that repeat something: no other takes long."""
    for field in PATTERN_FIELDS:
        if isinstance(config.get(field), str) and any(sign in config[field] for sign in "*+{"):
            yield config[field]
    for field in KEY_FIELDS:
        keys = config.get(field)
        yield from (key for key in (keys if isinstance(keys, dict) else ()) if any(sign in key for sign in "*+{"))


def _refuse(path: Path, patterns: list[str]) -> StudyError:
    shown = f"{patterns[0][:100]!r}" + (f" or one of {len(patterns) - 1} others" if len(patterns) > 1 else "")
    return StudyError(
        f"{path} holds a regular expression that takes too long to match the names of modules ({shown}). Write it "
        "without repetitions inside repetitions, or do not use this adapter."
    )
