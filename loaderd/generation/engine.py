"""Continuous batching: texts that are being written share every step, join between steps, and leave when they are done.

A step gives each active text one token in one call of the network. Prompts are read beside it, a bounded piece a step,
so that a long one holds up the others only a little. Equal prompts of one request are read once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loaderd.errors import InvalidInput, LoaderdError, Overloaded
from loaderd.generation.asked import Asked, refused
from loaderd.generation.contract import Decoder, Event, Reading, Vocabulary, Writing
from loaderd.generation.sampling import Sampler, logprobs
from loaderd.generation.text import Cutter, Detokenizer

log = logging.getLogger(__name__)

DEFAULT_ACTIVE = 8
MOST_ACTIVE = 32  # beyond it a step takes so long that everybody notices
TOO_LONG = "context_length_exceeded"
PIECE_CHARACTERS = 8192  # of the prompts that a step turns into tokens; the last one may pass it
DEFAULT_NEW_TOKENS = 1024  # of a request that names no limit, for a model that has none


class _Text:
    """One text that is being written."""

    def __init__(self, request: _Request, index: int, prompt: list[int], max_tokens: int, begins: str) -> None:
        asked = request.asked
        self.request = request
        self.index = index
        self.prompt = prompt
        self.max_tokens = max_tokens
        self.last_token = 0
        self.tokens = 0
        self.finish_reason: str | None = None
        self._vocabulary = request.vocabulary
        self._sampler = Sampler(asked, index)
        self._detokenizer = Detokenizer(request.vocabulary.text_of, prompt)
        self._cutter = Cutter(asked.stop)
        self._top_logprobs = asked.top_logprobs
        self._begins = begins
        self._told = len(begins)
        self._made = len(begins)  # characters, those that are held back as well
        self._logprobs: deque[dict[str, Any]] = deque()

    @property
    def cells(self) -> int:
        """The most tokens that it may reach."""
        return len(self.prompt) + self.max_tokens

    def take(self, logits: np.ndarray) -> dict[str, Any] | None:
        """Chooses the next token; returns the choice of a piece, None when there is nothing to tell yet."""
        token = self._sampler.choose(logits)
        self.last_token = token
        self.tokens += 1
        text, self._begins = self._begins, ""
        if token in self._vocabulary.ends:
            self.finish_reason = "stop"
        else:
            made = self._detokenizer.add(token)
            if self._top_logprobs is not None:
                self._logprobs.append(self._shown(logprobs(logits, token, self._top_logprobs)))
            self._made += len(made)
            text += self._cutter.add(made)
            if not self._cutter.is_cut and self.tokens >= self.max_tokens:
                self.finish_reason = "length"
        if self.finish_reason is not None:
            text += self._cutter.add(self._detokenizer.rest())
            text += self._cutter.rest() if not self._cutter.is_cut else ""
        if self._cutter.is_cut:
            self.finish_reason = "stop"
        self._told += len(text)
        if not text and self.finish_reason is None:
            return None
        choice: dict[str, Any] = {"index": self.index, "text": text, "finish_reason": self.finish_reason}
        if self._top_logprobs is not None:
            choice["logprobs"] = self._told_logprobs()
        return choice

    def _shown(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """A token as a client gets it; offset: how many characters of the text came before it was complete."""
        return {
            **self._named(found["token"], found["logprob"]),
            "offset": self._made,
            "top": [self._named(token, logprob) for token, logprob in found["top"]],
        }

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._vocabulary.text_of([token])
        is_whole = "\N{REPLACEMENT CHARACTER}" not in text
        return {"token": text, "bytes": list(text.encode()) if is_whole else None, "logprob": logprob}

    def _told_logprobs(self) -> list[dict[str, Any]]:
        """Those of the tokens that begin in what was told and have not been told themselves."""
        told = []
        while self._logprobs and (self._logprobs[0]["offset"] < self._told or self._ends_whole()):
            told.append(self._logprobs.popleft())
        return told

    def _ends_whole(self) -> bool:
        return self.finish_reason is not None and not self._cutter.is_cut


class _Request:
    """A request with the texts that it asks for, which are there when all its prompts are tokens."""

    def __init__(self, asked: Asked, vocabulary: Vocabulary) -> None:
        _require_possible(asked, vocabulary)
        self.asked = asked
        self.vocabulary = vocabulary
        self.writing = Writing(asked.texts)
        self.texts: list[_Text] = []
        self.prompt_tokens = 0
        self.unfinished = asked.texts
        self.is_over = False  # its last event is out
        self._prompts = 1 if asked.messages is not None else len(asked.prompts)
        self._read = 0  # of its prompts
        self._whole: list[dict[str, Any]] = [
            {"index": index, "text": "", "finish_reason": None} for index in range(asked.texts)
        ]

    @property
    def is_read(self) -> bool:
        """Whether all its prompts are tokens."""
        return self._read == self._prompts

    def read_next(self) -> int:
        """Turns its next prompt into tokens; how many characters that had. Raises InvalidInput."""
        asked, at = self.asked, self._read
        prompt = _tokens(asked, at, self.vocabulary)
        max_tokens = _room(prompt, asked, self.vocabulary.max_tokens)
        begins = _echoed(asked, at, self.vocabulary)
        for _ in range(asked.n):
            self.texts.append(_Text(self, len(self.texts), prompt, max_tokens, begins))
        self.prompt_tokens += len(prompt)
        self._read += 1
        return _characters(asked) if asked.messages is not None else len(asked.prompts[at])

    def tell(self, choices: list[dict[str, Any]]) -> list[Event]:
        """The events for what was added to its texts in a step."""
        self.unfinished -= sum(choice["finish_reason"] is not None for choice in choices)
        events = []
        if self.asked.stream:
            events.append(Event(self.writing, piece={"choices": choices}))
        else:
            self._gather(choices)
        if not self.unfinished:
            self.is_over = True
            final: dict[str, Any] = {"usage": self._usage()}
            if not self.asked.stream:
                final["choices"] = self._whole
            events.append(Event(self.writing, final=final))
        return events

    def _gather(self, choices: list[dict[str, Any]]) -> None:
        for choice in choices:
            whole = self._whole[choice["index"]]
            whole["text"] += choice["text"]
            whole["finish_reason"] = choice["finish_reason"]
            if "logprobs" in choice:
                whole.setdefault("logprobs", []).extend(choice["logprobs"])

    def _usage(self) -> dict[str, int]:
        made = sum(text.tokens for text in self.texts)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": self.prompt_tokens + made,
        }


class Engine:
    """A `Generation` over a framework's decoder and vocabulary."""

    def __init__(self, model_id: str, decoder: Decoder, vocabulary: Vocabulary) -> None:
        self._model_id = model_id
        self._decoder = decoder
        self._vocabulary = vocabulary
        self._lock = threading.Lock()  # over the two lines, which several threads fill and empty
        self._unread: deque[_Request] = deque()  # their prompts are not tokens yet, or not all of them
        self._waiting: deque[_Text] = deque()
        self._max_waiting = DEFAULT_ACTIVE
        self._max_active = min(DEFAULT_ACTIVE, decoder.max_rows)
        self._reading: Reading | None = None
        self._read: list[_Text] = []  # the texts whose prompts are being read
        self._read_prompts: list[int] = []  # for each of them, which of the prompts
        self._active: list[_Text] = []  # as the rows of the decoder
        self._begun = 0
        self._must_clear = False  # what rows the decoder has is not known

    @property
    def has_work(self) -> bool:
        return bool(self._unread or self._waiting or self._read or self._active)

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._waiting) + sum(request.writing.items for request in self._unread)

    @property
    def begun(self) -> int:
        return self._begun

    def bound(self, max_active: int, max_waiting: int) -> None:
        self._max_active = max(1, min(max_active, MOST_ACTIVE, self._decoder.max_rows))
        self._max_waiting = max_waiting

    def start(self, request: Mapping[str, Any]) -> Writing:
        asked = Asked.from_message(request)
        self._require_room()
        made = _Request(asked, self._vocabulary)
        with self._lock:
            self._unread.append(made)
        return made.writing

    def _require_room(self) -> None:
        waiting = self.waiting
        if waiting >= self._max_waiting:
            raise Overloaded(
                f"{self._model_id} has {waiting} texts waiting to be written, which is its limit; "
                "try again in a moment.",
                model_id=self._model_id,
                queued=waiting,
            )

    def cancel(self, writing: Writing) -> None:
        writing.cancelled = True
        with self._lock:
            self._unread = deque(request for request in self._unread if request.writing is not writing)
            self._waiting = deque(text for text in self._waiting if text.request.writing is not writing)

    def step(self) -> list[Event]:
        began = time.perf_counter()
        events: list[Event] = []
        taking_part: set[_Request] = set()
        if self._must_clear:
            self._clear()
        try:
            self._drop()
            taking_part.update(text.request for text in self._active)
            self._advance(events)
        except BaseException as error:
            self._give_up(error, events)
        if not self._must_clear:
            self._tokenise(events)
            self._read_on(events, taking_part, began)
        seconds = time.perf_counter() - began
        for request in taking_part:
            request.writing.compute_seconds += seconds
        self._begun = len({text.request for text in (*self._active, *self._read)})
        return [event for event in events if not event.writing.cancelled]

    def _drop(self) -> None:
        """Makes room where nobody waits any more, or an error has ended the request."""
        kept = [row for row, text in enumerate(self._active) if _is_wanted(text)]
        if len(kept) < len(self._active):
            self._keep(kept)
        if self._read and not any(map(_is_wanted, self._read)):
            self._reading, self._read, self._read_prompts = None, [], []

    def _keep(self, rows: list[int]) -> None:
        self._active = [self._active[row] for row in rows]
        self._decoder.keep(rows)

    def _give_up(self, error: BaseException, events: list[Event]) -> None:
        """Ends all that is being written: after an error nobody knows what rows the decoder has."""
        failed, self._active = self._active, []
        self._must_clear = True
        if not failed:
            log.error("%s failed while it wrote texts that nobody waits for", self._model_id, exc_info=error)
        self._fail([text.request for text in failed], error, events)
        try:
            self._clear()
        except BaseException:  # the next step tries again, once these events are out
            log.exception("%s could not let go of the texts that it wrote", self._model_id)

    def _clear(self) -> None:
        self._decoder.keep([])
        self._must_clear = False

    def _advance(self, events: list[Event]) -> None:
        """One token more for every active text."""
        if not self._active:
            return
        logits = self._decoder.step([text.last_token for text in self._active])
        self._take(self._active, logits, range(len(self._active)), events)
        kept = [row for row, text in enumerate(self._active) if text.finish_reason is None and _is_wanted(text)]
        if len(kept) < len(self._active):
            self._keep(kept)

    def _tokenise(self, events: list[Event]) -> None:
        """Turns some more of the prompts into tokens: a piece, so that those that are written are not held up. Texts
        whose prompts are tokens join the line."""
        characters = 0
        while self._unread and characters < PIECE_CHARACTERS:
            with self._lock:
                request = self._unread[0] if self._unread else None
            if request is None:
                return
            error: BaseException | None = None
            try:
                characters += request.read_next()
            except BaseException as failure:  # libraries in other languages raise panics, which are no Exceptions
                error = self._unreadable(failure)
            if error is None and not request.is_read:
                continue
            with self._lock:
                if not self._unread or self._unread[0] is not request:
                    continue  # it was cancelled meanwhile
                self._unread.popleft()
                if error is None:
                    self._waiting.extend(request.texts)
            if error is not None:
                self._fail([request], error, events)

    def _unreadable(self, error: BaseException) -> LoaderdError:
        """What a client is told of a prompt that could not be turned into tokens."""
        if isinstance(error, LoaderdError):
            return error
        if isinstance(error, MemoryError):
            return Overloaded(
                f"{self._model_id} has no memory left to read the request; send less at once.", model_id=self._model_id
            )
        log.error("%s could not read a prompt", self._model_id, exc_info=error)
        return InvalidInput(f"The request cannot be read: {type(error).__name__}: {error}.")

    def _read_on(self, events: list[Event], taking_part: set[_Request], began: float) -> None:
        """Reads a piece of the prompts that come next; texts whose prompts are read get their first token, and join."""
        try:
            if self._reading is None:
                self._choose()
            if self._reading is None:
                return
            for text in self._read:
                taking_part.add(text.request)
                if text.request.writing.started_at is None:
                    text.request.writing.started_at = began
            logits = self._reading.advance()
            if logits is None:
                return
            reading, read, prompts = self._reading, self._read, self._read_prompts
            self._take(read, logits, prompts, events)
            joining = [at for at, text in enumerate(read) if text.finish_reason is None and _is_wanted(text)]
            if joining:
                self._decoder.join(reading, [prompts[at] for at in joining])
                self._active.extend(read[at] for at in joining)
        except BaseException as error:
            self._fail([text.request for text in self._read], error, events)
        self._reading, self._read, self._read_prompts = None, [], []

    def _choose(self) -> None:
        """Takes the texts that come next out of the line: as many as there is room for and one piece can read, else
        one."""
        prompts: list[list[int]] = []
        with self._lock:
            while self._waiting and self._has_room(self._waiting[0]):
                prompt = self._waiting[0].prompt
                is_new = not prompts or prompts[-1] is not prompt
                longest = max(map(len, [*prompts, prompt]))
                if prompts and is_new and (len(prompts) + 1) * longest > self._decoder.chunk_tokens:
                    break
                if is_new:
                    prompts.append(prompt)
                self._read.append(self._waiting.popleft())
                self._read_prompts.append(len(prompts) - 1)
        if prompts:
            self._reading = self._decoder.read(prompts)

    def _has_room(self, text: _Text) -> bool:
        there = [*self._active, *self._read]
        if not there:
            return True
        widest = max(text.cells, *(other.cells for other in there))
        return len(there) < self._max_active and (len(there) + 1) * widest <= self._decoder.max_cells

    def _take(self, texts: Sequence[_Text], logits: np.ndarray, rows: Sequence[int], events: list[Event]) -> None:
        """Gives each text its next token, by its row of the logits."""
        told: dict[_Request, list[dict[str, Any]]] = {}
        for text, row in zip(texts, rows, strict=True):
            if not _is_wanted(text):
                continue
            try:
                choice = text.take(logits[row])
            except BaseException as error:
                self._fail([text.request], error, events)
                continue
            if choice is not None:
                told.setdefault(text.request, []).append(choice)
        for request, choices in told.items():
            if not request.is_over:
                events.extend(request.tell(choices))

    def _fail(self, requests: Sequence[_Request], error: BaseException, events: list[Event]) -> None:
        """Ends these requests; one may be named several times."""
        for request in requests:
            if request.is_over:
                continue
            request.is_over = True
            events.append(Event(request.writing, error=error))
            with self._lock:
                self._waiting = deque(text for text in self._waiting if text.request is not request)


def _is_wanted(text: _Text) -> bool:
    return not text.request.writing.cancelled and not text.request.is_over


def _require_possible(asked: Asked, vocabulary: Vocabulary) -> None:
    """Raises InvalidInput for what is seen without reading the prompts."""
    for token in asked.logit_bias:
        if token >= vocabulary.size:
            raise refused(
                "logit_bias", f"logit_bias has the token {token}; the model has those below {vocabulary.size}."
            )
    if asked.messages is not None:
        _require_short(_characters(asked), "messages", vocabulary)
    for prompt in asked.prompts:
        if isinstance(prompt, str):
            _require_short(len(prompt), "prompt", vocabulary)


def _characters(asked: Asked) -> int:
    """Of a conversation."""
    return sum(len(message["content"]) for message in asked.messages or ())


def _tokens(asked: Asked, at: int, vocabulary: Vocabulary) -> list[int]:
    """Those of the prompt at this place. Raises InvalidInput."""
    if asked.messages is not None:
        return vocabulary.conversation(asked.messages)
    given = asked.prompts[at]
    prompt = vocabulary.tokens_of(given) if isinstance(given, str) else list(given)
    if not prompt:
        raise refused("prompt", f"Prompt {at} has no tokens; the model needs at least one word.")
    if max(prompt) >= vocabulary.size:
        raise refused(
            "prompt", f"Prompt {at} has the token {max(prompt)}; the model has those below {vocabulary.size}."
        )
    return prompt


def _require_short(characters: int, param: str, vocabulary: Vocabulary) -> None:
    """Raises InvalidInput for a text that passes the context however it is read."""
    if characters > vocabulary.max_characters:
        context = "" if vocabulary.max_tokens is None else f", which is a context of {vocabulary.max_tokens} tokens"
        raise InvalidInput(
            f"The model reads at most {vocabulary.max_characters} characters{context}; "
            f"the request has {characters}. Shorten it.",
            param=param,
            reason=TOO_LONG,
        )


def _room(prompt: list[int], asked: Asked, limit: int | None) -> int:
    """How many tokens the text may have; raises InvalidInput when the prompt and what is wanted pass the limit."""
    wanted = asked.max_tokens
    if limit is None:
        return wanted or DEFAULT_NEW_TOKENS
    left = limit - len(prompt)
    if left < (wanted or 1):
        more = f" and asks for {wanted} more" if wanted else ""
        raise InvalidInput(
            f"The model's context is {limit} tokens; the request has {len(prompt)}{more}. "
            "Shorten the prompt or lower max_tokens.",
            param="messages" if wanted is None else "max_tokens",
            reason=TOO_LONG,
        )
    return wanted or left


def _echoed(asked: Asked, at: int, vocabulary: Vocabulary) -> str:
    if not asked.echo or asked.messages is not None:
        return ""
    prompt = asked.prompts[at]
    return prompt if isinstance(prompt, str) else vocabulary.text_of(prompt)
