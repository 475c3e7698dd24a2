"""load(name) gives predict(items) -> plain labels. The same code behind every hand-made server, and in-process.

Runs in the peers' environments: knows nothing of the rest of the benchmarks. BENCH_MODELS: the models' folder;
BENCH_SERVE: the names to serve.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Predict = Callable[[Sequence[Any]], list[str]]


def names() -> list[str]:
    return [name for name in os.environ.get("BENCH_SERVE", "").split(",") if name]


def load(name: str, folder: str | None = None) -> Predict:
    models = Path(folder or os.environ["BENCH_MODELS"])
    if name == "minilm":
        return _transformers(models / "minilm")
    if name == "keras":
        return _keras(models / "keras.keras")
    import joblib

    model = joblib.load(models / f"{name}.joblib")
    return lambda items: [str(value) for value in model.predict(items)]


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def _transformers(folder: Path) -> Predict:
    """As the library's documentation says: a pipeline that is given the whole batch."""
    import torch
    from transformers import pipeline

    torch.set_num_threads(_threads())
    pipe = pipeline("text-classification", model=str(folder), device="cpu")
    return lambda items: [answer["label"] for answer in pipe(list(items), batch_size=len(items))]


def _keras(path: Path) -> Predict:
    """One compiled function for every batch size: `model.predict` would cost 20 times as much for one image."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    import keras
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(_threads())
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = keras.models.load_model(path)
    shape = tuple(model.inputs[0].shape)
    compute = tf.function(
        lambda batch: model(batch, training=False), input_signature=[tf.TensorSpec(shape, tf.float32)]
    )

    def predict(items: Sequence[Any]) -> list[str]:
        batch = np.asarray(items, np.float32).reshape(-1, *shape[1:])
        return [str(value) for value in compute(tf.constant(batch)).numpy().argmax(axis=1)]

    return predict
