"""Settings of the web server. Gunicorn reads every name of this module that is one of its settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

from loaderd.lifeline import die_with_parent
from modelhub import conf

_config = conf.config()
_host = f"[{_config.WEB_HOST}]" if ":" in _config.WEB_HOST else _config.WEB_HOST


class LineLogger(Logger):
    """Without time and pid, which the launcher and the journal add already."""

    error_fmt = "%(levelname)s gunicorn: %(message)s"


logger_class = LineLogger
bind = f"{_host}:{_config.WEB_PORT}"
workers = _config.WEB_WORKERS
worker_class = "gthread"
threads = _config.WEB_THREADS
timeout = 60  # of a worker that does not turn its loop any more; a request may take longer
graceful_timeout = 15
keepalive = 5
loglevel = _config.PERFORMANCE_LOG_LEVEL.lower()
control_socket_disable = True  # it would lie in the user's home, one for all installations
# Heartbeats are files: in memory, where a slow disk does not make a worker look dead.
worker_tmp_dir = next((place for place in ("/dev/shm",) if Path(place).is_dir()), None)  # noqa: S108


def post_fork(server: Any, worker: Any) -> None:
    die_with_parent(server.pid)


def on_starting(server: Any) -> None:
    os.environ["MODELHUB_PART"] = "web"  # also when gunicorn is started without `up`
