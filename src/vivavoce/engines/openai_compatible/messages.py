"""The context of a response as chat messages, in the form that strict servers take.

After an assistant's message with calls stands the output of each, and nothing else in between; a conversation by
voice does not keep to that: an output comes late, or never, or its call is deleted.
"""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from vivavoce.engines import base

Json: TypeAlias = dict[str, Any]

NO_OUTPUT: Final = "There is no output yet."
"""What the model reads where a call has no output: each must have one."""
ORPHAN: Final = "Output of a function that was called earlier: "
"""Before an output whose call is not in the context."""


def chat_messages(request: base.GenerationRequest, *, system_role: str, alternate: bool) -> list[Json]:
    """``alternate``: for chat templates that know one system message, at the beginning, and then user and assistant
    by turns."""
    messages: list[Json] = []
    if request.instructions or not request.turns:
        messages.append({"role": system_role, "content": request.instructions})
    messages += _turns(request.turns, system_role)
    return _alternating(messages, system_role) if alternate else messages


def _turns(turns: Sequence[base.Turn], system_role: str) -> list[Json]:
    outputs: dict[str, list[str]] = {}
    called: set[str] = set()
    for turn in turns:
        match turn:
            case base.ToolCall():
                called.add(turn.call_id)
            case base.ToolOutput() if turn.call_id in called:
                outputs.setdefault(turn.call_id, []).append(turn.output)
    messages: list[Json] = []
    speaker: Json | None = None
    """The assistant's message that calls may still join."""
    answered: list[Json] = []
    """Their outputs, which stand after it."""
    known: set[str] = set()
    for turn in turns:
        match turn:
            case base.ToolCall():
                if speaker is None:
                    messages += answered
                    answered = []
                    speaker = {"role": "assistant", "content": None}
                    messages.append(speaker)
                speaker.setdefault("tool_calls", []).append(_call(turn))
                known.add(turn.call_id)
                said = "\n".join(outputs.get(turn.call_id, [NO_OUTPUT]))
                answered.append({"role": "tool", "tool_call_id": turn.call_id, "content": said})
            case base.ToolOutput() if turn.call_id in known:
                # It stands after its call already. What the assistant says next, it said knowing this.
                speaker = None
            case base.ToolOutput():
                messages += answered
                answered, speaker = [], None
                messages.append({"role": "user", "content": ORPHAN + turn.output})
            case base.Message():
                messages += answered
                answered, speaker = [], None
                role = system_role if turn.role == "system" else turn.role
                messages.append({"role": role, "content": _content(turn)})
                speaker = messages[-1] if turn.role == "assistant" else None
    return messages + answered


def _call(call: base.ToolCall) -> Json:
    return {
        "id": call.call_id,
        "type": "function",
        "function": {"name": call.name, "arguments": _arguments(call.arguments)},
    }


def _arguments(text: str) -> str:
    """Servers read them as a JSON object, and fail where it is none: a call that was cut short."""
    try:
        whole = isinstance(json.loads(text or "{}"), dict)
    except ValueError:
        whole = False
    return text or "{}" if whole else json.dumps({"cut_short": text})


def _content(message: base.Message) -> str | list[Json]:
    """A string where it is text alone: not all servers take a list."""
    if message.role != "user" or all(isinstance(part, base.TextInput) for part in message.content):
        return "\n".join(_words(message.content))
    return [_part(part) for part in message.content]


def _words(content: Iterable[base.Content]) -> Iterable[str]:
    for part in content:
        match part:
            case base.TextInput():
                yield part.text
            case base.AudioInput():
                yield part.transcript or ""
            case base.ImageInput():
                pass


def _part(part: base.Content) -> Json:
    match part:
        case base.TextInput():
            return {"type": "text", "text": part.text}
        case base.ImageInput():
            # Not all servers know the detail.
            detail = {} if part.detail == "auto" else {"detail": part.detail}
            return {"type": "image_url", "image_url": {"url": part.url, **detail}}
        case base.AudioInput():
            data = base64.b64encode(wav(part.pcm, part.rate)).decode()
            return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def wav(pcm: bytes, rate: int) -> bytes:
    """A WAV file of s16le mono sound."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(pcm)
    return file.getvalue()


def _alternating(messages: list[Json], system_role: str) -> list[Json]:
    system = "\n\n".join(message["content"] for message in messages if message["role"] == system_role)
    merged: list[Json] = [{"role": system_role, "content": system}] if system else []
    for message in messages:
        last = merged[-1] if merged else None
        if message["role"] == system_role:
            continue
        if last is not None and last["role"] == message["role"] and message["role"] != "tool":
            merged[-1] = _joined(last, message)
        else:
            merged.append(message)
    return merged


def _joined(one: Json, other: Json) -> Json:
    if isinstance(one["content"], list) or isinstance(other["content"], list):
        return {**one, "content": [*_as_list(one["content"]), *_as_list(other["content"])]}
    joined = {**one, **other, "content": "\n".join(filter(None, (one["content"], other["content"]))) or None}
    calls = [*one.get("tool_calls", ()), *other.get("tool_calls", ())]
    return {**joined, "tool_calls": calls} if calls else joined


def _as_list(content: str | list[Json]) -> list[Json]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]
