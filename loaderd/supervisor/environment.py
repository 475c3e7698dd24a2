"""The environment of the processes that the supervisor starts: an allow-list, so that no credential is in it.

Foreign code gets `clean_environment`. The gateway runs none; it also gets what OpenTelemetry is configured with, whose
headers may hold a secret.
"""

from __future__ import annotations

import os
from pathlib import Path

_ALLOWED = {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "PYTHONPATH"}
_ALLOWED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "COV_CORE_", "COVERAGE_PROCESS")

_FIXED = {
    # A forked child hangs when the zygote's libraries have started threads: they may not.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # The first GPU is the same one for NVML, which measures, and for CUDA, which computes.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "TOKENIZERS_PARALLELISM": "false",
    # Nothing is fetched from a model hub, and nothing is told to one.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "PYTHONUNBUFFERED": "1",
    "PYTHONNOUSERSITE": "1",
}

_PROJECT_DIR = Path(__file__).resolve().parent.parent.parent


def clean_environment() -> dict[str, str]:
    """What zygotes and model processes get."""
    kept = {name: value for name, value in os.environ.items() if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)}
    search = [str(_PROJECT_DIR), *filter(None, kept.get("PYTHONPATH", "").split(os.pathsep))]
    return {**kept, **_FIXED, "PYTHONPATH": os.pathsep.join(dict.fromkeys(search))}


def gateway_environment() -> dict[str, str]:
    """What the gateway gets."""
    telemetry = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    return {**clean_environment(), **telemetry}
