"""Where the embedded Postgres lives and as which user it runs: the same answer before and after its first start."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from modelhub.conf import Config

# Postgres refuses to run as root. `postgres` first: other programs use `nobody` to be powerless.
SERVICE_USERS = ("postgres", "nobody")
ROOT_HOMES = Path("/var/lib/modelhub")
PORT = 5432  # only a part of the socket's name: there is no TCP
USER = DATABASE = "modelhub"
LONGEST_SOCKET_PATH_BYTES = 103


class PostgresError(Exception):
    """The embedded Postgres cannot do what was asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Home:
    """One embedded server: its folder (0700) and the user that owns and runs it."""

    folder: Path
    uid: int
    gid: int
    socket_dir: Path

    @property
    def user_name(self) -> str | None:
        """Name of the user; None for a uid without one, which initdb refuses."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return None

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def log_file(self) -> Path:
        return self.folder / "server.log"

    @property
    def lock_file(self) -> Path:
        return self.folder / "start.lock"


def home_of(config: Config) -> Home:
    """`<state>/postgres`; as root, where its user cannot reach that, a folder of /var/lib/modelhub.

    A home that exists stays the home, whatever became of the rights above it.
    """
    inside = config.MODELHUB_STATE_DIR / "postgres"
    outside = (ROOT_HOMES / config.state_key).resolve()
    folder = next((place for place in (inside, outside) if place.exists()), None)
    if folder is not None:
        owner = folder.stat()
        uid, gid = owner.st_uid, owner.st_gid
        if uid == 0:  # made by root and not yet handed over
            uid, gid = _service_user()
    elif os.getuid() == 0:
        uid, gid = _service_user()
        folder = inside if is_reachable(inside, uid, gid) else outside
    else:
        folder, uid, gid = inside, os.getuid(), os.getgid()
    return Home(folder, uid, gid, _socket_dir(folder, uid, config.state_key))


def embedded_database_url(config: Config) -> str:
    """The address of the embedded server, without starting it. Clients check that its user answers."""
    home = home_of(config)
    address = f"postgres://{USER}@{quote(str(home.socket_dir), safe='')}:{PORT}/{DATABASE}"
    return f"{address}?requirepeer={quote(home.user_name)}" if home.user_name else address


def is_reachable(path: Path, uid: int, gid: int) -> bool:
    """Whether that user may pass every folder above `path`."""
    return blocking_folder(path, uid, gid) is None


def blocking_folder(path: Path, uid: int, gid: int) -> Path | None:
    """The first existing folder above `path` that the user may not pass, or None."""
    for folder in reversed(list(_existing_parents(path))):
        rights = folder.stat()
        bit = stat.S_IXUSR if rights.st_uid == uid else stat.S_IXGRP if rights.st_gid == gid else stat.S_IXOTH
        if not rights.st_mode & bit:
            return folder
    return None


def _existing_parents(path: Path) -> Iterator[Path]:
    return (folder for folder in path.parents if folder.exists())


def _service_user() -> tuple[int, int]:
    for name in SERVICE_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise PostgresError(
        f"Postgres does not run as root and none of the users {', '.join(SERVICE_USERS)} exists; "
        "start Modelhub as an ordinary user or set DATABASE_URL."
    )


def _socket_dir(folder: Path, uid: int, state_key: str) -> Path:
    direct = folder / "socket"
    if len(os.fsencode(direct / f".s.PGSQL.{PORT}")) <= LONGEST_SOCKET_PATH_BYTES:
        return direct
    return Path("/tmp") / f"modelhub-postgres-{uid}-{state_key}"  # noqa: S108 (0700, its owner is checked)
