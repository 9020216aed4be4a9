"""To the wire: what both dialects print alike (protocol sections 3.1, 5 and 7; events.yaml)."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pybase64
from msgspec import UnsetType

from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc
from vivavoce.wire.errors import ServerFault

encode: Final = msgspec.json.Encoder().encode


def logprobs(given: tuple[se.Logprob, ...] | UnsetType | None) -> dict[str, Any]:
    if isinstance(given, UnsetType):
        return {}
    if given is None:
        return {"logprobs": None}
    return {
        "logprobs": [
            {"token": one.token, "logprob": one.logprob, "bytes": list(one.token.encode())} for one in given
        ]
    }


def transcription_usage(usage: se.TranscriptionUsage) -> dict[str, Any]:
    if isinstance(usage, se.TranscriptionDuration):
        return {"type": "duration", "seconds": usage.seconds}
    return {
        "type": "tokens",
        "total_tokens": usage.input_audio + usage.input_text + usage.output,
        "input_tokens": usage.input_audio + usage.input_text,
        "input_token_details": {"text_tokens": usage.input_text, "audio_tokens": usage.input_audio},
        "output_tokens": usage.output,
    }


def noise_reduction(kind: sc.NoiseReduction | None) -> dict[str, Any] | None:
    return None if kind is None else {"type": kind}


def fault(told: ServerFault) -> dict[str, Any]:
    return {"type": told.type, "code": told.code, "message": told.message}


def status_details(details: se.StatusDetails | None) -> dict[str, Any] | None:
    if details is None:
        return None
    body: dict[str, Any] = {"type": details.type}
    if details.reason is not None:
        body["reason"] = details.reason
    if details.error is not None:
        body["error"] = fault(details.error)
    return body


def tool(one: sc.FunctionTool) -> dict[str, Any]:
    body: dict[str, Any] = {"type": "function", "name": one.name}
    if one.description is not None:
        body["description"] = one.description
    if one.parameters is not None:
        body["parameters"] = one.parameters
    return body


def tool_choice(choice: sc.ToolChoice) -> str | dict[str, str]:
    return {"type": "function", "name": choice.name} if isinstance(choice, sc.NamedFunction) else choice


def max_tokens(limit: int | None) -> int | str:
    return "inf" if limit is None else limit


def delta_head(kind: str) -> str:
    """What a delta begins with, up to its event's id."""
    return f'{{"type":"{kind}","event_id":"'


def audio_delta(head: str, event: se.AudioDelta, event_id: str) -> bytes:
    """One of the hot frames, written by template. ``head``: see :func:`delta_head`."""
    return b"".join((_up_to_delta(head, event, event_id), b'"', pybase64.b64encode(event.delta), b'"}'))


def text_delta(head: str, event: se.TextDelta | se.TranscriptDelta, event_id: str, more: bytes = b"") -> bytes:
    """The same for words. ``more``: fields that follow, each with a comma before it."""
    return b"".join((_up_to_delta(head, event, event_id), encode(event.delta), more, b"}"))


def _up_to_delta(head: str, event: se.AudioDelta | se.TextDelta | se.TranscriptDelta, event_id: str) -> bytes:
    """Every value here is ours and needs no escaping."""
    return (
        f'{head}{event_id}","response_id":"{event.response_id}","item_id":"{event.item_id}",'
        f'"output_index":{event.output_index},"content_index":{event.content_index},"delta":'
    ).encode()


def item_retrieved(event: se.ItemRetrieved, item: dict[str, Any], event_id: str) -> bytes:
    """May hold half an hour of sound: it is written in one pass, which lets other threads run (as joining does).

    ``item``: as the dialect prints it, without sound.
    """
    pieces = [b'{"type":"conversation.item.retrieved","event_id":"', event_id.encode(), b'","item":']
    if "content" not in item:
        return b"".join((*pieces, encode(item), b"}"))
    parts = item.pop("content")
    pieces += [encode(item)[:-1], b',"content":[']
    for i, part in enumerate(parts):
        pieces += [b"," if i else b"", encode(part)[:-1]]
        if i in event.audio:
            pieces += [b',"audio":"', pybase64.b64encode(event.audio[i]), b'"']
        pieces.append(b"}")
    return b"".join((*pieces, b"]}}"))
