"""A framework for the supervisor's tests: real processes, with a behaviour per model that config.json names."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

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


class ToyModel(LoadedModel):
    """Answers "die" with a segmentation fault, "env" with its environment, anything else with its pid."""

    signature = Signature((TensorSpec("text", "BYTES", (-1,)),), (TensorSpec("answer", "BYTES", (-1,)),))

    def __init__(self, ballast: bytearray) -> None:
        self.ballast = ballast

    def predict(self, inputs):
        import numpy as np

        return {"answer": np.array([self._answer(text) for text in inputs["text"]], dtype=object)}

    def sample_input(self):
        import numpy as np

        return {"text": np.array(["hello"], dtype=object)}

    def _answer(self, text):
        text = text.decode() if isinstance(text, bytes) else text
        if text == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if text == "env":
            return "\n".join(f"{name}={value}" for name, value in os.environ.items())
        if text == "spawn":
            return str(subprocess.Popen(["sleep", "600"]).pid)
        if text.startswith("slow"):
            time.sleep(float(text.split()[1]))
        return str(os.getpid())


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
        report(0.5)
        return ToyModel(bytearray(os.urandom(1024) * 1024 * int(artifact.config.get("megabytes", 0))))


class ThreadedFramework(ToyFramework):
    """Breaks the rule of the zygote: its import starts a thread."""

    name = "toy-threaded"

    def import_library(self):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
