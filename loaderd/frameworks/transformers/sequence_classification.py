"""…ForSequenceClassification: one label per text, several, or a number."""

from __future__ import annotations

import numpy as np
from transformers import AutoModelForSequenceClassification

from loaderd.frameworks.base import Artifact, ReportProgress, TensorSpec
from loaderd.frameworks.labels import classified, classifier_outputs, declared_labels
from loaderd.frameworks.transformers.checkpoint import Checkpoint
from loaderd.frameworks.transformers.encoder_model import EncoderModel, MicroBatch
from loaderd.frameworks.transformers.networks import Network

PREDICTION = TensorSpec("prediction", "FP32", (-1,))


class SequenceClassifier(EncoderModel):
    """problem_type decides: multi_label_classification takes a sigmoid, regression is a number, all else a softmax."""

    def __init__(self, artifact: Artifact, report: ReportProgress) -> None:
        checkpoint = Checkpoint(artifact, report, AutoModelForSequenceClassification)
        config = checkpoint.config
        self._several = config.problem_type == "multi_label_classification"
        self._labels: tuple[str, ...] | None = None
        outputs: tuple[TensorSpec, ...] = (PREDICTION,)
        if config.problem_type != "regression" and (config.num_labels > 1 or self._several):
            self._labels = declared_labels(artifact, config.num_labels) or tuple(
                str(config.id2label[number]) for number in range(config.num_labels)
            )
            outputs = classifier_outputs(self._labels, self._several)
        elif config.num_labels > 1:
            outputs = (TensorSpec("prediction", "FP32", (-1, config.num_labels)),)
        super().__init__(artifact, checkpoint, outputs, self._labels)

    def answer_micro_batch(self, network: Network, batch: MicroBatch) -> dict[str, np.ndarray]:
        logits = network.of_texts(batch.texts, batch.types)
        if self._labels is None:
            return {"prediction": logits.squeeze(-1).cpu().numpy()}
        probabilities = logits.sigmoid() if self._several else logits.softmax(dim=-1)
        return classified(probabilities.cpu().numpy(), self._labels, self._several)
