"""Whether every part answers, as its clients would see it."""

from __future__ import annotations

import http.client
import socket

from django.db import Error as DatabaseError
from django.db import connection

from loaderd.client import LoaderClient
from loaderd.errors import LoaderdError
from modelhub.conf import Config

ANSWER_TIMEOUT_SECONDS = 5.0
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def reachable_host(host: str) -> str:
    """The address under which this machine reaches a door that listens on `host`."""
    return ANY_ADDRESS.get(host, host)


def web_answers(config: Config) -> bool:
    # Asked with a name that the server accepts; `.example.com` and `*` stand for others.
    name = config.ALLOWED_HOSTS.split(",")[0].strip().lstrip(".").replace("*", "localhost")
    return _get(config.WEB_HOST, config.WEB_PORT, "/readyz", {"Host": name or "localhost"})


def queue_answers() -> bool:
    """Whether the task queue holds a connection to the database; it opens one when its broker waits for tasks."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = 'modelhub queue' LIMIT 1")
            return cursor.fetchone() is not None
    except DatabaseError:
        return False
    finally:
        connection.close()


def loaderd_answers(config: Config) -> bool:
    """Whether its control socket answers and the inference door is open, and has said whether it speaks gRPC."""
    try:
        door = LoaderClient(config.control_socket, timeout_seconds=ANSWER_TIMEOUT_SECONDS).ping().get("inference")
    except LoaderdError:
        return False
    if door is None or (config.grpc_port is not None and "grpc" not in door):
        return False
    return _get(door["host"], door["port"], "/v2/health/ready", {})


def _get(host: str, port: int, path: str, headers: dict[str, str]) -> bool:
    asked = http.client.HTTPConnection(reachable_host(host), port, timeout=ANSWER_TIMEOUT_SECONDS)
    try:
        asked.request("GET", path, headers=headers)
        return asked.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException, socket.gaierror):
        return False
    finally:
        asked.close()
