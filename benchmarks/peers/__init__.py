"""What is compared. `named("triton-batch")` gives the variant "batch" of Triton."""

from __future__ import annotations

from benchmarks.peers.base import Peer
from benchmarks.peers.bentoml import BentoML
from benchmarks.peers.fastapi import FastAPI
from benchmarks.peers.litserve import LitServe
from benchmarks.peers.mlflow import MLflow
from benchmarks.peers.mlserver import MLServer
from benchmarks.peers.modelhub import Modelhub
from benchmarks.peers.null import Null
from benchmarks.peers.ray import Ray
from benchmarks.peers.torchserve import TorchServe
from benchmarks.peers.triton import PyTriton, Triton

KINDS: dict[str, type[Peer]] = {
    kind.kind: kind
    for kind in (Modelhub, Null, FastAPI, MLServer, Triton, PyTriton, TorchServe, BentoML, LitServe, Ray, MLflow)
}

USUAL = (
    "modelhub",
    "fastapi",
    "fastapi-async",
    "triton",
    "triton-batch",
    "torchserve",
    "torchserve-batch",
    "mlserver",
    "mlserver-batch",
    "bentoml",
    "bentoml-batch",
    "litserve",
    "litserve-batch",
    "null",
)
"""What `make bench-peers` measures when nobody names others. Ray Serve, MLflow and PyTriton: by name."""


class UnknownPeer(ValueError):
    """No peer, or no variant of it, has that name."""


def named(name: str) -> Peer:
    kind, _, variant = name.partition("-")
    if kind not in KINDS or variant not in KINDS[kind].settings:
        every = [f"{kind}-{variant}".rstrip("-") for kind, peer in KINDS.items() for variant in peer.settings]
        raise UnknownPeer(f"There is no peer {name!r}; there are: {', '.join(every)}.")
    return KINDS[kind](variant)
