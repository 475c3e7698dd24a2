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
    gateway_processes: int = 1
    grpc_host: str = ""  # empty: inference_host
    grpc_port: int | None = None  # None: no gRPC; 0: any free one
    predict_timeout_seconds: float = 30.0
    prewarm: tuple[str, ...] = ()
    use_zygotes: bool = True
    heartbeat_seconds: float = 1.0
    usage_interval_seconds: float = 1.0
    memory_interval_seconds: float = 5.0
    door_interval_seconds: float = 5.0  # how often each model's data socket is knocked at
    idle_interval_seconds: float = 2.0  # how often models that are kept alive for a time are looked at
    sample_interval_seconds: float = 10.0  # what one sample of the telemetry covers
    restart_pause_seconds: float = 0.5  # before the second restart in a row; each further pause is twice as long
    max_restart_pause_seconds: float = 30.0
    stable_seconds: float = 60.0  # a process that lived loaded for so long begins a new count of restarts
    gpu_return_seconds: float = 5.0  # how long an ended process' GPU memory is waited for
    rules_seconds: float = 2.0  # how long the start waits for the registry's rules, and the pause after a failure
    drain_seconds: float = 10.0  # how long predictions in flight may still take when a model is unloaded
    close_seconds: float = 8.0  # how long the reporter may take to write what it holds

    @property
    def sockets_dir(self) -> Path:
        return self.run_dir / "m"

    @property
    def model_logs_dir(self) -> Path:
        return self.logs_dir / "models"
