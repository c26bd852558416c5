"""Check the installed dependencies: their licences, and known vulnerabilities where a service can be asked.

    python scripts/audit.py

The licence of every package that marslora needs must be one of `ALLOWED`, or the package one of `KNOWN`. Exits with 1
if one is not, and if pip-audit knows a vulnerability of an installed package.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

ALLOWED = (
    *("mit", "bsd", "apache", "isc", "python software foundation", "psf", "mozilla public", "mpl", "unlicense"),
    *("hpnd", "historical permission", "zlib", "cc0", "0bsd"),
)
"""Beginnings of words in the names of licences under which a package may be used and passed on as it is."""
REFUSED = ("gpl", "general public", "proprietary", "non-commercial", "nvidia")
"""Words that a name must not have, whatever else it says."""
KNOWN = {
    "torch": "BSD-3-Clause; CUDA builds bring NVIDIA's own libraries under NVIDIA's terms",
    "scipy": "BSD-3-Clause; wheels bring libgfortran (GPL with the runtime exception)",
    "numpy": "BSD-3-Clause; wheels bring libgfortran (GPL with the runtime exception)",
    "soundfile": "BSD-3-Clause; wheels bring libsndfile (LGPL), a shared library that can be replaced",
    "tqdm": "MPL-2.0 and MIT",
    "text-unidecode": "Artistic License",
}
"""Packages that were looked at, and what was found."""
CUDA = re.compile(r"(nvidia|cuda)-|triton$")
"""What CUDA builds of torch need: NVIDIA's libraries, which are not passed on with marslora."""


def list_tree(root: str) -> Iterator[Distribution]:
    """The installed packages that ``root`` needs, without its extras, each once."""
    waiting, seen = [Requirement(root)], set()
    while waiting:
        wanted = waiting.pop()
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if (name, *sorted(wanted.extras)) in seen or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        seen.add((name, *sorted(wanted.extras)))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        yield found
        needed = [Requirement(text) for text in found.requires or ()]
        for extra in ("", *wanted.extras):
            waiting += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": extra})]


def read_licence(package: Distribution) -> str:
    """The licence that a package says it has, in one line."""
    data = package.metadata
    classified = [text.rpartition("::")[2].strip() for text in data.get_all("Classifier") or () if "License ::" in text]
    written = (data.get("License") or "").strip().partition("\n")[0]
    return data.get("License-Expression") or ", ".join(classified) or written or "none"


def check_licences() -> list[str]:
    """Sentences about packages whose licence was not looked at."""
    problems, names = [], set()
    for package in list_tree("marslora"):
        name, licence = package.metadata["Name"], read_licence(package)
        names.add(name.lower())
        words = licence.lower()
        is_allowed = any(word in words for word in ALLOWED) and not any(word in words for word in REFUSED)
        if not (is_allowed or name.lower() in KNOWN or name == "marslora" or CUDA.match(name.lower())):
            problems.append(f"{name} {package.version}: {licence}")
    print(f"licences of {len(names)} packages: {len(problems)} to be looked at")
    return problems


def check_vulnerabilities() -> list[str]:
    """Sentences about vulnerabilities that pip-audit knows of the packages that are installed here."""
    done = subprocess.run([sys.executable, "-m", "pip_audit", "--format", "json"], capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        found = []
    audited = [each for each in found if "vulns" in each and "skip_reason" not in each]
    if len(audited) <= len(found) / 2:  # it reports every package as unknown where it cannot ask
        print("vulnerabilities: not looked up, because pip-audit reaches no service from here")
        return []
    print(f"vulnerabilities of {len(audited)} packages looked up")
    return [
        f"{each['name']} {each['version']}: {vulnerability['id']}, mended in {vulnerability['fix_versions']}"
        for each in audited
        for vulnerability in each["vulns"]
    ]


def main() -> int:
    """Run both checks; the exit code."""
    problems = [*check_licences(), *check_vulnerabilities()]
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
