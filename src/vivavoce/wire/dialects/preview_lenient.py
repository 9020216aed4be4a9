"""What a lenient server reads beside the protocol: spellings that its documents print (protocol section 8).

They are looked for only in an event that a strict server refuses, and rewritten into what it accepts. The rewritten
event is then read strictly: what is wrong in it has the same error everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

_INTEGER: Final = re.compile(r"-?[0-9]{1,9}")
_MS: Final = ("prefix_padding_ms", "silence_duration_ms")


def forgive(event: object) -> tuple[str, ...]:
    """Rewrite ``event``, a JSON value, in place. Returns what was forgiven, by its kind; never what it said."""
    if not isinstance(event, dict):
        return ()
    match event.get("type"):
        case "response.create" if isinstance(response := event.get("response"), dict):
            return (*_alias(response), *_prompt(response))
        case "session.update" | "transcription_session.update" if isinstance(session := event.get("session"), dict):
            return tuple(_numbers(session.get("turn_detection")))
        case _:
            return ()


def _alias(response: dict[str, Any]) -> Iterator[str]:
    """Row 4: the name that the limit has in a session."""
    if "max_response_output_tokens" in response and "max_output_tokens" not in response:
        response["max_output_tokens"] = response.pop("max_response_output_tokens")
        yield "response.max_response_output_tokens for max_output_tokens"


def _prompt(response: dict[str, Any]) -> Iterator[str]:
    """Row 7: a question as one text of the user, after the items that the event has, by whatever name."""
    name = next((name for name in ("input_items", "append_input_items") if name in response), "input")
    given = response.get(name, [])
    if isinstance(response.get("prompt"), str) and isinstance(given, list):
        part = {"type": "input_text", "text": response.pop("prompt")}
        response[name] = [*given, {"type": "message", "role": "user", "content": [part]}]
        yield f"response.prompt for a message in {name}"


def _numbers(turn_detection: object) -> Iterator[str]:
    """Row 9: milliseconds in quotes."""
    if not isinstance(turn_detection, dict):
        return
    for name in _MS:
        value = turn_detection.get(name)
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            turn_detection[name] = int(value)
            yield f"session.turn_detection.{name} as a string"
