"""What the machine and each process hold: read from /proc, the cgroup and NVML, never guessed."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

log = logging.getLogger(__name__)

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
_HOSTS_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, the same in every Linux
_NO_LIMIT_BYTES = 2**60  # version 1 writes a number like this one where version 2 writes "max"


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


def load_peak_of(pid: int) -> int | None:
    """The highest private memory that the process had so far, or None when it is gone.

    The kernel keeps the highest RSS (VmHWM), not the highest USS; what is shared (the zygote's pages, mapped weights)
    changes little during a load, so what RSS was above the present one is added to the present USS. An upper bound.
    """
    memory = memory_of(pid)
    try:
        text = (PROC / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    resident = _kilobytes(text)
    if memory is None or "VmHWM" not in resident:
        return None  # it is dead already, and not yet reaped
    return memory.private_bytes + max(0, resident["VmHWM"] - resident["VmRSS"])


def machine_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> dict[str, Any]:
    """What this process and its children may have: {"total_bytes", "available_bytes", "limit_source"}.

    limit_source: "cgroup" where the limit of a control group (a container, a systemd unit) is below the machine's
    memory, else "machine". available_bytes: the least of what the machine has left (MemAvailable) and what each limit
    leaves; file pages that the kernel can drop count as left, half of those in active use do not.
    """
    machine = _kilobytes((proc / "meminfo").read_text())
    total, available, source = machine["MemTotal"], machine["MemAvailable"], "machine"
    for limit, left in _limits(proc, cgroups):
        if limit < total:
            total, source = limit, "cgroup"
        available = min(available, left)
    return {"total_bytes": total, "available_bytes": max(0, available), "limit_source": source}


def oom_kills(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """How many processes the kernel killed for want of memory: by this control group of version 2 with those below it,
    else on the whole machine. Only a difference between two looks means something; None where the kernel does not
    count."""
    for folder, version in _memory_groups(proc, cgroups):
        # Version 1 counts those of one group alone, and a model's process may have been put into another.
        if version == 2:
            with contextlib.suppress(OSError, ValueError, KeyError):
                return _pairs((folder / "memory.events").read_text())["oom_kill"]
    with contextlib.suppress(OSError, ValueError, KeyError):
        return _pairs((proc / "vmstat").read_text())["oom_kill"]
    return None


def _limits(proc: Path, cgroups: Path) -> Iterator[tuple[int, int]]:
    """(limit, what it leaves) of each control group that this process is in, from its own up."""
    for folder, version in _memory_groups(proc, cgroups):
        names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
        used_name, prefix = ("memory.current", "") if version == 2 else ("memory.usage_in_bytes", "total_")
        for name in names:
            with contextlib.suppress(OSError, ValueError):  # ValueError: "max"
                limit = int((folder / name).read_text())
                if limit >= _NO_LIMIT_BYTES:
                    continue
                used = int((folder / used_name).read_text())
                pages = _pairs((folder / "memory.stat").read_text())
                droppable = pages.get(prefix + "inactive_file", 0) + pages.get(prefix + "active_file", 0) // 2
                yield limit, limit - used + droppable


def _memory_groups(proc: Path, cgroups: Path) -> Iterator[tuple[Path, int]]:
    """(folder, version) of each control group with memory accounts, from this process' own up to the root.

    In a container the path may be the host's, of which only the root of the mount can be seen: that is the
    container's own group then.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            mount, version = cgroups / "memory", 1
        elif not controllers:
            mount, version = cgroups / "unified" if (cgroups / "unified").is_dir() else cgroups, 2
        else:
            continue
        folder = mount / path.lstrip("/")
        if not folder.is_dir():
            folder = mount
        while folder.is_relative_to(mount):
            yield folder, version
            folder = folder.parent


def _kilobytes(text: str) -> dict[str, int]:
    """The sizes of /proc/meminfo or /proc/PID/status, in bytes."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if rest.endswith("kB"):
            found[name] = int(rest.split()[0]) * 1024
    return found


def _pairs(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines()) if value}


def host_facts() -> dict[str, Any]:
    """Memory of the machine, or what a container is given of it, in bytes, and its processors:
    {"memory_total_bytes", "memory_available_bytes", "memory_limit_source", "cpu_count"}."""
    memory = machine_memory()
    return {
        "memory_total_bytes": memory["total_bytes"],
        "memory_available_bytes": memory["available_bytes"],
        "memory_limit_source": memory["limit_source"],
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
        """Each GPU's index, UUID, name and memory in bytes; [] without one."""
        found = []
        for index, handle in enumerate(self._handles):
            with contextlib.suppress(self._nvml.NVMLError):
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                found.append(
                    {
                        "index": index,
                        "uuid": _text(self._nvml.nvmlDeviceGetUUID(handle)),
                        "name": _text(self._nvml.nvmlDeviceGetName(handle)),
                        "memory_total_bytes": memory.total,
                        "memory_free_bytes": memory.free,
                    }
                )
        return found

    def names(self) -> list[str]:
        """The name of each GPU; [] without one."""
        return [entry["name"] for entry in self.facts()]

    def free_bytes(self) -> int | None:
        """What is free, by NVML, on the GPU that models use; None without a GPU."""
        entry = self._used()
        return None if entry is None else int(entry["memory_free_bytes"])

    def total_bytes(self) -> int | None:
        """The memory of the GPU that models use; None without a GPU."""
        entry = self._used()
        return None if entry is None else int(entry["memory_total_bytes"])

    def _used(self) -> dict[str, Any] | None:
        """Models go to the first GPU that they see: CUDA_VISIBLE_DEVICES names it by index or UUID, else it is the
        first. NVML itself does not look at that variable."""
        found = self.facts()
        if not found:
            return None
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
        for entry in found:
            if first and (first == str(entry["index"]) or entry["uuid"].startswith(first)):
                return entry
        return found[0]

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

    @staticmethod
    def bytes_of(pid: int, used: Mapping[int, int | None] | None, proc: Path = PROC) -> int | None:
        """GPU memory of one process by a look (`bytes_by_pid`): 0 when it has no context, None when that is not known.

        NVML numbers processes as the host does, or lists none in a container with pids of its own: a process that is
        not in the list has not been measured there, and 0 would be a guess.
        """
        if used is None:
            return None
        if pid in used:
            return used[pid]
        is_measured = any((proc / str(listed)).exists() for listed in used) if used else _has_hosts_pids(proc)
        return 0 if is_measured else None

    def close(self) -> None:
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()


def _has_hosts_pids(proc: Path) -> bool:
    """Whether processes have the host's numbers here, as they do outside of containers."""
    try:
        return os.readlink(proc / "self" / "ns" / "pid") == _HOSTS_PID_NAMESPACE
    except OSError:
        return False


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
