"""What the tasks of encoders share: tokens made ahead, micro-batches of like length, a network that computes without
padding where there is one, and the precision that was asked for."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from loaderd.errors import LoadFailed
from loaderd.frameworks.base import PRECISIONS, TOKENS, Artifact, TensorSpec
from loaderd.frameworks.inputs import texts
from loaderd.frameworks.precision import Tolerance, differences
from loaderd.frameworks.transformers.checkpoint import Checkpoint
from loaderd.frameworks.transformers.mapped import let_go
from loaderd.frameworks.transformers.networks import Network, PaddedNetwork, Tokens
from loaderd.frameworks.transformers.packed import PackedNetwork, is_packable
from loaderd.frameworks.transformers.text_model import TextModel
from loaderd.frameworks.transformers.tokens import TokenEncoder, column, id_column

if TYPE_CHECKING:
    from loaderd.frameworks.base import Batch

log = logging.getLogger(__name__)

IDS, TYPES = "input_ids", "token_type_ids"
"""Of a prepared batch: object columns of int64 arrays. A task may add columns of its own."""

TRIALS = (
    "Thank you!",
    "The parcel that I ordered in May has not arrived, and nobody answers the phone. Where is it?",
    "Please cancel invoice 4711 and send us a new one over 1,250.50 EUR by Friday.",
    "We were very happy with the room, the breakfast and above all with the people at the desk.",
    "Anna Berg met Carl Jonsson of Northwind Ltd in New York on Tuesday to talk about the merger.",
    "Das Gerät ist nach zwei Tagen kaputtgegangen, ich möchte mein Geld zurück.",
)
"""Asked beside the sample when another way of computing takes the place of the first."""

SAME_TRIALS = 2
SAME = Tolerance(rtol=1e-3, atol=1e-4, min_cosine=0.99999)
"""For the full precision, where only the order of additions may differ. Few texts tell: the load waits for them."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Texts of a batch that go through the network together; columns: theirs, of the prepared batch."""

    texts: Tokens
    types: Tokens | None
    columns: Mapping[str, Any]


class EncoderModel(TextModel):
    """Subclasses set what `answer_micro_batch` needs, then call this constructor."""

    prepares = True
    precisions = frozenset(PRECISIONS)
    with_places = False  # whether the task asks where in the text a token stands

    def __init__(
        self,
        artifact: Artifact,
        checkpoint: Checkpoint,
        outputs: tuple[TensorSpec, ...],
        labels: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(artifact, checkpoint, outputs, labels)
        self._tokens = TokenEncoder(checkpoint)
        self._network: Network = PaddedNetwork(checkpoint)
        self._settle(artifact)

    @abstractmethod
    def answer_micro_batch(self, network: Network, batch: MicroBatch) -> dict[str, np.ndarray]:
        """The outputs for at least one text; runs under inference_mode."""

    def prepare(self, inputs: Batch) -> Batch:
        items = texts(inputs, self.signature)
        encodings = self._tokens.encode(items, self.with_places)
        prepared = {IDS: id_column([encoding.ids for encoding in encodings])}
        if self._tokens.type_ids:
            prepared[TYPES] = id_column([encoding.type_ids for encoding in encodings])
        return prepared | self.columns(items, encodings)

    def columns(self, items: Sequence[str], encodings: Sequence[Any]) -> dict[str, np.ndarray]:
        """What else of the texts and their tokenizers.Encoding the task needs. Raises InvalidInput."""
        del items, encodings
        return {}

    def predict(self, inputs: Batch) -> dict[str, np.ndarray]:
        prepared = inputs if IDS in inputs else self.prepare(inputs)
        lengths = [len(text) for text in prepared[IDS]]
        groups = self._network.micro_batches(lengths)
        with torch.inference_mode():
            parts = [self._answer_group(prepared, group) for group in groups]
        outputs = {name: _in_order(groups, [part[name] for part in parts]) for name in parts[0]}
        return outputs | {TOKENS: np.array(lengths, dtype=np.int32)}

    def answer(self, items: list[str]) -> dict[str, np.ndarray]:
        return self.predict({self.signature.inputs[0].name: column(items)})

    def _answer_group(self, prepared: Batch, group: list[int]) -> dict[str, np.ndarray]:
        columns = {name: values[group] for name, values in prepared.items()}
        types = list(columns[TYPES]) if TYPES in columns else None
        return self.answer_micro_batch(self._network, MicroBatch(list(columns[IDS]), types, columns))

    def _settle(self, artifact: Artifact) -> None:
        """Puts the fastest network that answers the same in the place of the padded one, in the precision asked for.

        Raises LoadFailed when that precision's answers are too far from the full one's.
        """
        checkpoint, precision = self.checkpoint, artifact.precision
        on_cpu = checkpoint.device.type == "cpu"
        packable = on_cpu and not self._tokens.type_ids and is_packable(checkpoint.network)
        if not (packable or precision):
            return
        items = list(self.trial_texts()[: None if precision else SAME_TRIALS])
        if precision:
            items += self.sample_input()[self.signature.inputs[0].name].tolist()
        wanted = self.answer(items)
        if not packable:
            checkpoint.lower(precision)
            self._refuse_far(precision, differences(self.signature, wanted, self.answer(items)))
            return
        self._network = packed = PackedNetwork(checkpoint.network, precision)
        got = self.answer(items)
        if precision:
            self._refuse_far(precision, differences(self.signature, wanted, got))
        elif differences(self.signature, wanted, got, SAME):
            log.warning("%s: without padding it answers otherwise; it is computed with padding", checkpoint.model_id)
            packed.restore()
            self._network = PaddedNetwork(checkpoint)
            return
        packed.keep()
        checkpoint.free_encoder()
        let_go(artifact.directory)

    def trial_texts(self) -> tuple[str, ...]:
        return TRIALS

    def _refuse_far(self, precision: str, found: list[str]) -> None:
        if found:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise LoadFailed(
                f"{self.checkpoint.model_id} answers otherwise in {precision} ({PRECISIONS[precision]}): "
                f"{'; '.join(found[:3])}{more}; load it in another precision, or as it is stored.",
                model_id=self.checkpoint.model_id,
                precision=precision,
                differences=found[:20],
            )


def _in_order(groups: Sequence[Sequence[int]], parts: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of the groups put back where their items were."""
    if len(parts) == 1 and list(groups[0]) == sorted(groups[0]):
        return parts[0]
    rows = np.concatenate(parts)
    back = np.empty_like(rows)
    back[np.concatenate(groups)] = rows
    return back
