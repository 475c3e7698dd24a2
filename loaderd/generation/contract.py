"""Who does what when text is generated.

The door starts a `Writing` for each request and cancels it when nobody waits any more, on the event loop's thread. The
compute thread takes a step for as long as there is work, between other calls of the model. The engine is the
`Generation`: it decides which texts are written at once (`loaderd.generation.engine`). A framework gives it a
`Decoder`, which computes, and a `Vocabulary`, which turns text into tokens and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


@dataclass(slots=True, eq=False)
class Writing:
    """One request for text on its way. origin: whom to answer, for the door. items: how many texts it asks for.

    arrived_at, started_at: by time.perf_counter; started_at is when its first step began, None before. compute_seconds:
    sum of the steps that it was part of. cancelled: nobody waits any more. is_traced: the answer tells where its time
    went.
    """

    items: int
    origin: Any = None
    arrived_at: float = field(default_factory=perf_counter)
    started_at: float | None = None
    compute_seconds: float = 0.0
    cancelled: bool = False
    is_traced: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a request in a step: one of piece, final and error. final or error comes last.

    piece: {"choices": [{"index", "text", "finish_reason": null, "stop" or "length", "logprobs" where asked for}]}: what
    was added to its texts; only when it asked for a stream. final: {"usage": {"prompt_tokens", "completion_tokens",
    "total_tokens"}}, with the whole texts as "choices" unless they were streamed. error: a LoaderdError, or what the
    model raised.
    """

    writing: Writing
    piece: dict[str, Any] | None = None
    final: dict[str, Any] | None = None
    error: BaseException | None = None


class Generation(Protocol):
    """Writes several texts at once. `step` belongs to one thread, all else to any."""

    @property
    def has_work(self) -> bool:
        """Whether a step has something to do."""

    @property
    def waiting(self) -> int:
        """How many texts wait for their first step."""

    @property
    def begun(self) -> int:
        """How many requests are being written, so that they wait no more; a snapshot."""

    def bound(self, max_active: int, max_waiting: int) -> None:
        """How many texts may be written at once, and how many may wait beside them. Once, before the first request."""

    def start(self, request: Mapping[str, Any]) -> Writing:
        """Queues what the body of a GENERATE message asks for. Raises InvalidInput, and Overloaded where too many
        wait. Its prompts are not looked into: one that cannot be read is an event of a step."""

    def step(self) -> list[Event]:
        """Adds one token to every text that is being written, and reads some more of the prompts that come next, which
        it turns into tokens before: a bounded piece each.

        What fails is in the events. It raises only when the network cannot be used any more, not even by the next
        texts: the process must end then."""

    def cancel(self, writing: Writing) -> None:
        """No event follows that is not on its way; its texts make room at the next step."""


class Reading(Protocol):
    """Prompts that are being read together."""

    def advance(self) -> np.ndarray | None:
        """Reads up to `Decoder.chunk_tokens` more tokens: None while some are left, then the logits of what comes next,
        [prompts, tokens of the vocabulary] as float32."""


class Decoder(Protocol):
    """The network and the rows that it writes; each remembers what it has read so far. One thread only.

    chunk_tokens: how much of the prompts one step may read. max_rows: how many rows may be written at once, and
    max_cells: how many tokens all of them together may reach, padding included: its memory.
    """

    chunk_tokens: int
    max_rows: int
    max_cells: int

    def read(self, prompts: Sequence[Sequence[int]]) -> Reading:
        """Begins with prompts of at least one token; computes nothing yet."""

    def join(self, reading: Reading, prompts: Sequence[int]) -> None:
        """Adds rows behind the others: one for each number of a prompt in `reading`, which is read to its end. All or
        none of them when it raises."""

    def step(self, tokens: Sequence[int]) -> np.ndarray:
        """Gives every row its next token; returns the logits of the one after it, [rows, tokens of the vocabulary] as
        float32. After it raised only `keep([])` may follow."""

    def keep(self, rows: Sequence[int]) -> None:
        """Lets go of all rows but these."""


class Vocabulary(Protocol):
    """Text to tokens and back; from any thread.

    size: tokens are below it. ends: tokens that end a text. max_tokens: how many a prompt and its text may have
    together; None: no limit is known. max_characters: a longer prompt cannot fit, so that nobody has to read it first.
    """

    size: int
    ends: frozenset[int]
    max_tokens: int | None
    max_characters: int

    def tokens_of(self, text: str) -> list[int]:
        """The tokens that a text begins a prompt with."""

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The prompt after which the next message of the conversation is written. Raises InvalidInput where the model
        has no template for conversations, or it refuses this one."""

    def text_of(self, tokens: Sequence[int]) -> str:
        """Their text, without special tokens; U+FFFD for bytes that are not whole characters."""
