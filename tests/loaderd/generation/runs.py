"""An engine driven by hand: what a request got, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from loaderd.generation.contract import Event, Generation, Writing


@dataclass
class Run:
    """What came of each request; with a stream its texts are put together from the pieces."""

    generation: Generation
    pieces: dict[Writing, list[list[dict[str, Any]]]] = field(default_factory=dict)
    finals: dict[Writing, dict[str, Any]] = field(default_factory=dict)
    errors: dict[Writing, BaseException] = field(default_factory=dict)

    def start(self, prompt: Any = "", **wishes: Any) -> Writing:
        """One prompt, greedy unless told otherwise."""
        asked = {"temperature": 0, **wishes}
        if "messages" not in asked and "prompts" not in asked:
            asked["prompts"] = [prompt]
        return self.generation.start(asked)

    def step(self) -> list[Event]:
        events = self.generation.step()
        for event in events:
            if event.piece is not None:
                self.pieces.setdefault(event.writing, []).append(event.piece["choices"])
            elif event.final is not None:
                self.finals[event.writing] = event.final
            else:
                assert event.error is not None
                self.errors[event.writing] = event.error
        return events

    def finish(self) -> Run:
        while self.generation.has_work:
            self.step()
        return self

    def choices(self, writing: Writing) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.finals[writing]["choices"]
        return found

    def text(self, writing: Writing) -> str:
        (choice,) = self.choices(writing)
        return str(choice["text"])

    def alone(self, prompt: Any = "", **wishes: Any) -> str:
        """The text of one request that nobody is beside. Raises what it came to instead."""
        writing = self.start(prompt, **wishes)
        self.finish()
        if writing in self.errors:
            raise self.errors[writing]
        return self.text(writing)

    def streamed(self, writing: Writing, index: int = 0) -> str:
        """One of its texts, put together from the pieces."""
        told = (choice for piece in self.pieces[writing] for choice in piece)
        return "".join(choice["text"] for choice in told if choice["index"] == index)
