"""What must hold before anything is started; each failure is one line that says what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from modelhub.conf import Config
from modelhub.private_dir import NotPrivate, ensure_private_dir

OLDEST_POSTGRES = 14


class NotReady(Exception):
    """Modelhub cannot start; the message says why and what to do."""


def check(config: Config) -> None:
    """Raises NotReady with a line for each thing that is wrong."""
    store = _folder("MODELS_DIR", config.MODELS_DIR, os.R_OK | os.X_OK)
    _raise([*store, *_run_dir(config), *_ports(config), *_database(config)])


def check_state_dir(config: Config) -> None:
    """The first check: the lock against a second start lies there. Raises NotReady."""
    _raise(_folder("MODELHUB_STATE_DIR", config.MODELHUB_STATE_DIR, os.R_OK | os.W_OK | os.X_OK))


def _raise(problems: Iterable[str]) -> None:
    lines = "\n".join(problems)
    if lines:
        raise NotReady(lines)


def _folder(setting: str, folder: Path, rights: int) -> Iterable[str]:
    try:
        folder.mkdir(exist_ok=True)  # not its parents: a typing error should not become a tree
    except OSError as error:
        yield f"{setting}: {folder} is missing and cannot be made ({error.strerror}); create it or set {setting}."
        return
    if not os.access(folder, rights):
        yield f"{setting}: this user may not use {folder}; change its rights or set {setting}."


def _run_dir(config: Config) -> Iterable[str]:
    try:
        ensure_private_dir(config.run_dir)
    except NotPrivate as error:
        yield str(error)


def _ports(config: Config) -> Iterable[str]:
    doors = (
        ("WEB_PORT", config.WEB_HOST, config.WEB_PORT),
        ("INFERENCE_PORT", config.INFERENCE_HOST, config.INFERENCE_PORT),
    )
    if config.grpc_port in (config.WEB_PORT, config.INFERENCE_PORT):
        other = "WEB_PORT" if config.grpc_port == config.WEB_PORT else "INFERENCE_PORT"
        yield f"{other} and GRPC_PORT are both {config.grpc_port}; set one of them to another port, or GRPC_PORT to 0."
        return
    if config.WEB_PORT == config.INFERENCE_PORT:
        yield f"WEB_PORT and INFERENCE_PORT are both {config.WEB_PORT}; set one of them to another port."
        return
    for setting, host, port in doors:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen()
        except OSError as error:
            yield f"{setting}: {host}:{port} cannot be used ({error.strerror}); free it or set {setting}."


def _database(config: Config) -> Iterable[str]:
    if not config.DATABASE_URL:
        return
    address = urlsplit(config.DATABASE_URL)
    shown = f"{address.hostname or 'localhost'}{address.path}"
    try:
        with psycopg.connect(config.DATABASE_URL, connect_timeout=5) as connection:
            version = connection.info.server_version // 10_000
    except (psycopg.Error, UnicodeError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        yield f"DATABASE_URL: the database {shown} does not answer ({reason}); start it or correct DATABASE_URL."
        return
    if version < OLDEST_POSTGRES:
        yield f"DATABASE_URL: {shown} is Postgres {version}; Modelhub needs {OLDEST_POSTGRES} or newer."
