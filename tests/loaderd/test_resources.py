import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from loaderd.resources import Gpus, host_facts, load_peak_of, machine_memory, memory_of, oom_kills


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


class TestGpuBytesOf:
    @pytest.fixture
    def proc(self, tmp_path: Path) -> Path:
        """With a process 7, in a container with pids of its own."""
        (tmp_path / "7").mkdir()
        (tmp_path / "self" / "ns").mkdir(parents=True)
        (tmp_path / "self" / "ns" / "pid").symlink_to("pid:[4026532001]")
        return tmp_path

    def test_one_that_is_listed_has_what_is_told(self, proc: Path) -> None:
        assert Gpus.bytes_of(7, {7: 100, 8: None}, proc) == 100
        assert Gpus.bytes_of(8, {7: 100, 8: None}, proc) is None

    def test_one_that_is_not_among_the_processes_that_are_seen_here_has_none(self, proc: Path) -> None:
        assert Gpus.bytes_of(9, {7: 100, 8: 50}, proc) == 0

    def test_where_all_that_are_listed_have_the_hosts_numbers_it_is_not_known(self, proc: Path) -> None:
        assert Gpus.bytes_of(7, {90001: 100}, proc) is None
        assert Gpus.bytes_of(7, None, proc) is None

    def test_an_empty_list_tells_something_only_where_pids_are_the_hosts(self, proc: Path) -> None:
        assert Gpus.bytes_of(7, {}, proc) is None
        (proc / "self" / "ns" / "pid").unlink()
        (proc / "self" / "ns" / "pid").symlink_to("pid:[4026531836]")
        assert Gpus.bytes_of(7, {}, proc) == 0


def test_the_host_is_described_in_bytes() -> None:
    facts = host_facts()
    assert facts["memory_total_bytes"] > facts["memory_available_bytes"] > 2**20
    assert facts["memory_limit_source"] in ("machine", "cgroup")


TAKE_AND_GIVE_BACK = """
import mmap, sys
block = mmap.mmap(-1, 64 * 2**20)
for _ in range(64):
    block.write(b"x" * 2**20)
block.close()
print("done", flush=True)
sys.stdin.read()
"""


def test_the_peak_of_a_load_counts_what_was_given_back_since() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_AND_GIVE_BACK], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        now, peak = memory_of(process.pid), load_peak_of(process.pid)
        assert now is not None
        assert peak is not None
        assert 60 * 2**20 < peak - now.private_bytes < 68 * 2**20
        process.kill()
    assert load_peak_of(process.pid) is None


GIB = 2**30
NO_LIMIT = "9223372036854771712"


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Makes a /proc and a /sys/fs/cgroup of files: a machine of 16 GiB with 10 GiB available."""

    def make(cgroup: str, files: dict[str, str]) -> dict[str, Path]:
        proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
        (proc / "self").mkdir(parents=True)
        (proc / "meminfo").write_text(f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {10 * GIB // 1024} kB\n")
        (proc / "vmstat").write_text("nr_free_pages 1\noom_kill 9\n")
        (proc / "self" / "cgroup").write_text(cgroup)
        cgroups.mkdir()
        for name, text in files.items():
            (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
            (cgroups / name).write_text(text + "\n")
        return {"proc": proc, "cgroups": cgroups}

    return make


def memory(total: float, available: float, source: str) -> dict[str, object]:
    return {"total_bytes": int(total * GIB), "available_bytes": int(available * GIB), "limit_source": source}


class TestMachineMemory:
    def test_without_control_groups_it_is_the_machines(self, machine: Callable[..., dict[str, Path]]) -> None:
        assert machine_memory(**machine("", {})) == memory(16, 10, "machine")

    def test_a_container_of_version_2_sees_its_group_at_the_root(self, machine: Callable[..., dict[str, Path]]) -> None:
        tree = machine(
            "0::/\n",
            {
                "memory.max": str(4 * GIB),
                "memory.high": "max",
                "memory.current": str(3 * GIB),
                "memory.stat": f"anon {GIB}\ninactive_file {GIB}\nactive_file {GIB}",
                "memory.events": "low 0\noom 3\noom_kill 2",
            },
        )
        assert machine_memory(**tree) == memory(4, 1 + 1 + 0.5, "cgroup")
        assert oom_kills(**tree) == 2

    def test_the_tightest_group_on_the_way_up_counts(self, machine: Callable[..., dict[str, Path]]) -> None:
        stat = "inactive_file 0\nactive_file 0"
        tree = machine(
            "0::/system.slice/modelhub.service\n",
            {
                "cgroup.controllers": "memory",
                "system.slice/memory.max": str(8 * GIB),
                "system.slice/memory.current": str(7 * GIB),
                "system.slice/memory.stat": stat,
                "system.slice/modelhub.service/memory.max": "max",
                "system.slice/modelhub.service/memory.high": str(6 * GIB),
                "system.slice/modelhub.service/memory.current": str(2 * GIB),
                "system.slice/modelhub.service/memory.stat": stat,
            },
        )
        assert machine_memory(**tree) == memory(6, 1, "cgroup")

    def test_version_1_with_a_limit(self, machine: Callable[..., dict[str, Path]]) -> None:
        group = "memory/docker/abc"
        tree = machine(
            "9:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n",
            {
                f"{group}/memory.limit_in_bytes": str(2 * GIB),
                f"{group}/memory.usage_in_bytes": str(GIB),
                f"{group}/memory.stat": "inactive_file 5\ntotal_inactive_file 0\ntotal_active_file 0",
                f"{group}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4",
                "memory/memory.limit_in_bytes": NO_LIMIT,
            },
        )
        assert machine_memory(**tree) == memory(2, 1, "cgroup")
        assert oom_kills(**tree) == 9, "it counts that one group alone; the machine's count is asked"

    def test_a_container_of_version_1_sees_the_hosts_path_and_its_own_files(
        self, machine: Callable[..., dict[str, Path]]
    ) -> None:
        tree = machine(
            "4:memory:/docker/abc\n",
            {
                "memory/memory.limit_in_bytes": str(2 * GIB),
                "memory/memory.usage_in_bytes": str(GIB // 2),
                "memory/memory.stat": "total_inactive_file 0",
            },
        )
        assert machine_memory(**tree) == memory(2, 1.5, "cgroup")

    def test_a_limit_above_the_machines_memory_is_none(self, machine: Callable[..., dict[str, Path]]) -> None:
        tree = machine(
            "0::/\n", {"memory.max": str(64 * GIB), "memory.current": str(GIB), "memory.stat": "inactive_file 0"}
        )
        assert machine_memory(**tree) == memory(16, 10, "machine")

    def test_a_group_that_is_full_leaves_nothing(self, machine: Callable[..., dict[str, Path]]) -> None:
        tree = machine(
            "0::/\n", {"memory.max": str(GIB), "memory.current": str(2 * GIB), "memory.stat": "inactive_file 0"}
        )
        assert machine_memory(**tree)["available_bytes"] == 0

    def test_of_this_machine(self) -> None:
        found = machine_memory()
        assert 0 < found["available_bytes"] <= found["total_bytes"]


def test_where_the_group_does_not_count_oom_kills_the_machine_does(machine: Callable[..., dict[str, Path]]) -> None:
    assert oom_kills(**machine("0::/\n", {"cgroup.controllers": "memory"})) == 9


@pytest.mark.parametrize(
    ("visible", "free"),
    [("", 10), ("1", 20), ("1,0", 20), ("GPU-b", 20), ("GPU-a,GPU-b", 10), ("7", 10)],
    ids=["unset", "index", "indices", "uuid", "uuids", "unknown"],
)
def test_the_gpu_that_models_use_is_the_first_that_they_see(
    monkeypatch: pytest.MonkeyPatch, visible: str, free: int
) -> None:
    """NVML's answers are made up here: the machines that run the tests have no GPU."""
    import pynvml

    memories = [SimpleNamespace(total=100, free=10), SimpleNamespace(total=200, free=20)]
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", memories.__getitem__)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", ["one", b"two"].__getitem__)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", ["GPU-aaaa", "GPU-bbbb"].__getitem__)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus = Gpus()
    assert gpus.names() == ["one", "two"]
    assert (gpus.free_bytes(), gpus.total_bytes()) == (free, free * 10)


def test_without_a_gpu_there_is_no_gpu_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 0)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    gpus = Gpus()
    assert (gpus.free_bytes(), gpus.total_bytes(), gpus.names()) == (None, None, [])
