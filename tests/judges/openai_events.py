"""The event models of ``openai`` (``.beta.realtime``, ``.realtime``) as a strict validator.

The client itself builds events without looking at types. Here each frame is validated by the model of its type in
pydantic's strict mode, and must come out of the model as it went in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, get_args

import openai
from openai.types.beta.realtime import RealtimeServerEvent
from pydantic import BaseModel, ValidationError
from witness import Findings, Known, UnknownEvent


def models_of(classes: tuple[type[BaseModel], ...]) -> dict[str, type[BaseModel]]:
    """The classes of a union of events, by the type of their event."""
    return {get_args(cls.model_fields["type"].annotation)[0]: cls for cls in classes}


EVENTS: Final = models_of(get_args(get_args(RealtimeServerEvent)[0]))
VERSION: Final = tuple(int(part) for part in openai.__version__.split(".")[:2])


def inspect(frame: str) -> Findings:
    """Raises UnknownEvent."""
    return inspect_with(EVENTS, frame)


def inspect_with(events: dict[str, type[BaseModel]], frame: str) -> Findings:
    """Raises UnknownEvent."""
    raw = json.loads(frame)
    model = events.get(raw["type"])
    if model is None:
        raise UnknownEvent(raw["type"])
    try:
        event = model.model_validate_json(frame, strict=True)
    except ValidationError as error:
        return Findings([f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()], [])
    same = event.model_dump(mode="json", by_alias=True, exclude_unset=True) == raw
    return Findings([] if same else ["the model changed it"], sorted(set(_extras(event, ""))))


def _extras(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{path}{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from _extras(getattr(value, name, None), f"{path}{name}.")
    elif isinstance(value, list):
        for element in value:
            yield from _extras(element, path)


# ----------------------------------------------------------------------- what is known of their models

KNOWN: Final = Known(
    disagreements=[
        (
            "session.updated",
            "session.tool_choice: ",
            "tool_choice is typed as a string; the service answers a chosen function as an object",
        )
    ],
    extras={},
    events={},
)


def _extra(reason: str, *paths: str) -> None:
    KNOWN.extras.update(dict.fromkeys(paths, f"{reason}: {', '.join(paths)}"))


_extra(
    "the model of a session has what can be set, not what is shown",
    "session.object",
    "session.expires_at",
    "session.client_secret",
    "session.include",
)
_extra("usage lacks it", "response.usage.input_token_details.cached_tokens_details")
_extra("function_call_arguments.done lacks it", "name")
if VERSION < (2, 0):
    _extra("the error of a failed response lacks it", "response.status_details.error.message")
if VERSION < (1, 66):
    _status = "statuses lack in_progress, with which every response and output item begins"
    _previous = "previous_item_id is not nullable; the first item of a conversation has none"
    _audio = "content parts of items lack the type audio"
    KNOWN.disagreements.extend(
        [
            ("response.created", "response.status: ", _status),
            ("response.output_item.added", "item.status: ", _status),
            ("conversation.item.created", "item.status: ", _status),
            ("conversation.item.created", "previous_item_id: ", _previous),
            ("input_audio_buffer.committed", "previous_item_id: ", _previous),
            ("response.output_item.done", "item.content.0.type: ", _audio),
            ("response.done", "response.output.0.content.0.type: ", _audio),
            ("session.updated", "session.turn_detection.type: ", "semantic_vad came later than this client"),
        ]
    )
    _extra("turn_detection is of 2024", *(f"session.turn_detection.{n}_response" for n in ("create", "interrupt")))
    _extra("the transcript is of 2024", "usage", "logprobs")
    _extra("transcription is of 2024", *(f"session.input_audio_transcription.{n}" for n in ("language", "prompt")))
    _extra("the session is of 2024", *(f"session.{n}" for n in ("input_audio_noise_reduction", "speed", "tracing")))
    _extra(
        "the response is of October 2024",
        *(
            f"response.{name}"
            for name in (
                "conversation_id",
                "max_output_tokens",
                "modalities",
                "output_audio_format",
                "temperature",
                "voice",
            )
        ),
    )
    KNOWN.events.update(
        dict.fromkeys(
            (
                "conversation.item.input_audio_transcription.delta",
                "conversation.item.retrieved",
                "transcription_session.updated",
            ),
            "came later than this client",
        )
    )
else:
    KNOWN.disagreements.extend(
        [
            (
                "conversation.item.input_audio_transcription.completed",
                "usage: ",
                "usage is required, but the service tells it since May 2025 only",
            ),
            (
                "transcription_session.updated",
                "session.client_secret: ",
                "client_secret is required, but present only in sessions that were made by REST, as its text says",
            ),
        ]
    )
KNOWN.events["transcription_session.created"] = "no edition has a model of it"
