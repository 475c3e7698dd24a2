"""Every setting once: name, type, unit, default and prose. A bad value stops the start with a hint.

`docs/configuration.md` lists them; a test keeps it complete. Values come from the environment.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zoneinfo
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import dj_database_url
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT_DIR = Path(__file__).resolve().parent.parent

Port = Annotated[int, Field(ge=1, le=65535)]
PortOrNone = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Percent = Annotated[float, Field(gt=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


SECRETS = ("DATABASE_URL", "SECRET_KEY", "DJANGO_SUPERUSER_PASSWORD")


class BadSetting(SystemExit):
    """One line a bad value: name, value, what is allowed. Ends the program with status 2, without a traceback."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(2)
        self.lines = lines


def refuse(lines: list[str]) -> NoReturn:
    """Prints the lines on standard error and raises BadSetting; the same in manage.py and in a web server."""
    print(*lines, sep="\n", file=sys.stderr)
    raise BadSetting(lines)


class Config(BaseSettings):
    model_config = SettingsConfigDict(case_sensitive=True, extra="ignore", env_ignore_empty=True)

    # Where things lie
    MODELS_DIR: Path = Field(Path("models_store"), description="Folder with the artifacts: <type>/<model_id>/.")
    MODELHUB_STATE_DIR: Path = Field(
        Path("var"), description="Folder of the embedded Postgres, sockets, logs and the secret key."
    )
    DATABASE_URL: str = Field(
        "", description="postgres://user:password@host:port/name. Empty: the embedded Postgres is used."
    )

    # Doors
    WEB_HOST: str = Field("127.0.0.1", description="Address of the admin and the API.")
    WEB_PORT: Port = Field(8000, description="Port of the admin and the API.")
    WEB_WORKERS: Count = Field(2, description="Web server processes.")
    WEB_THREADS: Count = Field(16, description="Threads in each web process; a waiting load holds one.")
    API_LIST_LIMIT: Count = Field(1000, description="Items that one answer of an API list holds at most.")
    API_MAX_BODY_MB: Count = Field(16, description="Longest request body that the API accepts, in MiB.")
    INFERENCE_HOST: str = Field("127.0.0.1", description="Address of the inference door.")
    INFERENCE_PORT: Port = Field(8001, description="Port of the inference door (Open Inference Protocol v2).")
    GATEWAY_PROCESSES: Count = Field(
        1, description="Processes of the inference door behind its port; more than one pays on many cores."
    )
    GRPC_HOST: str = Field("", description="Address of the inference door's gRPC half. Empty: INFERENCE_HOST.")
    GRPC_PORT: PortOrNone = Field(
        8002,
        description="Port of the inference door's gRPC half (inference.GRPCInferenceService). 0: no gRPC. "
        "The default gives way to another door on this port.",
    )
    ALLOWED_HOSTS: str = Field(
        "localhost,127.0.0.1,[::1]", description="Host names, comma-separated, that the web server answers to."
    )
    SECRET_KEY: str = Field("", description="Django's signing key. Empty: made once and kept in the state folder.")
    BEHIND_TLS_PROXY: bool = Field(
        False,
        description="A proxy in front speaks TLS and sets X-Forwarded-Proto: plain requests are redirected, cookies "
        "travel by TLS only.",
    )
    DEBUG: bool = Field(False, description="Django's debug pages. Never in production.")
    TIME_ZONE: str = Field("UTC", description="Time zone of the admin.")

    # Memory, as in the specification
    MAX_MEMORY_USAGE_MB: Annotated[int, Field(ge=0)] = Field(
        4096, description="Memory that all models together may hold, in MiB. 0: no limit."
    )
    GPU_MEMORY_LIMIT_MB: Annotated[int, Field(ge=0)] = Field(
        2048, description="GPU memory that all models together may hold, in MiB. 0: no limit."
    )
    MAX_MEMORY_USAGE_PERCENT: Percent = Field(
        80, description="The same limit as a share of the machine's memory, or of its cgroup's; the smaller one counts."
    )
    GPU_MEMORY_LIMIT_PERCENT: Percent = Field(
        90, description="The same limit as a share of the GPUs' memory; the smaller one counts."
    )
    MEMORY_OPTIMIZATION_INTERVAL: Seconds = Field(600, description="Seconds between two memory optimisations.")
    UNUSED_MODEL_TIMEOUT_HOURS: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        24, description="Hours without a prediction after which an optimisation unloads a model."
    )
    LOW_USAGE_THRESHOLD: Share = Field(
        0.1,
        description="Share of the last hour's minutes; a model asked in fewer of them is little used, and unloaded by "
        "an optimisation that a person asks for or that finds memory short.",
    )
    MIN_RESIDENCY_SECONDS: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        30, description="Seconds after its load in which a model is not evicted."
    )
    LOAD_WAIT_SECONDS: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        30, description="Seconds that a prediction waits for its model's load on demand or restart; then 503."
    )

    # Health and time limits, as in the specification
    HEALTH_CHECK_INTERVAL: Seconds = Field(300, description="Seconds between two health checks of a model.")
    MODEL_TIMEOUT_SECONDS: Seconds = Field(
        30, description="Seconds that a load may take; then its process is ended. Per model: load_timeout_seconds."
    )
    MAX_LOAD_ATTEMPTS: Count = Field(
        3, description="Starts of a process in a row that may die before a model stays in error."
    )
    HANG_SECONDS: Seconds = Field(
        30,
        description="Seconds without a sign of life, or that a single call of the model may take; past them its "
        "process is killed and started again.",
    )
    SLOW_SECONDS: Seconds = Field(5, description="95th percentile of the latency from which a model is degraded.")
    MAX_CONCURRENT_LOADS: Count = Field(2, description="Loads at the same time; the rest queue in order.")
    PREDICT_TIMEOUT_SECONDS: Seconds = Field(30, description="Seconds until a prediction is answered with 504.")

    # Response cache, as in the specification
    CACHE_ENABLED: bool = Field(
        False,
        description="Answers of models are kept and given again to who asks the same. Per model: cache_enabled.",
    )
    CACHE_TTL_SECONDS: Seconds = Field(
        3600, description="Seconds for which an answer is kept. Per model: cache_ttl_seconds."
    )
    CACHE_MAX_MB: Count = Field(64, description="Memory that all kept answers together may hold, in MiB.")

    # Performance monitoring, as in the specification
    METRICS_RETENTION_DAYS: Count = Field(7, description="Days for which metrics are kept.")
    SAMPLING_RATE: Share = Field(
        0.1, description="Share of the predictions whose course is recorded, at most ten a second."
    )
    SLOW_REQUEST_SECONDS: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        1,
        description="A prediction that takes as long or longer gets a line in the inference door's log, without its "
        "inputs. 0: none does.",
    )
    ALERT_LOAD_TIME_SECONDS: Seconds = Field(10, description="An alert is raised when a load takes longer.")
    ALERT_MEMORY_USAGE_PERCENT: Percent = Field(
        85, description="An alert is raised when the models hold more than this share of their budget."
    )
    ALERT_ERROR_RATE_PERCENT: Percent = Field(
        5, description="An alert is raised, and the model is degraded, when more of its predictions fail."
    )
    PERFORMANCE_LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        description="Level of the logs of web, queue, supervisor and commands; the inference door and the models' "
        "processes log INFO.",
    )

    # Parts
    QUEUE_WORKERS: Count = Field(2, description="django-q2 worker processes.")
    MODEL_THREADS: Count = Field(1, description="Threads that a model computes with, unless its own field says more.")
    SAMPLE_MODELS: bool = Field(True, description="Train the sample models at the first start of an empty store.")

    # Models that come through the browser
    UPLOAD_MAX_MB: Count = Field(4096, description="Longest upload of a model in the admin, in MiB.")
    UPLOAD_MAX_FILES: Count = Field(2000, description="Files that one upload, or the zip in it, may have.")
    UPLOAD_MAX_UNPACKED_MB: Count = Field(8192, description="What an uploaded zip may unpack to, in MiB.")
    UPLOAD_MAX_RATIO: Count = Field(
        200, description="How many times larger than itself a zip may unpack to; more is taken for a trap."
    )
    UPLOAD_KEPT_MINUTES: Count = Field(
        60, description="Minutes after which an upload is thrown away that nobody confirmed."
    )

    # Jobs: files that are predicted offline
    JOB_MAX_MB: Count = Field(1024, description="Longest file that a job may be given, in MiB.")
    JOB_MAX_OPEN: Count = Field(20, description="Jobs that one user may have queued or running.")
    JOB_RETENTION_DAYS: Count = Field(7, description="Days for which a job that ended and its files are kept.")
    JOB_WAIT_MINUTES: Count = Field(
        60, description="Minutes that a job waits for its model to be loaded or to answer again; then it fails."
    )

    # First admin (the names are Django's)
    DJANGO_SUPERUSER_USERNAME: str = Field("", description="User name of the first admin. Empty: admin.")
    DJANGO_SUPERUSER_PASSWORD: str = Field("", description="Its password. Empty: a random one, printed once.")
    DJANGO_SUPERUSER_EMAIL: str = Field("", description="Its e-mail address.")

    @field_validator("MODELS_DIR", "MODELHUB_STATE_DIR")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return (PROJECT_DIR / value.expanduser()).resolve()

    @field_validator("DATABASE_URL")
    @classmethod
    def _postgres_only(cls, value: str) -> str:
        if not value:
            return value
        if not value.startswith(("postgres://", "postgresql://")):
            raise ValueError("must begin with postgres:// or postgresql://")
        if not dj_database_url.parse(value)["NAME"]:
            raise ValueError("names no database; it looks like postgres://user:password@host:port/name")
        return value

    @field_validator("TIME_ZONE")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in zoneinfo.available_timezones():
            raise ValueError("is no time zone; names look like Europe/Berlin")
        return value

    @property
    def run_dir(self) -> Path:
        """Folder of the unix sockets: `<state>/run`, or a short private one when that path is too long.

        A unix socket's path may have 107 bytes; the longest name below needs 30.
        """
        direct = self.MODELHUB_STATE_DIR / "run"
        if len(os.fsencode(direct)) <= 70:
            return direct
        return Path("/tmp") / f"modelhub-{os.getuid()}-{self.state_key}"  # noqa: S108 (private_dir checks it)

    @property
    def state_key(self) -> str:
        """Eight hex digits that stand for the state folder where its path is too long."""
        return hashlib.sha256(os.fsencode(self.MODELHUB_STATE_DIR)).hexdigest()[:8]

    @property
    def grpc_port(self) -> int | None:
        """Where gRPC is spoken; None: nowhere. The default gives way to another door that was put on its port."""
        gives_way = "GRPC_PORT" not in self.model_fields_set and self.GRPC_PORT in (self.WEB_PORT, self.INFERENCE_PORT)
        return None if gives_way else self.GRPC_PORT or None

    @property
    def logs_dir(self) -> Path:
        return self.MODELHUB_STATE_DIR / "logs"

    @property
    def control_socket(self) -> Path:
        return self.run_dir / "control.sock"

    @property
    def gateway_socket(self) -> Path:
        """The inference door for the processes of this installation: guarded by the folder's 0700."""
        return self.run_dir / "gateway.sock"


@lru_cache(maxsize=1)
def config() -> Config:
    """The settings of this process; raises BadSetting with a line for each bad value."""
    try:
        return Config()
    except ValidationError as error:
        refuse([_line(str(problem["loc"][0]), problem["input"], problem["msg"]) for problem in error.errors()])


def _line(name: str, value: object, message: str) -> str:
    shown = "…" if name in SECRETS else repr(value)
    return f"{name}={shown} is not valid: {message}. {name}: {Config.model_fields[name].description}"
