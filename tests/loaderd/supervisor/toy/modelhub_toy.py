"""A framework for the supervisor's tests: real processes, with a behaviour per model that config.json names."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from loaderd.catalogue import Format, FrameworkEntry
from loaderd.errors import LoadFailed
from loaderd.frameworks.base import Framework, LoadedModel, Signature, TensorSpec

TOY = Format("toy", executes_code=False)


def _detect(paths, config):
    return TOY if "model.toy" in paths else None


ENTRY = FrameworkEntry("toy", "Toy", "modelhub_toy:ToyFramework", _detect, (TOY,))
THREADED_ENTRY = FrameworkEntry(
    "toy-threaded", "Threaded toy", "modelhub_toy:ThreadedFramework", lambda *_: None, (TOY,)
)
SLOW_ENTRY = FrameworkEntry("toy-slow", "Slow toy", "modelhub_toy:SlowFramework", lambda *_: None, (TOY,))


class ToyModel(LoadedModel):
    """Answers by what it is asked: see `_answer`; anything else with its pid."""

    signature = Signature((TensorSpec("text", "BYTES", (-1,)),), (TensorSpec("answer", "BYTES", (-1,)),))

    def __init__(self, ballast: bytearray, unload_megabytes: int, is_moody: bool) -> None:
        self.ballast = ballast
        self.is_moody = is_moody
        self.calls = 0
        self.unload_megabytes = unload_megabytes
        self.growth = []

    def predict(self, inputs):
        import numpy as np

        return {"answer": np.array([self._answer(text) for text in inputs["text"]], dtype=object)}

    def unload(self):
        self.growth.append(bytearray(os.urandom(2**20)) * self.unload_megabytes)

    def sample_input(self):
        import numpy as np

        return {"text": np.array(["sing"], dtype=object)}

    def _answer(self, text):
        text = text.decode() if isinstance(text, bytes) else text
        if text == "sing":
            return os.urandom(4).hex() if self.is_moody else "tweet"  # its canary: the same from every process
        if text.startswith("count"):
            self.calls += 1
            time.sleep(float(text.split()[1]))
            return f"{os.getpid()} {self.calls}"
        if text == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if text == "abort":
            os.abort()
        if text == "lose the GPU":
            os._exit(4)
        if text == "env":
            return "\n".join(f"{name}={value}" for name, value in os.environ.items())
        if text == "spawn":
            return str(subprocess.Popen(["sleep", "600"]).pid)
        if text.startswith("slow"):
            time.sleep(float(text.split()[1]))
        if text == "hang holding the interpreter":
            ctypes.PyDLL(None).sleep(600)
        if text == "hang in C":
            ctypes.CDLL(None).sleep(600)
        if text == "close the door":
            close_listeners()
        if text.startswith("grow"):
            self.growth.append(bytearray(os.urandom(2**20)) * int(text.split()[1]))
        return str(os.getpid())


def close_listeners():
    """Nobody can connect to this process any more; who is connected stays so."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as other:
            if other.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                nowhere = os.open(os.devnull, os.O_RDONLY)
                os.dup2(nowhere, int(name))  # its number is not given to another file
                os.close(nowhere)


class ToyFramework(Framework):
    name = "toy"

    def import_library(self):
        pass

    def load(self, artifact, report):
        match artifact.config.get("behaviour"):
            case "crash":
                print("the toy is about to crash", flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                threading.Event().wait()
            case "raise":
                raise LoadFailed("the toy does not want to")
            case "exit":
                os._exit(9)
        crashes = Path(artifact.directory, "crashes")  # how many of its loads still crash
        if crashes.exists() and (left := int(crashes.read_text())):
            crashes.write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(artifact.config.get("load_seconds", 0)))
        peak = bytearray(os.urandom(2**20)) * int(artifact.config.get("peak_megabytes", 0))
        del peak
        report(0.5)
        ballast = bytearray(os.urandom(2**20)) * int(artifact.config.get("megabytes", 0))
        unload_megabytes = int(artifact.config.get("unload_megabytes", 0))
        return ToyModel(ballast, unload_megabytes, bool(artifact.config.get("moody")))


class SlowFramework(ToyFramework):
    """Its import lasts until `slow-import` is gone from the temporary folder; another half minute at most."""

    name = "toy-slow"

    def import_library(self):
        deadline = time.monotonic() + 30
        while Path(os.environ["TMPDIR"], "slow-import").exists() and time.monotonic() < deadline:
            time.sleep(0.02)


class ThreadedFramework(ToyFramework):
    """Breaks the rule of the zygote: its import starts a thread."""

    name = "toy-threaded"

    def import_library(self):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
