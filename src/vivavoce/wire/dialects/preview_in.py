"""Preview dialect, from the wire: shapes -> client events without dialect (protocol sections 3.2, 4 and 8).

What it has in common with the other dialect is in ``decoder``.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.wire import client_events as ce
from vivavoce.wire import items
from vivavoce.wire import session_config as sc
from vivavoce.wire.client_secrets import SecretRequest
from vivavoce.wire.dialects import preview_shapes as own
from vivavoce.wire.dialects import shapes
from vivavoce.wire.dialects.decoder import (
    EventDecoder,
    include,
    item_of,
    message_of,
    noise_reduction,
    or_,
    secret_seconds,
    semantic_vad,
    server_vad,
    shape_in,
    tool_choice,
    tools,
    tracing,
    transcription,
)
from vivavoce.wire.dialects.preview_lenient import forgive
from vivavoce.wire.dialects.profiles import Profile

SECRET_S: Final = 60
"""How long a client secret opens sessions, unless asked otherwise."""


class PreviewDecoder(EventDecoder):
    """Reads client events of the preview dialect. One per profile and strictness."""

    def __init__(self, profile: Profile, *, strict: bool = True) -> None:
        super().__init__(own.event_shapes(profile))
        self._profile = profile
        self._strict = strict

    def _second_reading(self, value: object) -> ce.ClientEvent:
        """A lenient decoder may understand what does not fit."""
        forgiven = () if self._strict else forgive(value)
        event = super()._second_reading(value)
        if isinstance(event, ce.SessionUpdate | ce.ResponseCreate):
            return msgspec.structs.replace(event, forgiven=forgiven)
        return event

    def _own_event(self, shape: Any, event_id: str | None) -> ce.ClientEvent:
        match shape:
            case own.SessionUpdateIn():
                return ce.SessionUpdate(session=self._session(shape.session), event_id=event_id)
            case own.TranscriptionSessionUpdateIn():
                patch = self._transcription_session(shape.session)
                return ce.SessionUpdate(session=patch, kind="transcription", event_id=event_id)
            case own.ItemCreateIn():
                return ce.ItemCreate(
                    item=item_of(shape.item), previous_item_id=or_(shape.previous_item_id, None), event_id=event_id
                )
            case own.ResponseCreateIn():
                options = _options(shape.response) if shape.response else sc.ResponseOptions()
                return ce.ResponseCreate(options=options, event_id=event_id)
            case _:
                return super()._own_event(shape, event_id)

    def secret_request(self, body: dict[str, Any], kind: sc.SessionKind) -> SecretRequest:
        if not self._strict:
            forgive({"type": "session.update", "session": body})
        if kind == "transcription":
            hears = shape_in(body, own.TranscriptionSessionWithSecret, "session")
            patch, secret = self._transcription_session(hears), hears.client_secret
        else:
            speaks = shape_in(body, own.SessionOf2025WithSecret, "session")
            patch, secret = self._session(speaks), speaks.client_secret
        expires_after = UNSET if isinstance(secret, UnsetType) else secret.expires_after
        return SecretRequest(session=patch, kind=kind, seconds=secret_seconds(expires_after, SECRET_S))

    def _session(self, shape: own.Session[Any]) -> sc.SessionPatch:
        max_tokens = shape.max_response_output_tokens
        of_2025 = shape if isinstance(shape, own.SessionOf2025) else None
        return sc.SessionPatch(
            model=shape.model,
            modalities=_modalities(shape.modalities),
            instructions=shape.instructions,
            voice=shape.voice,
            input_audio_format=shape.input_audio_format,
            output_audio_format=shape.output_audio_format,
            input_audio_transcription=transcription(shape.input_audio_transcription),
            turn_detection=self._turn_detection(shape.turn_detection),
            tools=tools(shape.tools),
            tool_choice=tool_choice(shape.tool_choice),
            temperature=shape.temperature,
            max_output_tokens=None if max_tokens == "inf" else max_tokens,
            speed=of_2025.speed if of_2025 else UNSET,
            input_audio_noise_reduction=noise_reduction(of_2025.input_audio_noise_reduction) if of_2025 else UNSET,
            include=include(of_2025.include) if of_2025 else UNSET,
            tracing=tracing(of_2025.tracing) if of_2025 else UNSET,
        )

    def _transcription_session(self, shape: own.TranscriptionSessionIn) -> sc.SessionPatch:
        return sc.SessionPatch(
            modalities=_modalities(shape.modalities),
            input_audio_format=shape.input_audio_format,
            input_audio_transcription=transcription(shape.input_audio_transcription),
            turn_detection=self._turn_detection(shape.turn_detection),
            input_audio_noise_reduction=noise_reduction(shape.input_audio_noise_reduction),
            include=include(shape.include),
        )

    def _turn_detection(
        self, shape: shapes.ServerVadIn | shapes.SemanticVadIn | shapes.NoTurnDetectionIn | UnsetType | None
    ) -> sc.TurnDetection | UnsetType | None:
        match shape:
            case shapes.ServerVadIn():
                return server_vad(shape, sc.ServerVad(silence_duration_ms=self._profile.silence_duration_ms))
            case shapes.SemanticVadIn():
                return semantic_vad(shape)
            case shapes.NoTurnDetectionIn() | None:
                return None
            case _:
                return UNSET


def _modalities(names: list[sc.Modality] | UnsetType) -> tuple[sc.Modality, ...] | UnsetType:
    return UNSET if isinstance(names, UnsetType) else tuple(names)


def _options(shape: own.ResponseIn) -> sc.ResponseOptions:
    apart = shape.conversation == "none" or shape.commit is False
    max_tokens = shape.max_output_tokens
    context: list[tuple[items.ContextItem, str]] | None = None
    if not isinstance(shape.input, UnsetType):
        context = _input(shape.input, "response.input")
    elif not isinstance(shape.input_items, UnsetType):
        context = _input(shape.input_items, "response.input_items")
    return sc.ResponseOptions(
        modalities=_modalities(shape.modalities),
        instructions=UNSET if shape.instructions is None else shape.instructions,
        voice=shape.voice,
        output_audio_format=shape.output_audio_format,
        tools=tools(shape.tools),
        tool_choice=tool_choice(shape.tool_choice),
        temperature=shape.temperature,
        max_output_tokens=None if max_tokens == "inf" else max_tokens,
        conversation="none" if apart else "auto",
        metadata=or_(shape.metadata, None),
        input=None if context is None else tuple(item for item, _ in context),
        input_paths=tuple(path for _, path in context or ()),
        append=tuple(item_of(item) for item in or_(shape.append_input_items, [])),
        cancel_previous=shape.cancel_previous is True,
    )


def _input(shape: list[own.ContextItemIn], name: str) -> list[tuple[items.ContextItem, str]]:
    """The items with the places in the client's event at which they stand."""
    context: list[tuple[items.ContextItem, str]] = []
    for i, item in enumerate(shape):
        path = f"{name}[{i}]"
        if isinstance(item, shapes.ItemReferenceIn):
            context.append((items.ItemReference(item.id), path))
        elif isinstance(item, own.ContextMessageIn):
            context.extend(_references(item, path) or [(_message(item), path)])
        else:
            context.append((item_of(item), path))
    return context


def _message(shape: own.ContextMessageIn) -> items.MessageItem:
    assert not isinstance(shape.role, UnsetType)
    assert not isinstance(shape.content, UnsetType)
    return message_of(shape.id or "", shape.role, shape.content)


def _references(message: own.ContextMessageIn, path: str) -> list[tuple[items.ContextItem, str]]:
    """Spellings of a reference other than ``item_reference`` (protocol section 8, rows 13 and 14)."""
    if isinstance(message.content, UnsetType):
        return [(items.ItemReference(message.id or ""), path)]
    return [
        (items.ItemReference(part.id), f"{path}.content[{i}]")
        for i, part in enumerate(message.content)
        if isinstance(part, shapes.ReferencePartIn)
    ]
