"""From the wire: what both dialects read alike (protocol sections 3.2, 4 and 8).

A shape that could be made is a valid event: what follows gives it its meaning and refuses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, Union

import msgspec
import pybase64
from msgspec import UNSET, UnsetType

from vivavoce.wire import client_events as ce
from vivavoce.wire import errors, items
from vivavoce.wire import session_config as sc
from vivavoce.wire.client_secrets import SecretRequest
from vivavoce.wire.dialects import shapes
from vivavoce.wire.errors import ClientFault
from vivavoce.wire.faults import describe, first_fault

_T = TypeVar("_T")


class EventDecoder:
    """Reads the client events that ``events`` has shapes for, by type. Stateless; one serves all sessions."""

    def __init__(self, events: dict[str, Any]) -> None:
        self._shapes = events
        self._event_type: Any = Union[tuple(events.values())]  # noqa: UP007  # known at run time only
        self._decode: Callable[[str | bytes], Any] = msgspec.json.Decoder(self._event_type).decode

    def decode(self, frame: str | bytes) -> ce.ClientEvent:
        """One text frame -> its event. Raises ClientFault, or msgspec.DecodeError if it is not JSON."""
        try:
            shape = self._decode(frame)
            # Most frames of a session are appends: they go by no match and through few hands.
            return append(shape) if type(shape) is shapes.AppendIn else self._event(shape)
        except msgspec.ValidationError:
            return self._second_reading(msgspec.json.decode(frame))

    def fault_of(self, value: object) -> ClientFault:
        """Why a JSON value is no event of this dialect."""
        if not isinstance(value, dict):
            return errors.not_an_object(describe(value))
        kind = value.get("type")
        if kind is None:
            return errors.missing_type()
        if not isinstance(kind, str):
            return errors.invalid_type("type", "a string", describe(kind))
        if kind not in self._shapes:
            return errors.unsupported_value("type", kind, self._shapes)
        fault = first_fault(value, self._shapes[kind])
        if fault is None:
            raise AssertionError(f"a {kind} event fails its shape, but no fault can be found in it")
        return fault

    def secret_request(self, body: dict[str, Any], kind: sc.SessionKind) -> SecretRequest:
        """What the JSON body asks for that a client secret is minted with; ``kind`` of the sessions, where the body
        does not tell. Raises ClientFault, whose ``param`` begins with ``session`` as in ``session.update``.
        """
        raise NotImplementedError

    def _second_reading(self, value: object) -> ce.ClientEvent:
        """The event in a JSON value that did not fit as it was read. Raises ClientFault.

        Of a key that stands twice in an object the last value counts, but the decoder checks each of them.
        """
        try:
            return self._event(msgspec.convert(value, self._event_type))
        except msgspec.ValidationError as mismatch:
            raise self.fault_of(value) from mismatch

    def _event(self, shape: Any) -> ce.ClientEvent:
        match shape:
            case shapes.AppendIn():
                return append(shape)
            case shapes.CommitIn():
                return ce.InputAudioCommit(event_id=or_(shape.event_id, None))
            case shapes.ClearIn():
                return ce.InputAudioClear(event_id=or_(shape.event_id, None))
            case shapes.ItemDeleteIn():
                return ce.ItemDelete(item_id=shape.item_id, event_id=or_(shape.event_id, None))
            case shapes.ItemTruncateIn():
                return ce.ItemTruncate(
                    item_id=shape.item_id,
                    content_index=shape.content_index,
                    audio_end_ms=shape.audio_end_ms,
                    event_id=or_(shape.event_id, None),
                )
            case shapes.ItemRetrieveIn():
                return ce.ItemRetrieve(item_id=shape.item_id, event_id=or_(shape.event_id, None))
            case shapes.ResponseCancelByIdIn():
                return ce.ResponseCancel(
                    response_id=or_(shape.response_id, None), event_id=or_(shape.event_id, None)
                )
            case shapes.ResponseCancelIn():
                return ce.ResponseCancel(event_id=or_(shape.event_id, None))
            case _:
                return self._own_event(shape, or_(shape.event_id, None))

    def _own_event(self, shape: Any, event_id: str | None) -> ce.ClientEvent:
        """An event that this dialect spells in its own way."""
        raise AssertionError(f"no client event is made of {type(shape).__name__}")


def append(shape: shapes.AppendIn) -> ce.InputAudioAppend:
    """Raises msgspec.ValidationError where there is more sound than an event may hold."""
    event_id = None if shape.event_id is UNSET else shape.event_id
    if len(shape.audio) > shapes.AUDIO_CHARS:
        raise msgspec.ValidationError
    try:
        # By position: a keyword costs as much as the decoding of 20 ms.
        return ce.InputAudioAppend(audio=pybase64.b64decode(shape.audio, None, True), event_id=event_id)
    except ValueError:
        return ce.InputAudioAppend(audio=b"", undecodable=True, event_id=event_id)


def shape_in(value: object, shape: type[_T], path: str) -> _T:
    """A JSON value as what it is said to be. ``path``: where it stands. Raises ClientFault."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as mismatch:
        fault = first_fault(value, shape, path)
        if fault is None:
            raise AssertionError(f"a value fails {shape.__name__}, but no fault can be found in it") from mismatch
        raise fault from mismatch


def secret_seconds(shape: shapes.ExpiresAfterIn | UnsetType, default: int) -> int:
    return default if isinstance(shape, UnsetType) else or_(shape.seconds, default)


def or_(value: _T | UnsetType, default: _T) -> _T:
    return default if isinstance(value, UnsetType) else value


def from_base64(text: str) -> bytes | None:
    """None for a text that is none. The session tells it: the text of that error names its audio format."""
    try:
        return pybase64.b64decode(text, None, True)
    except ValueError:
        return None


def server_vad(shape: shapes.ServerVadIn, default: sc.ServerVad) -> sc.ServerVad:
    """``default``: what a field means that the client left out."""
    interrupts = shape.interrupt_response if isinstance(shape, shapes.InterruptingServerVadIn) else UNSET
    return sc.ServerVad(
        threshold=or_(shape.threshold, default.threshold),
        prefix_padding_ms=or_(shape.prefix_padding_ms, default.prefix_padding_ms),
        silence_duration_ms=or_(shape.silence_duration_ms, default.silence_duration_ms),
        create_response=or_(shape.create_response, default.create_response),
        interrupt_response=or_(interrupts, default.interrupt_response),
        idle_timeout_ms=default.idle_timeout_ms,
    )


def semantic_vad(shape: shapes.SemanticVadIn) -> sc.SemanticVad:
    default = sc.SemanticVad()
    return sc.SemanticVad(
        eagerness=or_(shape.eagerness, default.eagerness),
        create_response=or_(shape.create_response, default.create_response),
        interrupt_response=or_(shape.interrupt_response, default.interrupt_response),
    )


def noise_reduction(
    shape: shapes.NoiseReductionIn | UnsetType | None,
) -> sc.NoiseReduction | UnsetType | None:
    return shape.type if isinstance(shape, shapes.NoiseReductionIn) else shape


def include(names: list[sc.Include] | UnsetType | None) -> tuple[sc.Include, ...] | UnsetType | None:
    return tuple(names) if isinstance(names, list) else names


def tracing(shape: Literal["auto"] | shapes.TracingIn | UnsetType | None) -> sc.Tracing | UnsetType | None:
    return msgspec.to_builtins(shape) if isinstance(shape, shapes.TracingIn) else shape


def transcription(shape: shapes.Transcription | UnsetType | None) -> sc.Transcription | UnsetType | None:
    if shape is UNSET or shape is None:
        return shape
    return sc.Transcription(
        model=or_(shape.model, "whisper-1"),
        language=or_(shape.language, None),
        prompt=or_(shape.prompt, None),
    )


def tools(shape: list[shapes.Tool] | UnsetType) -> tuple[sc.FunctionTool, ...] | UnsetType:
    if isinstance(shape, UnsetType):
        return UNSET
    return tuple(
        sc.FunctionTool(
            name=tool.name, description=or_(tool.description, None), parameters=or_(tool.parameters, None)
        )
        for tool in shape
    )


def tool_choice(shape: shapes.ToolChoiceIn | UnsetType) -> sc.ToolChoice | UnsetType:
    """Three spellings of a named function are in use (protocol section 8, row 15)."""
    if not isinstance(shape, shapes.ToolChoiceObject):
        return shape
    if not isinstance(shape.name, UnsetType):
        return sc.NamedFunction(shape.name)
    assert not isinstance(shape.function, UnsetType)
    return sc.NamedFunction(shape.function if isinstance(shape.function, str) else shape.function.name)


def item_of(shape: Any, part: Callable[[Any], items.Part] | None = None) -> items.Item:
    """An item as a client sent it; its id is empty where the server is to choose one.

    ``part`` makes the parts of a message, where a dialect has some of its own; see :func:`part_of`.
    """
    item_id = shape.id or ""
    match shape:
        case shapes.MessageShape():
            return message_of(item_id, shape.role, shape.content, part)
        case shapes.FunctionCallIn():
            return items.FunctionCallItem(item_id, shape.call_id or "", shape.name, shape.arguments)
        case shapes.FunctionCallOutputIn():
            return items.FunctionCallOutputItem(item_id, shape.call_id, shape.output)
        case _:
            raise AssertionError(f"no item is made of {type(shape).__name__}")


def message_of(
    item_id: str, role: items.Role, content: list[Any], part: Callable[[Any], items.Part] | None = None
) -> items.MessageItem:
    return items.MessageItem(item_id, role, tuple(map(part or part_of, content)))


def part_of(part: Any) -> items.Part:
    """A part that both dialects have."""
    match part:
        case shapes.InputTextIn():
            return items.InputTextPart(part.text)
        case shapes.AssistantTextIn():
            return items.TextPart(part.text)
        case shapes.InputAudioIn():
            transcript = or_(part.transcript, None)
            if isinstance(part.audio, UnsetType):
                return items.InputAudioPart(transcript=transcript)
            data = from_base64(part.audio)
            return items.InputAudioPart(transcript=transcript, audio=data or b"", undecodable=data is None)
        case _:
            raise AssertionError(f"{type(part).__name__} is refused by role, or expanded, before")
