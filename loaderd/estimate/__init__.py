"""How much memory a load may take that was never measured: an upper bound from format and size.

A load's peak is what it holds at its end and what it held for a moment on the way: raw bytes beside the arrays made
from them, a schema beside its objects, float16 weights beside their float32 copies. The factors were measured on
real loads (tests/contract/test_estimate.py does it for every kind of model) and rounded up. After its first load a
model is counted with what it took, and none of this matters any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from loaderd.estimate import content
from loaderd.protocol import ModelSpec

MIB = 2**20

BASE_BYTES = {"sklearn": 32 * MIB, "transformers": 48 * MIB, "tensorflow": 64 * MIB}
"""What a process forked from its framework's zygote takes beside the model: threads, pages that it writes to,
modules that the zygote had not imported. Measured: 10 to 13, 18 to 21, and 30 to 38 MiB."""
COLD_BYTES = {"sklearn": 192 * MIB, "transformers": 512 * MIB, "tensorflow": 768 * MIB}
"""The same for a process without a zygote, which holds the framework for itself. Measured: 131, 405, 612 MiB."""
GPU_HOST_BYTES = 1024 * MIB
"""What the GPU's driver and libraries take of the RAM of a process that uses it."""

OTHER_BASE_BYTES = 128 * MIB
OTHER_COLD_BYTES = 1024 * MIB
OTHER_FACTOR = 8.0
"""For formats of other packages, and for a file that is not what its name promises."""

PICKLE_FACTOR = 3.0
PICKLE_OBJECT_BYTES = 250
"""Arrays take 2.0 times their file (mapped or read, then copied), a vocabulary 200 bytes for each word."""
UNKNOWN_PICKLE_FACTOR = 30.0
SKOPS_FACTOR, SKOPS_SCHEMA_FACTOR = 4.0, 7.0
"""Of unpacked arrays (measured: 2.9) and of schema.json (2.8, and twice where types must be looked up)."""
WEIGHTS_FACTOR = 2.6
"""Of the weights as float32 (measured: 1.0 to 2.2: packed for the processor while they are still as they were read)."""
TOKENIZER_FACTOR = 32.0
"""Of tokenizer.json (measured: 25 for 260,000 Unigram pieces)."""
KERAS_FACTOR, KERAS_CONFIG_FACTOR = 7.5, 400.0
"""Of the weights (measured: 6.1: file, variables, constants of the traced graph) and of config.json (200)."""
SAVED_MODEL_FACTOR, GRAPH_FACTOR = 2.5, 150.0
"""Of the variables (measured: 1.1) and of saved_model.pb (75)."""

GPU_CONTEXT_BYTES = 768 * MIB
GPU_WEIGHTS_FACTOR = {"transformers": 1.5, "tensorflow": 4.0}
"""TensorFlow's allocator grows in doubling steps."""


def peak_bytes(spec: ModelSpec, *, forked: bool = True, on_gpu: bool = False) -> int:
    """Upper bound of the private memory that a load of these files takes at its highest.

    forked: from its framework's zygote; False for a cold spawn. on_gpu: the machine has a GPU, which transformers
    and TensorFlow then use. Weights, vocabularies and graphs are covered; a network whose activations for one
    item are larger than its weights is not, and neither is what a framework of another package does.

    Blocks: reads directories and headers, and of pickles up to 256 MiB (32 MiB unpacked), which takes
    milliseconds mostly and two seconds at worst. To be called on a thread. Never raises for what a file holds.
    """
    base = BASE_BYTES if forked else COLD_BYTES
    other = OTHER_BASE_BYTES if forked else OTHER_COLD_BYTES
    host = GPU_HOST_BYTES if on_gpu and spec.framework in GPU_WEIGHTS_FACTOR else 0
    return base.get(spec.framework, other) + host + int(_content_bytes(spec))


def gpu_bytes(spec: ModelSpec) -> int:
    """Upper bound of the GPU memory, 0 for frameworks that use none; those of other packages count as such until
    they were measured. For machines with a GPU only. Blocks a little, as `peak_bytes` does."""
    factor = GPU_WEIGHTS_FACTOR.get(spec.framework)
    if factor is None:
        return 0
    weights = _transformers_weights(spec) if spec.framework == "transformers" else _tensorflow_weights(spec)
    return GPU_CONTEXT_BYTES + int(factor * weights)


def _content_bytes(spec: ModelSpec) -> float:
    by_format = FORMATS.get((spec.framework, spec.format))
    return OTHER_FACTOR * spec.size_bytes if by_format is None else by_format(spec)


def _pickle(spec: ModelSpec) -> float:
    total = 0.0
    for path, size in _files(spec, (".joblib", ".pkl")):
        found = content.pickled(path)
        if found is None:
            total += UNKNOWN_PICKLE_FACTOR * size
        else:
            total += PICKLE_FACTOR * max(size, found.size_bytes) + PICKLE_OBJECT_BYTES * found.objects
    return total


def _skops(spec: ModelSpec) -> float:
    total = 0.0
    for path, size in _files(spec, (".skops",)):
        sizes = content.zip_sizes(path)
        if not sizes:
            total += UNKNOWN_PICKLE_FACTOR * size
        else:
            schema = sizes.get("schema.json", 0)
            total += SKOPS_SCHEMA_FACTOR * schema + SKOPS_FACTOR * (sum(sizes.values()) - schema)
    return total


def _transformers(spec: ModelSpec) -> float:
    tokenizer = sum(size for _, size in _files(spec, (".json", ".txt", ".model")))
    return WEIGHTS_FACTOR * _transformers_weights(spec) + TOKENIZER_FACTOR * tokenizer


def _transformers_weights(spec: ModelSpec) -> float:
    """As float32, whatever they are stored as: a network may widen them."""
    if spec.format == "safetensors":
        found = ((content.safetensors_as_float32(path), size) for path, size in _files(spec, (".safetensors",)))
        return sum(2.0 * size if widened is None else float(widened) for widened, size in found)
    narrow = ((content.torch_is_narrow(path), size) for path, size in _files(spec, (".bin",)))
    return sum(size if is_narrow is False else 2.0 * size for is_narrow, size in narrow)


def _keras(spec: ModelSpec) -> float:
    config = sum(sizes.get("config.json", 0) for sizes in _archives(spec))
    return KERAS_FACTOR * _tensorflow_weights(spec) + KERAS_CONFIG_FACTOR * config


def _saved_model(spec: ModelSpec) -> float:
    graph = sum(size for path, size in _files(spec, (".pb",)))
    return SAVED_MODEL_FACTOR * (spec.size_bytes - graph) + GRAPH_FACTOR * graph


def _tensorflow_weights(spec: ModelSpec) -> float:
    """Of a keras archive unpacked, of a SavedModel all but the graph."""
    if spec.format == "keras":
        return float(sum(sum(sizes.values()) - sizes.get("config.json", 0) for sizes in _archives(spec)))
    return float(sum(file.size_bytes for file in spec.files if not file.path.endswith(".pb")))


def _archives(spec: ModelSpec) -> Iterable[dict[str, int]]:
    """Of an archive that does not tell, its size as that of weights that were packed to a quarter."""
    for path, size in _files(spec, (".keras",)):
        yield content.zip_sizes(path) or {path.name: 4 * size}


def _files(spec: ModelSpec, endings: tuple[str, ...]) -> list[tuple[Path, int]]:
    """(path, size) of the artifact's files of these kinds."""
    return [(Path(spec.directory, file.path), file.size_bytes) for file in spec.files if file.path.endswith(endings)]


FORMATS: dict[tuple[str, str], Callable[[ModelSpec], float]] = {
    ("sklearn", "pickle"): _pickle,
    ("sklearn", "joblib"): _pickle,
    ("sklearn", "skops"): _skops,
    ("transformers", "safetensors"): _transformers,
    ("transformers", "torch-weights"): _transformers,
    ("tensorflow", "keras"): _keras,
    ("tensorflow", "saved-model"): _saved_model,
}
