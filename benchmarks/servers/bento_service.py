"""BentoML: one service, one endpoint for each model. BENCH_VARIANT=batch turns adaptive batching on."""

import os
import typing as t

import bentoml
import runtime

BATCH = os.environ.get("BENCH_VARIANT") == "batch"
ROWS = ("digits", "keras")


def endpoint(name):
    kind = t.List[float] if name in ROWS else str  # noqa: UP006 (bentoml reads the annotation)
    if BATCH:

        def call(self, input):  # noqa: A002 (a field of the body)
            return self.models[name](input)

        call.__annotations__ = {"input": t.List[kind], "return": t.List[str]}  # noqa: UP006
        options = {"batchable": True, "max_batch_size": 32, "max_latency_ms": 1000}
    else:

        def call(self, input):  # noqa: A002 (a field of the body)
            return {"prediction": self.models[name]([input])[0]}

        call.__annotations__ = {"input": kind, "return": t.Dict[str, t.Any]}  # noqa: UP006
        options = {}
    call.__name__ = name
    return bentoml.api(call, route="/" + name, **options)


def init(self):
    self.models = {name: runtime.load(name) for name in runtime.names()}


Peer = bentoml.service(
    type("Peer", (), {"__init__": init, **{name: endpoint(name) for name in runtime.names()}}),
    workers=2,
    logging={"access": {"enabled": False}},
    traffic={"timeout": 60},
)
