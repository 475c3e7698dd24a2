"""What a client asks to be written: the bodies of /v1/completions and /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loaderd.errors import InvalidInput, LoaderdError
from loaderd.gateway.openai.errors import renamed
from loaderd.gateway.openai.parameters import HARMLESS_IN_CHAT, HARMLESS_IN_COMPLETIONS, model_named, taken
from loaderd.generation.asked import MAX_TOP_LOGPROBS, Asked, refused

DEFAULT_MAX_TOKENS = 16  # of a completion; a message of a chat may fill the model's context

_SAME = (
    "temperature",
    "top_p",
    "n",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "stream",
)
"""Parameters of both kinds that go to the model process as they are."""

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""What a message's role may be -> what chat templates call it."""


@dataclass(frozen=True, slots=True)
class Wish:
    """model: as it was named. names: what the client calls a parameter that is called otherwise in `asked`."""

    model: str
    asked: Asked
    includes_usage: bool = False
    names: dict[str, str] = field(default_factory=dict)

    def worded(self, error: LoaderdError) -> LoaderdError:
        """The error in the client's words."""
        return renamed(error, self.names)


def completion(body: Any) -> Wish:
    """Raises InvalidInput."""
    known = (*_SAME, "model", "prompt", "max_tokens", "stop", "logprobs", "echo", "best_of", "stream_options")
    given = taken(body, known, HARMLESS_IN_COMPLETIONS)
    model, includes_usage = model_named(given), _includes_usage(given)
    message = _same(given)
    message["prompts"] = _prompts(given.get("prompt"))
    message["max_tokens"] = given.get("max_tokens", DEFAULT_MAX_TOKENS)
    message["echo"] = given.get("echo")
    logprobs = given.get("logprobs")
    if logprobs is not None and (type(logprobs) is not int or not 0 <= logprobs <= MAX_TOP_LOGPROBS):
        raise refused("logprobs", f"logprobs must be a whole number from 0 to {MAX_TOP_LOGPROBS}.")
    if logprobs is not None and message["echo"]:
        raise refused("logprobs", "logprobs of an echoed prompt are not computed; leave out echo or logprobs.")
    message["top_logprobs"] = logprobs
    if given.get("best_of", message.get("n", 1)) != message.get("n", 1):
        raise refused("best_of", "best_of other than n is not supported; ask for n texts and choose among them.")
    return Wish(model, Asked.from_message(message), includes_usage, {"top_logprobs": "logprobs"})


def chat(body: Any) -> Wish:
    """Raises InvalidInput."""
    own = ("messages", "max_tokens", "max_completion_tokens", "stop", "logprobs", "top_logprobs", "stream_options")
    given = taken(body, (*_SAME, "model", *own), HARMLESS_IN_CHAT)
    model, includes_usage = model_named(given), _includes_usage(given)
    message = _same(given)
    message["messages"] = _messages(given.get("messages"))
    names = {"max_tokens": "max_completion_tokens"} if "max_completion_tokens" in given else {}
    message["max_tokens"] = given.get("max_completion_tokens", given.get("max_tokens"))
    message["top_logprobs"] = _top_logprobs(given)
    try:
        return Wish(model, Asked.from_message(message), includes_usage, names)
    except InvalidInput as error:
        raise renamed(error, names) from None


def _same(given: Mapping[str, Any]) -> dict[str, Any]:
    message = {name: given[name] for name in _SAME if name in given}
    stop = given.get("stop")
    if stop is not None:
        message["stop"] = [stop] if isinstance(stop, str) else stop
    return message


def _prompts(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        return [given] if all(type(part) is int for part in given) else given
    raise refused("prompt", "prompt must be a text, a list of texts, or token numbers.")


def _includes_usage(given: Mapping[str, Any]) -> bool:
    options = given.get("stream_options")
    if options is None:
        return False
    if not given.get("stream"):
        raise refused("stream_options", 'stream_options is for requests with "stream": true.')
    known = {"include_usage", "include_obfuscation"}
    if (
        not isinstance(options, dict)
        or not set(options) <= known
        or not all(isinstance(option, bool | None) for option in options.values())
    ):
        raise refused("stream_options", 'stream_options takes {"include_usage": true or false}.')
    return bool(options.get("include_usage"))


def _top_logprobs(given: Mapping[str, Any]) -> int | None:
    wanted = given.get("logprobs", False)
    if not isinstance(wanted, bool):
        raise refused("logprobs", "logprobs must be true or false; how many others are told is top_logprobs.")
    top = given.get("top_logprobs")
    if top is not None and not wanted:
        raise refused("top_logprobs", "top_logprobs needs logprobs: true.")
    return (0 if top is None else top) if wanted else None


def _messages(given: Any) -> list[dict[str, str]]:
    if not isinstance(given, list) or not given:
        raise refused("messages", 'messages must be a list of at least one {"role": …, "content": …}.')
    return [_message(at, message) for at, message in enumerate(given)]


def _message(at: int, given: Any) -> dict[str, str]:
    if not isinstance(given, dict):
        raise refused(f"messages[{at}]", f"messages[{at}] must be an object with role and content.")
    role = given.get("role")
    if role not in _ROLES:
        known = ", ".join(_ROLES)
        raise refused(f"messages[{at}].role", f"messages[{at}].role must be one of {known}; tools are not supported.")
    for name, value in given.items():
        if name not in ("role", "content", "name") and value not in (None, []):
            raise refused(f"messages[{at}].{name}", f"messages[{at}].{name} is not supported here; leave it out.")
    return {"role": _ROLES[role], "content": _content(at, given.get("content"))}


def _content(at: int, given: Any) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not given:
        raise refused(f"messages[{at}].content", f"messages[{at}].content must be a text, or a list of parts of text.")
    for part in given:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise refused(
                f"messages[{at}].content", f"messages[{at}].content may only hold text; models here read no other kind."
            )
    return "\n".join(part["text"] for part in given)
