"""What the supervisor needs to know; made by `manage.py loaderd` from the project's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """run_dir: sockets, made with mode 0700. logs_dir: a log for each model. prewarm: frameworks whose zygote
    starts with the daemon. use_zygotes: off, every load is a cold spawn (for comparison and for debugging)."""

    run_dir: Path
    logs_dir: Path
    control_socket: Path
    gateway_socket: Path
    inference_host: str = "127.0.0.1"
    inference_port: int = 8001
    predict_timeout_seconds: float = 30.0
    max_concurrent_loads: int = 2
    prewarm: tuple[str, ...] = ()
    use_zygotes: bool = True
    heartbeat_seconds: float = 1.0
    usage_interval_seconds: float = 2.0
    memory_interval_seconds: float = 5.0
    drain_seconds: float = 10.0  # how long predictions in flight may still take when a model is unloaded
    close_seconds: float = 8.0  # how long the reporter may take to write what it holds

    @property
    def sockets_dir(self) -> Path:
        return self.run_dir / "m"

    @property
    def model_logs_dir(self) -> Path:
        return self.logs_dir / "models"
