"""A golden script that both dialects have, as a GA client lives it (``docs/reference/golden-scripts.md``).

The script is written in the preview dialect. :func:`in_ga` puts what the client says, and what the server must
answer, into GA: names and places by the tables below, and what comes at another time where GA has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from vivavoce.testing import script as s

PROFILE: Final = "openai-ga"

_NAMES: Final = {
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "transcription_session.created": "session.created",
    "transcription_session.updated": "session.updated",
}
_SESSION: Final = {
    "modalities": "output_modalities",
    "voice": "audio.output.voice",
    "speed": "audio.output.speed",
    "output_audio_format": "audio.output.format",
    "input_audio_format": "audio.input.format",
    "input_audio_transcription": "audio.input.transcription",
    "input_audio_noise_reduction": "audio.input.noise_reduction",
    "turn_detection": "audio.input.turn_detection",
    "max_response_output_tokens": "max_output_tokens",
}
_RESPONSE: Final = {
    "modalities": "output_modalities",
    "voice": "audio.output.voice",
    "output_audio_format": "audio.output.format",
}
_PARTS: Final = {"text": "output_text", "audio": "output_audio"}
_FORMATS: Final = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_GONE: Final = ("temperature", "client_secret", "append_input_items", "input_items", "commit", "cancel_previous")
_OF_OTHER_SHAPE: Final = (
    "session.",
    "transcription_session.",
    "response.created",
    "response.done",
    "conversation.item.input_audio_transcription.",
)
"""Events that have other fields in GA: a script that lists them all lists those of the preview."""
_ABSENT_SILENCE_MS: Final = 500
"""What a turn detection without ``silence_duration_ms`` means in the preview, but not in GA."""


def in_ga(script: s.Script) -> s.Script:
    """Raises :class:`vivavoce.testing.script.ScriptError` for what GA has not."""
    try:
        steps = list(_Translation(script).steps())
    except ValueError as error:
        raise s.ScriptError(f"{script.path}: {error}") from error
    return s.Script(script.path, script.title, replace(script.settings, profile=PROFILE), steps)


class _Translation:
    def __init__(self, script: s.Script) -> None:
        self._script = script
        self._open: list[tuple[bool, str]] = []
        """Items that are being made: whether the conversation has them, and how the script names their response."""
        self._touched = False
        """The last response has made something."""
        self._running = self._apart = False
        """A response of the conversation runs; the one that is asked for is none of it."""
        self._held: list[s.ExpectEvent] = []
        """Outputs of functions, as they will be taken when it has ended."""

    def steps(self) -> Iterator[s.Step]:
        for step in self._script.steps:
            command = step.command
            if isinstance(command, s.SendEvent) and isinstance(command.value, dict):
                if command.value.get("type") == "response.create":
                    self._apart = (command.value.get("response") or {}).get("conversation") == "none"
                command = s.SendEvent(client_event(command.value))
            expected = list(self._expected(step))
            yield s.Step(step.line, step.text, command, expected, step.effects)

    def _expected(self, step: s.Step) -> Iterator[s.Expectation]:
        tells_deltas = self._script.settings.profile == "azure-2025-04"
        before = ""
        for wanted in step.expected:
            if isinstance(wanted, s.ExpectClosed):
                yield wanted
                continue
            if wanted.type.endswith("transcription.completed") and isinstance(step.command, s.Heard):
                tells = not tells_deltas and step.command.text
                if tells:
                    yield s.ExpectEvent(wanted.line, wanted.type.replace("completed", "delta"), {}, whole=False)
            yield from self._event(wanted, before, step.command)
            before = wanted.type

    def _event(self, wanted: s.ExpectEvent, before: str, command: s.Command | None) -> Iterator[s.Expectation]:
        pattern = server_event(wanted.pattern)
        if wanted.type.endswith(".delta") and "audio.delta" not in wanted.type:
            pattern["obfuscation"] = "*"
        event = replace(
            wanted,
            type=_NAMES.get(wanted.type, wanted.type),
            pattern=pattern,
            whole=wanted.whole and not wanted.type.startswith(_OF_OTHER_SHAPE),
        )
        match wanted.type:
            case "conversation.created" | "rate_limits.updated":
                return
            case "conversation.item.created":
                if self._running and _is_output(command):
                    self._held += [replace(event, type=f"conversation.item.{name}") for name in ("added", "done")]
                    return
                yield replace(event, type="conversation.item.added")
                if before == "response.output_item.added":
                    self._open[-1] = (True, self._open[-1][1])
                else:
                    yield replace(event, type="conversation.item.done")
            case "response.created":
                self._touched = False
                self._running = self._running or not self._apart
                yield event
            case "response.output_item.added":
                self._touched = True
                self._open.append((False, _response_of(wanted)))
                yield event
            case "response.output_item.done":
                if self._closed(wanted):
                    item = {"item": pattern["item"]} if "item" in pattern else {}
                    yield replace(event, type="conversation.item.done", pattern=item, whole=False)
                yield event
            case "response.done":
                yield event
                if not self._apart:
                    self._running = False
                    yield from self._held
                    self._held = []
                cut = wanted.pattern.get("response", {}).get("status") in ("cancelled", "failed")
                if self._touched or not cut:
                    yield s.ExpectEvent(wanted.line, "rate_limits.updated", {}, whole=False)
            case _:
                yield event

    def _closed(self, wanted: s.ExpectEvent) -> bool:
        """Whether the conversation has the item that ends."""
        response = _response_of(wanted)
        found = [one for one in self._open if len(self._open) == 1 or one[1] == response]
        if len(found) != 1:
            raise ValueError(f"line {wanted.line}: several items are open; name their response_id")
        self._open.remove(found[0])
        return found[0][0]


def _is_output(command: s.Command | None) -> bool:
    value = command.value if isinstance(command, s.SendEvent) else None
    item = value.get("item") if isinstance(value, dict) else None
    return isinstance(item, dict) and item.get("type") == "function_call_output"


def _response_of(wanted: s.ExpectEvent) -> str:
    return str(wanted.pattern.get("response_id", ""))


# ---------------------------------------------------------------------------------------------- one event


def client_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Raises ValueError for what GA has not."""
    out = dict(event)
    match event.get("type"):
        case "session.update" if isinstance(event.get("session"), dict):
            out["session"] = {"type": "realtime", **_set(event["session"])}
        case "transcription_session.update" if isinstance(event.get("session"), dict):
            out |= {"type": "session.update", "session": {"type": "transcription", **_set(event["session"])}}
        case "response.create" if isinstance(event.get("response"), dict):
            out["response"] = _moved(event["response"], _RESPONSE)
            if isinstance(event["response"].get("input"), list):
                out["response"]["input"] = [_item(item) for item in event["response"]["input"]]
        case "conversation.item.create" if isinstance(event.get("item"), dict):
            out["item"] = _item(event["item"])
    return out


def server_event(pattern: Mapping[str, Any]) -> dict[str, Any]:
    """The pattern of an event, but for its name. Raises ValueError for what GA has not."""
    out = dict(pattern)
    if isinstance(pattern.get("session"), dict):
        out["session"] = _moved(_known(pattern["session"]), _SESSION)
    if isinstance(pattern.get("response"), dict):
        out["response"] = response = _moved(_known(pattern["response"]), _RESPONSE)
        if isinstance(response.get("output"), list):
            response["output"] = [_item(item) for item in response["output"]]
    if isinstance(pattern.get("item"), dict):
        out["item"] = _item(pattern["item"])
    if isinstance(pattern.get("error"), dict):
        out["error"] = _error(pattern["error"])
    return out


def _known(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _GONE}


def _set(session: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a client; those that are left out mean the same as in the preview."""
    vad = session.get("turn_detection")
    if session.get("instructions") == "":
        raise ValueError('GA takes "" for no instructions at all')
    if isinstance(vad, dict) and vad.get("type") == "server_vad" and "silence_duration_ms" not in vad:
        session = {**session, "turn_detection": {**vad, "silence_duration_ms": _ABSENT_SILENCE_MS}}
    return _moved(session, _SESSION)


def _moved(settings: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if key in _GONE:
            raise ValueError(f"GA has no {key}")
        *path, name = places.get(key, key).split(".")
        holder = out
        for step in path:
            holder = holder.setdefault(step, {})
        holder[name] = _value(key, value)
    return out


def _value(key: str, value: Any) -> Any:
    if key == "modalities" and isinstance(value, list):
        return ["audio"] if "audio" in value else value
    if key in ("input_audio_format", "output_audio_format") and isinstance(value, str):
        return _FORMATS.get(value, value)
    return value


def _item(item: Any) -> Any:
    """An item, or its pattern."""
    if not isinstance(item, dict):
        return item
    out = {key: value for key, value in item.items() if key != "object"}
    if item.get("type") == "function_call_output":
        out.pop("status", None)
    if isinstance(item.get("content"), list):
        out["content"] = [_part(part) for part in item["content"]]
    return out


def _part(part: Any) -> Any:
    if not isinstance(part, dict) or part.get("type") not in _PARTS:
        return part
    return {**part, "type": _PARTS[part["type"]]}


def _error(error: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _placed(value) if key in ("param", "message") else value for key, value in error.items()}


def _placed(text: Any) -> Any:
    """Names of settings in ``param``, and in quotes in a message."""
    if isinstance(text, str):
        for owner, places in (("session", _SESSION), ("response", _RESPONSE)):
            for key, place in places.items():
                text = re.sub(rf"(^|'){owner}\.{key}\b", rf"\1{owner}.{place}", text)
    return text
