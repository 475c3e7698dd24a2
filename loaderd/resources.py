"""What the machine and each process hold: read from /proc and NVML, never guessed."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """private_bytes: USS (Private_Clean + Private_Dirty + private huge pages), what ends with the process.
    pss_bytes: private plus its fair share of pages that others map too."""

    private_bytes: int
    pss_bytes: int


def memory_of(pid: int) -> ProcessMemory | None:
    """Memory of a process from smaps_rollup, or None when it is gone. Costs about 1 ms per 100 MB mapped."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    private_kib = pss_kib = 0
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in ("Private_Clean", "Private_Dirty", "Private_Hugetlb"):
            private_kib += int(rest.split()[0])
        elif name == "Pss":
            pss_kib = int(rest.split()[0])
    return ProcessMemory(private_kib * 1024, pss_kib * 1024)


def host_facts() -> dict[str, Any]:
    """Memory of the machine, in bytes, and its load: {"memory_total_bytes", "memory_available_bytes", "cpu_count"}."""
    memory = psutil.virtual_memory()
    return {
        "memory_total_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "cpu_count": psutil.cpu_count(),
    }


class Gpus:
    """The machine's NVIDIA GPUs through NVML. Without a driver there are none, and that is no error."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []
        self.reason_for_none = ""
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        except Exception as error:  # NVML raises its own family; no driver, no library and no permission all mean none
            self.reason_for_none = f"no GPU: {error}"
            log.info("no GPU is used: %s", error)

    def __bool__(self) -> bool:
        return bool(self._handles)

    def facts(self) -> list[dict[str, Any]]:
        """Each GPU's name and memory in bytes; [] without one."""
        found = []
        for index, handle in enumerate(self._handles):
            with contextlib.suppress(self._nvml.NVMLError):
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                found.append(
                    {
                        "index": index,
                        "name": _text(self._nvml.nvmlDeviceGetName(handle)),
                        "memory_total_bytes": memory.total,
                        "memory_free_bytes": memory.free,
                    }
                )
        return found

    def bytes_by_pid(self) -> dict[int, int | None] | None:
        """GPU memory of each process that has a context, over all GPUs; None without a GPU.

        A process' value is None where the driver may not tell (some virtual GPUs).
        """
        if not self._handles:
            return None
        used: dict[int, int | None] = {}
        for handle in self._handles:
            with contextlib.suppress(self._nvml.NVMLError):
                for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    before, more = used.get(process.pid, 0), process.usedGpuMemory
                    used[process.pid] = None if before is None or more is None else before + more
        return used

    def close(self) -> None:
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
