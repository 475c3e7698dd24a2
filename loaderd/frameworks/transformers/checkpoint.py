"""A tokenizer and a network from one directory, on the device where they run."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers

from loaderd.errors import ArtifactRefused, LoadFailed
from loaderd.frameworks.base import Artifact, ReportProgress
from loaderd.frameworks.transformers.linears import quantize

UNLIMITED_TOKENS = 1_000_000  # tokenizers say "no limit" with a number above this
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer"})
"""Model types that start counting positions behind the padding token, and so take fewer tokens than positions."""


class Checkpoint:
    """config, tokenizer, network and device of a model, and the number of tokens that it takes."""

    def __init__(
        self, artifact: Artifact, report: ReportProgress, auto_class: Any, may_miss: Sequence[str] = ()
    ) -> None:
        """may_miss: starts of names of weights that the task does not use, so the file may lack them."""
        torch.set_num_threads(artifact.threads)
        self.model_id = artifact.model_id
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = _tokenizer(artifact)
        report(0.4)
        self.network: Any
        self.network, info = _network(artifact, auto_class)
        missing = sorted(key for key in info["missing_keys"] if not key.startswith(tuple(may_miss)))
        if missing:
            raise LoadFailed(
                f"The weights of {artifact.model_id} lack {len(missing)} tensors of the architecture "
                f"{type(self.network).__name__} ({', '.join(missing[:3])}, …); correct `architectures` in its "
                "config.json or train that part.",
                model_id=artifact.model_id,
            )
        self.network.eval().to(self.device)
        self.config = self.network.config
        self._give_padding()
        self.max_tokens = self._max_tokens()
        report(1.0)

    def lower(self, precision: str) -> None:
        """Has the network compute in this precision; what its weights took in the full one is free afterwards.

        Raises LoadFailed for what the device cannot do.
        """
        if precision == "bf16":
            self.network.to(torch.bfloat16)
            return
        if self.device.type != "cpu":
            raise LoadFailed(
                f"{self.model_id} is to be loaded in {precision}, which is made for processors, and it runs on a GPU; "
                "set its precision to bf16.",
                model_id=self.model_id,
                precision=precision,
            )
        quantize(self.network)

    def free_encoder(self) -> None:
        """Lets a network go that another way of computing has taken the place of; of one with a head, that stays."""
        if self.network.base_model is self.network:
            self.network = None

    def _give_padding(self) -> None:
        """Batches need a padding token; models that were trained without one pad with their end token."""
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        if self.config.pad_token_id is None:
            self.config.pad_token_id = self.tokenizer.pad_token_id

    def _max_tokens(self) -> int | None:
        limits = [self.tokenizer.model_max_length]
        positions = getattr(self.config, "max_position_embeddings", None)
        if positions and positions > 0:
            offset = self.config.pad_token_id + 1 if self.config.model_type in OFFSET_POSITIONS else 0
            limits.append(positions - offset)
        known = [limit for limit in limits if limit < UNLIMITED_TOKENS]
        return min(known, default=None)


def _network(artifact: Artifact, auto_class: Any) -> tuple[Any, dict[str, Any]]:
    """The network, and which weights were missing. Raises ArtifactRefused for code in config or weights."""
    try:
        network, info = auto_class.from_pretrained(
            artifact.directory,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=artifact.format == "safetensors",
            weights_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise ArtifactRefused(
                f"{artifact.model_id} needs code of its own (auto_map in its config.json), which is never run; "
                "serve it as a framework of yours: docs/adding-a-framework.md",
                model_id=artifact.model_id,
            ) from error
        if any(isinstance(cause, pickle.UnpicklingError) for cause in _causes(error)):
            raise ArtifactRefused(
                f"The torch file of {artifact.model_id} holds more than weights, which could run code; "
                "save it again with model.save_pretrained(), which writes safetensors.",
                model_id=artifact.model_id,
            ) from error
        raise
    return network, info


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _tokenizer(artifact: Artifact) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            artifact.directory, local_files_only=True, trust_remote_code=False, use_fast=True
        )
    except (OSError, ValueError, ImportError, TypeError, AttributeError) as error:
        raise LoadFailed(
            f"{artifact.model_id} has no tokenizer that can be read ({error}); "
            "save it beside the weights with tokenizer.save_pretrained().",
            model_id=artifact.model_id,
        ) from error
    if not tokenizer.is_fast:
        raise LoadFailed(
            f"{artifact.model_id} has no tokenizer.json; save its fast tokenizer with tokenizer.save_pretrained().",
            model_id=artifact.model_id,
        )
    return tokenizer
