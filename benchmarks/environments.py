"""One Python environment for each peer, so that none decides over the versions of another."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks import places


class InstallFailed(Exception):
    """The package installer ended with an error; the message has the end of its output."""


def python_of(name: str) -> Path:
    return places.environments_dir() / name / "bin" / "python"


def program_of(name: str, program: str) -> Path:
    return places.environments_dir() / name / "bin" / program


def is_installed(name: str) -> bool:
    return _stamp(name).exists()


def install(name: str) -> None:
    """Makes the environment that requirements/<name>.txt describes; nothing when it is there. Raises InstallFailed.

    With uv where there is one (seconds, files shared between environments), else with venv and pip (minutes each).
    """
    stamp = _stamp(name)
    if stamp.exists():
        return
    folder, requirements = stamp.parent, str(places.REQUIREMENTS_DIR / f"{name}.txt")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = str(python_of(name))
    if uv := shutil.which("uv"):
        steps = [
            [uv, "venv", "--quiet", "--seed", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", python, "-r", requirements],
        ]
    else:
        steps = [
            [sys.executable, "-m", "venv", str(folder)],
            [python, "-m", "pip", "install", "--quiet", "--no-input", "-r", requirements],
        ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            raise InstallFailed(f"{name}: {' '.join(step[:4])} … failed:\n{done.stderr[-1500:]}")
    stamp.touch()


def versions_of(name: str, packages: Iterable[str]) -> dict[str, str]:
    """The installed versions of those of the packages that the environment has."""
    program = (
        "import importlib.metadata as m, json, sys\n"
        "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
        "print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))"
    )
    done = subprocess.run(
        [str(python_of(name)), "-c", program, *(package.lower() for package in packages)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def _stamp(name: str) -> Path:
    """A file named by what was asked for: another version of the requirements is another environment."""
    digest = hashlib.sha256()
    for file in (f"{name}.txt", "models.txt"):
        digest.update((places.REQUIREMENTS_DIR / file).read_bytes())
    return places.environments_dir() / name / f".installed-{digest.hexdigest()[:16]}"
