from __future__ import annotations

import os
import subprocess
import sys
import uuid

from benchmarks import processes
from tests.deadline import wait_until

PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "x = bytearray(32 << 20); print(1, flush=True); input()"],
                         env={}, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
while True:
    sum(range(1000))
"""


def test_a_marked_tree_is_found_measured_and_ended() -> None:
    mark = uuid.uuid4().hex
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env={**os.environ, processes.MARK: mark}, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    try:
        child = int(parent.stdout.readline())  # it has lost the mark with its environment
        assert processes.of(mark) == sorted([parent.pid, child])
        memory = processes.memory(processes.of(mark))
        assert memory.processes == 2
        assert memory.uss_mb >= 32
        before = processes.cpu_seconds([parent.pid])
        wait_until(lambda: processes.cpu_seconds([parent.pid]) > before)
        assert processes.machine_busy_seconds() > 0
    finally:
        processes.end(mark)
        parent.wait(10)
        parent.stdout.close()
    assert processes.of(mark) == []


def test_processes_that_are_gone_hold_and_use_nothing() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert processes.memory([gone.pid]) == processes.Memory(0, 0, 0)
    assert processes.cpu_seconds([gone.pid]) == 0
    assert processes.of(uuid.uuid4().hex) == []
