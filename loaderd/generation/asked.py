"""What a request for generated text may ask: the body of a GENERATE message, checked. Standard library only.

The gateway makes it out of its protocol, the model process reads it. Names of fields are those of the OpenAI API, so
that what is refused carries the name that its client wrote (facts: "param").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loaderd.errors import InvalidInput

MAX_TEXTS = 128  # prompts x n of one request
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 500
MAX_TOP_LOGPROBS = 20
MAX_BIASES = 300

Prompt = str | tuple[int, ...]
"""Text, or the numbers of its tokens."""


@dataclass(frozen=True, slots=True)
class Asked:
    """prompts: each is continued n times; or messages: a conversation, of which the next message is written n times.

    max_tokens: None: as many as the model's context leaves. temperature 0: always the likeliest token. seed: equal
    requests get equal texts. stop: a text ends before the first of these. logit_bias: by token. top_logprobs: None:
    none; else so many beside that of each token, 0 to MAX_TOP_LOGPROBS. echo: the prompt is the text's beginning.
    stream: the text comes in parts.
    """

    prompts: tuple[Prompt, ...] = ()
    messages: tuple[Mapping[str, Any], ...] | None = None
    max_tokens: int | None = None
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    echo: bool = False
    stream: bool = False

    @property
    def texts(self) -> int:
        """How many texts it asks for."""
        return self.n * (1 if self.messages is not None else len(self.prompts))

    def to_message(self) -> dict[str, Any]:
        """The JSON of it, without what is left at its default."""
        default = Asked()
        given = {
            known.name: value
            for known in dataclasses.fields(self)
            if (value := getattr(self, known.name)) != getattr(default, known.name)
        }
        if self.logit_bias:
            given["logit_bias"] = {str(token): bias for token, bias in self.logit_bias.items()}
        return given

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Asked:
        """Reads what `to_message` wrote; null is as if it were left out. Raises InvalidInput."""
        known = {known.name for known in dataclasses.fields(cls)}
        given = {name: value for name, value in message.items() if value is not None}
        for name in given:
            if name not in known:
                raise refused(name, f'The parameter "{name}" is not known.')
        asked = cls(
            prompts=tuple(_prompt(prompt) for prompt in _listed(given, "prompts", "prompt")),
            messages=_messages(given["messages"]) if "messages" in given else None,
            max_tokens=_whole(given, "max_tokens", None, 1),
            n=_whole(given, "n", 1, 1, MAX_TEXTS) or 1,
            temperature=_number(given, "temperature", 1.0, 0.0, 2.0),
            top_p=_number(given, "top_p", 1.0, 0.0, 1.0),
            presence_penalty=_number(given, "presence_penalty", 0.0, -2.0, 2.0),
            frequency_penalty=_number(given, "frequency_penalty", 0.0, -2.0, 2.0),
            logit_bias=_biases(given.get("logit_bias", {})),
            seed=_whole(given, "seed", None, -(2**63), 2**63 - 1),
            stop=_stops(_listed(given, "stop", "stop")),
            top_logprobs=_whole(given, "top_logprobs", None, 0, MAX_TOP_LOGPROBS),
            echo=_flag(given, "echo"),
            stream=_flag(given, "stream"),
        )
        if bool(asked.prompts) == (asked.messages is not None):
            raise refused("prompt", "Send a prompt that is not empty, or messages.")
        if asked.texts > MAX_TEXTS:
            raise refused(
                "n", f"The request asks for {asked.texts} texts (prompts × n); at most {MAX_TEXTS} are written."
            )
        return asked


def refused(param: str, sentence: str) -> InvalidInput:
    return InvalidInput(sentence, param=param)


def _listed(given: Mapping[str, Any], name: str, param: str) -> list[Any]:
    value = given.get(name, [])
    if not isinstance(value, list | tuple):
        raise refused(param, f'"{param}" must be a list, not {_shown(value)}.')
    return list(value)


def _prompt(value: Any) -> Prompt:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(type(token) is int and token >= 0 for token in value):
        return tuple(value)
    raise refused("prompt", f"A prompt must be text or a list of token numbers, not {_shown(value)}.")


def _messages(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(message, Mapping) for message in value):
        raise refused("messages", 'messages must be a list of at least one {"role": …, "content": …}.')
    for at, message in enumerate(value):
        for key in ("role", "content"):
            if not isinstance(message.get(key), str):
                raise refused("messages", f'messages[{at}] needs "{key}" as text.')
    return tuple(value)


def _whole(given: Mapping[str, Any], name: str, default: int | None, least: int, most: int | None = None) -> int | None:
    value = given.get(name, default)
    if value is default:
        return default
    if type(value) is not int or value < least or (most is not None and value > most):
        limits = f"from {least} to {most}" if most is not None else f"of at least {least}"
        raise refused(name, f"{name} must be a whole number {limits}, not {_shown(value)}.")
    return value


def _number(given: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise refused(name, f"{name} must be a number from {least:g} to {most:g}, not {_shown(value)}.")
    return float(value)


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise refused(name, f"{name} must be true or false, not {_shown(value)}.")
    return value


def _stops(value: Iterable[Any]) -> tuple[str, ...]:
    stops = tuple(value)
    if len(stops) > MAX_STOPS or not all(
        isinstance(stop, str) and 0 < len(stop) <= MAX_STOP_CHARACTERS for stop in stops
    ):
        raise refused("stop", f"stop takes up to {MAX_STOPS} texts of 1 to {MAX_STOP_CHARACTERS} characters each.")
    return stops


def _biases(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping) or len(value) > MAX_BIASES:
        raise refused("logit_bias", f"logit_bias must be an object of at most {MAX_BIASES} tokens with their bias.")
    biases = {}
    for token, bias in value.items():
        is_number = isinstance(bias, int | float) and not isinstance(bias, bool)
        if not str(token).isdecimal() or not is_number or not -100 <= bias <= 100:
            raise refused(
                "logit_bias",
                f"logit_bias needs token numbers and a bias from -100 to 100, not {_shown({token: bias})}.",
            )
        biases[int(token)] = float(bias)
    return biases


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
