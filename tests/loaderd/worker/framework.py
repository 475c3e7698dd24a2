"""Small models in pure Python and numpy, chosen by the spec's config; run in real model processes by the tests."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from loaderd.errors import InvalidInput
from loaderd.frameworks.base import Artifact, Framework, LoadedModel, ReportProgress, Signature, TensorSpec
from loaderd.generation.contract import Generation, Writing

if TYPE_CHECKING:
    from loaderd.frameworks.base import Batch

LABELS = ("negative", "positive")


def _texts(inputs: Batch) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else text for text in inputs["text"]]


class Echo(LoadedModel):
    """Gives a text back with its length and the size of the batch that it was in.

    A text may be an order: `gate:<fifo>` blocks until the fifo is opened for writing, `spin:<file>` computes
    until the file exists, `refuse` and `boom` fail, `die` ends the process, `hog:<MiB>` takes that much memory and
    `new:<MiB>` does in C++, `collect` collects garbage, `lose the gpu` fails as a library does whose GPU is lost,
    `mute` and `loud` have it answer otherwise from then on.
    """

    signature = Signature(
        (TensorSpec("text", "BYTES", (-1,)),),
        (TensorSpec("echo", "BYTES", (-1,)), TensorSpec("length", "INT64", (-1,)), TensorSpec("batch", "INT32", (-1,))),
    )

    muted = False

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        texts = _texts(inputs)
        for text in texts:
            order, _, argument = text.partition(":")
            if order == "gate":
                Path(argument).read_bytes()
            elif order == "spin":
                while not os.path.exists(argument):
                    sum(range(1000))
            elif order == "sleep":
                time.sleep(float(argument))
            elif order == "refuse":
                raise InvalidInput("this text is refused")
            elif order == "surrogate":
                raise OSError("cannot open 'weights-\udcff.bin'")
            elif order == "boom":
                raise ValueError("the model is broken")
            elif order == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif order == "hog":
                np.ones(int(argument) * 2**20, dtype=np.uint8)
            elif order == "new":
                operator_new = ctypes.CDLL("libstdc++.so.6")._Znwm
                operator_new.argtypes = [ctypes.c_size_t]
                operator_new(int(argument) * 2**20)
            elif order == "collect":
                gc.collect()
            elif order == "lose the gpu":
                raise RuntimeError(
                    "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"
                )
            elif order in ("mute", "loud"):
                self.muted = order == "mute"
        return {
            "echo": np.array(["" if self.muted else text for text in texts], dtype=object),
            "length": np.array([len(text) for text in texts]),
            "batch": np.full(len(texts), len(texts), dtype=np.int32),
        }

    def sample_input(self) -> dict[str, np.ndarray]:
        return {"text": np.array(["a sample"], dtype=object)}


class Double(LoadedModel):
    """Doubles rows of any width."""

    signature = Signature((TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1, -1)),))

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        assert inputs["x"].flags.writeable
        return {"y": inputs["x"] * 2}

    def sample_input(self) -> dict[str, np.ndarray]:
        return {"x": np.array([[0.1, 0.2, 0.3]], dtype=np.float32)}


class Classifier(LoadedModel):
    """Positive with the share of exclamation marks."""

    signature = Signature(
        (TensorSpec("text", "BYTES", (-1,)),),
        (TensorSpec("label", "BYTES", (-1,)), TensorSpec("probabilities", "FP32", (-1, 2))),
        LABELS,
    )

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        share = np.array([text.count("!") / max(1, len(text)) for text in _texts(inputs)], dtype=np.float32)
        rows = np.stack([1 - share, share], axis=1)
        return {"label": np.array(LABELS, dtype=object)[rows.argmax(axis=1)], "probabilities": rows}

    def sample_input(self) -> dict[str, np.ndarray]:
        return {"text": np.array(["good!"], dtype=object)}


class Entities(LoadedModel):
    """Capitalised words as JSON text."""

    signature = Signature((TensorSpec("text", "BYTES", (-1,)),), (TensorSpec("entities", "BYTES", (-1,)),))

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        found = [json.dumps([{"word": word} for word in text.split() if word.istitle()]) for text in _texts(inputs)]
        return {"entities": np.array(found, dtype=object)}

    def sample_input(self) -> dict[str, np.ndarray]:
        return {"text": np.array(["Ada"], dtype=object)}


class Pair(LoadedModel):
    """Two named inputs, two outputs."""

    signature = Signature(
        (TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "INT64", (-1, 2))),
        (TensorSpec("sum", "FP64", (-1,)), TensorSpec("both", "INT64", (-1, 2))),
    )

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        return {"sum": inputs["a"] + inputs["b"].sum(axis=1), "both": inputs["b"]}

    def sample_input(self) -> dict[str, np.ndarray]:
        return {"a": np.array([1.5]), "b": np.array([[1, 2]])}


class Mirror(LoadedModel):
    """Gives back an input of each datatype."""

    DATATYPES = (
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32",
        "FP64", "BYTES",
    )  # fmt: skip
    signature = Signature(
        tuple(TensorSpec(datatype.lower(), datatype, (-1, -1)) for datatype in DATATYPES),
        tuple(TensorSpec(f"{datatype.lower()}_again", datatype, (-1, -1)) for datatype in DATATYPES),
    )

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        return {f"{name}_again": array for name, array in inputs.items()}

    def sample_input(self) -> dict[str, np.ndarray]:
        numbers = np.array([[0, 1]])
        kinds = {"BYTES": object, "BOOL": bool, "FP16": "f2", "BF16": "f4", "FP32": "f4", "FP64": "f8"}
        of_type = {name: kinds.get(name, name.lower()) for name in self.DATATYPES}
        samples = {name.lower(): numbers.astype(kind) for name, kind in of_type.items() if kind is not object}
        return {**samples, "bytes": np.array([["a", "b"]], dtype=object)}


class Careless(Double):
    """Answers with one row, however many it is asked for."""

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        return {"y": inputs["x"][:1]}


class Drifting(Double):
    """Answers otherwise each time."""

    calls = 0

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"y": inputs["x"] + self.calls}


class Prepared(Echo):
    """Upper case is made ahead of the model's turn; one text cannot be prepared. Words are its tokens."""

    prepares = True

    def prepare(self, inputs: Batch) -> Batch:
        texts = _texts(inputs)
        if "unprepared" in texts:
            raise InvalidInput("this text cannot be prepared")
        by = threading.current_thread().name
        ready = [text if ":" in text else f"{text.upper()} by {by}" for text in texts]
        words = np.array([len(text.split()) for text in texts])
        return {"ready": np.array(ready, dtype=object), "words": words}

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        if "ready" not in inputs:
            return super().predict(inputs)
        return {**super().predict({"text": inputs["ready"]}), "tokens": inputs["words"].astype(np.int32)}


class BrokenGeneration:
    """Has the compute thread fail where nothing should, once it has work."""

    begun = waiting = 0

    def __init__(self) -> None:
        self._is_asked = False

    @property
    def has_work(self) -> bool:
        if self._is_asked:
            raise RuntimeError("the generator lost its mind")
        return False

    def bound(self, max_active: int, max_waiting: int) -> None:
        del max_active, max_waiting

    def start(self, request: Mapping[str, Any]) -> Writing:
        del request
        self._is_asked = True
        return Writing(1)


class Broken(Echo):
    """Its compute thread ends at the first text that it is to write."""

    def __init__(self) -> None:
        self.generation = cast("Generation", BrokenGeneration())


class Holding(Echo):
    """Holds a folder `held` until it is unloaded, which succeeds, goes "badly" or "never" ends."""

    def __init__(self, folder: Path, unloads: str) -> None:
        self._held = folder / "held"
        self._held.mkdir()
        self._unloads = unloads

    def unload(self) -> None:
        assert threading.current_thread().name == "compute"
        if self._unloads == "never":
            threading.Event().wait()
        if self._unloads == "badly":
            raise OSError("the folder is gone already")
        self._held.rmdir()


MODELS = {
    "echo": Echo,
    "double": Double,
    "classifier": Classifier,
    "entities": Entities,
    "pair": Pair,
    "mirror": Mirror,
    "prepared": Prepared,
    "careless": Careless,
    "broken": Broken,
    "drifting": Drifting,
}


class InTestFramework(Framework):
    name = "in-test"

    def import_library(self) -> None:
        pass

    def load(self, artifact: Artifact, report: ReportProgress) -> LoadedModel:
        kind = artifact.config.get("kind", "echo")
        if kind == "explode":
            raise KeyError("weights.bin")
        if kind == "memory":
            raise MemoryError
        if kind == "large":
            np.ones(512 * 2**20, dtype=np.uint8)
        if kind == "exit":
            raise SystemExit(9)
        if kind == "never":
            Path(artifact.config["fifo"]).read_bytes()
        for step in range(1000):
            report(step / 1000)
        if kind == "holding":
            return Holding(artifact.directory, artifact.config["unloads"])
        return MODELS[kind]()
