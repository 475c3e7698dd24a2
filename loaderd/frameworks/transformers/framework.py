"""Transformers as loaderd knows it: which architecture does which task."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from loaderd.errors import LoadFailed
from loaderd.frameworks.base import Artifact, Framework, LoadedModel, ReportProgress
from loaderd.frameworks.files import refuse_unlisted
from loaderd.frameworks.precision import refuse_precision

ROOM = "loaderd.frameworks.transformers"

TASKS = {
    "ForSequenceClassification": "sequence_classification:SequenceClassifier",
    "ForTokenClassification": "token_classification:TokenClassifier",
    "ForMaskedLM": "fill_mask:MaskFiller",
    "ForCausalLM": "text_generation:TextGenerator",
    "LMHeadModel": "text_generation:TextGenerator",
    "Model": "embedding:Embedder",
}
"""End of the architecture's name in config.json -> the class that answers. The first that fits counts."""

EMBEDDER = TASKS["Model"]

COMMON_ARCHITECTURES = (
    "bert",
    "distilbert",
    "roberta",
    "xlm_roberta",
    "mpnet",
    "electra",
    "albert",
    "deberta_v2",
    "gpt2",
    "llama",
)
"""Imported before the fork; another architecture is imported while it loads, some 20 to 200 ms."""

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "USE_TF": "0",  # transformers would import TensorFlow where it is installed: seconds and 400 MB
    "USE_FLAX": "0",
    "TOKENIZERS_PARALLELISM": "false",  # its thread pool does not survive a fork
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",  # half a megabyte each; all that a model asks for fits
}


class TransformersFramework(Framework):
    name = "transformers"

    def import_library(self) -> None:
        os.environ.update(ENVIRONMENT)
        import torch.utils.serialization
        import transformers
        from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

        for target in TASKS.values():
            importlib.import_module(f"{ROOM}.{target.partition(':')[0]}")
        for architecture in COMMON_ARCHITECTURES:
            importlib.import_module(f"transformers.models.{architecture}.modeling_{architecture}")
            importlib.import_module(f"transformers.models.{architecture}.configuration_{architecture}")
        for tokenizer in ("BertTokenizerFast", "RobertaTokenizerFast", "GPT2TokenizerFast", "PreTrainedTokenizerFast"):
            tokenizer_class_from_name(tokenizer)  # walks past, and imports, every model that shares the class
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        del torch

    def load(self, artifact: Artifact, report: ReportProgress) -> LoadedModel:
        refuse_unlisted(artifact)
        module, _, cls = task_of(artifact.config, artifact).partition(":")
        task = getattr(importlib.import_module(f"{ROOM}.{module}"), cls)
        if artifact.precision not in task.precisions:
            refuse_precision(artifact, f"models of this task ({module.replace('_', ' ')})")
        model: LoadedModel = task(artifact, report)
        return model


def task_of(config: Mapping[str, Any], artifact: Artifact) -> str:
    """The entry of TASKS for this config.json. Raises LoadFailed for an architecture that none fits."""
    if "modules.json" in artifact.files:  # the layout of sentence-transformers: always an encoder
        return EMBEDDER
    architectures = config.get("architectures") or []
    for ending, target in TASKS.items():
        if any(str(name).endswith(ending) for name in architectures[:1]):
            return target
    named = f"names the architecture {architectures[0]}" if architectures else "names no architecture"
    raise LoadFailed(
        f"The config.json of {artifact.model_id} {named}; those that can be served end in {', '.join(TASKS)}.",
        model_id=artifact.model_id,
    )
