import mmap
import os
from types import SimpleNamespace

import pytest

from loaderd.resources import Gpus, host_facts, memory_of


def test_private_memory_grows_by_what_the_process_takes() -> None:
    before = memory_of(os.getpid())
    block = mmap.mmap(-1, 64 * 2**20)
    block.write(b"x" * (64 * 2**20))
    after = memory_of(os.getpid())
    block.close()
    assert before is not None
    assert after is not None
    assert 60 * 2**20 < after.private_bytes - before.private_bytes < 72 * 2**20
    assert after.pss_bytes >= after.private_bytes


def test_a_process_that_is_gone_has_no_memory() -> None:
    assert memory_of(2**22 - 1) is None


def test_a_machine_without_a_gpu_says_so_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def refuse() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)
    gpus = Gpus()
    assert not gpus
    assert gpus.facts() == []
    assert gpus.bytes_by_pid() is None
    assert gpus.reason_for_none.startswith("no GPU")


def test_gpu_memory_is_summed_by_pid_over_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML's answers are made up here: the machines that run the tests have no GPU."""
    import pynvml

    processes = {
        0: [SimpleNamespace(pid=7, usedGpuMemory=100), SimpleNamespace(pid=8, usedGpuMemory=None)],
        1: [SimpleNamespace(pid=7, usedGpuMemory=50)],
    }
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", processes.__getitem__)
    gpus = Gpus()
    assert gpus.bytes_by_pid() == {7: 150, 8: None}


def test_the_host_is_described_in_bytes() -> None:
    facts = host_facts()
    assert facts["memory_total_bytes"] > facts["memory_available_bytes"] > 2**20
