"""Plain encoders: a vector per text, pooled as sentence-transformers says, else the mean."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from transformers import AutoModel

from loaderd.errors import LoadFailed
from loaderd.frameworks.base import Artifact, ReportProgress, TensorSpec
from loaderd.frameworks.transformers.checkpoint import Checkpoint
from loaderd.frameworks.transformers.encoder_model import EncoderModel, MicroBatch
from loaderd.frameworks.transformers.networks import Network

OLD_MODE_NAMES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""1_Pooling/config.json: a flag per mode, or "pooling_mode" with the name. Several are joined in this order."""


class Embedder(EncoderModel):
    def __init__(self, artifact: Artifact, report: ReportProgress) -> None:
        checkpoint = Checkpoint(artifact, report, AutoModel, may_miss=("pooler.",))
        self._modes, self._normalize, longest = _layout(artifact)
        if longest is not None:
            checkpoint.max_tokens = min(longest, checkpoint.max_tokens or longest)
        width = checkpoint.config.hidden_size * len(self._modes)
        super().__init__(artifact, checkpoint, (TensorSpec("embedding", "FP32", (-1, width)),))

    def answer_micro_batch(self, network: Network, batch: MicroBatch) -> dict[str, np.ndarray]:
        hidden, mask = network.hidden(batch.texts, batch.types)
        pooled = torch.cat([pool(mode, hidden, mask) for mode in self._modes], dim=1)
        if self._normalize:
            pooled = torch.nn.functional.normalize(pooled, dim=1)
        return {"embedding": pooled.cpu().numpy()}


def pool(mode: str, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[batch, tokens, width] -> [batch, width], over the tokens that the mask keeps."""
    kept = mask.unsqueeze(-1).float()
    rows = torch.arange(len(hidden), device=hidden.device)
    match mode:
        case "cls":  # the first real token: with padding on the left that is not column 0
            return hidden[rows, mask.argmax(dim=1)]
        case "lasttoken":
            return hidden[rows, mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)]
        case "max":
            return hidden.masked_fill(kept == 0, -1e9).max(dim=1).values
        case "weightedmean":
            kept = kept * torch.arange(1, hidden.shape[1] + 1, device=hidden.device).view(1, -1, 1)
    divisor = kept.sum(dim=1).clamp(min=1e-9)
    return (hidden * kept).sum(dim=1) / (divisor.sqrt() if mode == "mean_sqrt_len_tokens" else divisor)


def _layout(artifact: Artifact) -> tuple[list[str], bool, int | None]:
    """(pooling modes, normalize, longest text in tokens) of a sentence-transformers directory; plain: mean."""
    modules = _json(artifact, "modules.json") or []
    kinds = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in modules}
    unknown = set(kinds) - {"Transformer", "Pooling", "Normalize"}
    if unknown or kinds.get("Transformer"):
        odd = ", ".join(sorted(unknown)) or "a Transformer outside the directory's root"
        raise LoadFailed(
            f"The modules.json of {artifact.model_id} names {odd}; "
            "Transformer (in the root), Pooling and Normalize can be served.",
            model_id=artifact.model_id,
        )
    modes = ["mean"]
    if "Pooling" in kinds:
        modes = _modes(_json(artifact, f"{kinds['Pooling']}/config.json") or {}, artifact)
    longest = (_json(artifact, "sentence_bert_config.json") or {}).get("max_seq_length")
    return modes, "Normalize" in kinds, longest


def _modes(config: dict[str, Any], artifact: Artifact) -> list[str]:
    if "pooling_mode" in config:
        named = config["pooling_mode"]
        modes = [named] if isinstance(named, str) else list(named)
    else:
        modes = [mode for flag, mode in OLD_MODE_NAMES.items() if config.get(flag)]
    unknown = set(modes) - set(OLD_MODE_NAMES.values())
    if unknown:
        raise LoadFailed(f"{artifact.model_id} pools by {', '.join(sorted(unknown))}, which is not known here.")
    return modes or ["mean"]


def _json(artifact: Artifact, path: str) -> Any:
    return json.loads((artifact.directory / path).read_text()) if path in artifact.files else None
