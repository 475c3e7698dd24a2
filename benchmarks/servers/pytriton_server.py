"""PyTriton: the models as Python callables behind a Triton. usage: pytriton_server.py HTTP GRPC METRICS (ports)"""

import os
import sys

import numpy as np
import runtime
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

DELAY_MICROSECONDS = 5000 if os.environ.get("BENCH_VARIANT") == "batch" else 0
ROWS = {"digits": np.float64, "keras": np.float32}


def infer(name):
    model = runtime.load(name)

    @batch
    def call(INPUT):  # noqa: N803 (the tensor's name)
        items = INPUT if name in ROWS else [value.decode() for value in INPUT[:, 0]]
        return {"OUTPUT": np.array([[value.encode()] for value in model(items)], dtype=np.bytes_)}

    return call


if __name__ == "__main__":
    http_port, grpc_port, metrics_port = (int(port) for port in sys.argv[1:])
    config = TritonConfig(http_address="127.0.0.1", http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port)
    with Triton(config=config) as triton:
        for name in runtime.names():
            triton.bind(
                model_name=name,
                infer_func=[infer(name), infer(name)],
                inputs=[Tensor(name="INPUT", dtype=ROWS.get(name, np.bytes_), shape=(64 if name in ROWS else 1,))],
                outputs=[Tensor(name="OUTPUT", dtype=np.bytes_, shape=(1,))],
                config=ModelConfig(
                    max_batch_size=32, batcher=DynamicBatcher(max_queue_delay_microseconds=DELAY_MICROSECONDS)
                ),
            )
        triton.serve()
