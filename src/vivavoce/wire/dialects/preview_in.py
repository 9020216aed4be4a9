"""Preview dialect, from the wire: shapes -> client events without dialect (protocol sections 3.2, 4 and 8).

A shape that could be made is a valid event: what follows gives it its meaning and refuses nothing.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar, Union

import msgspec
import pybase64
from msgspec import UNSET, UnsetType

from vivavoce.wire import client_events as ce
from vivavoce.wire import errors, items
from vivavoce.wire import session_config as sc
from vivavoce.wire.dialects import preview_shapes as shapes
from vivavoce.wire.dialects.preview_lenient import forgive
from vivavoce.wire.dialects.profiles import Profile
from vivavoce.wire.errors import ClientFault
from vivavoce.wire.faults import describe, first_fault

_T = TypeVar("_T")


class PreviewDecoder:
    """Reads client events of the preview dialect. Stateless; one per profile and strictness serves all sessions."""

    def __init__(self, profile: Profile, *, strict: bool = True) -> None:
        self._profile = profile
        self._strict = strict
        self._shapes = shapes.event_shapes(profile)
        self._event_type: Any = Union[tuple(self._shapes.values())]  # noqa: UP007  # known at run time only
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(self._event_type)

    def decode(self, frame: str | bytes) -> ce.ClientEvent:
        """One text frame -> its event. Raises ClientFault, or msgspec.DecodeError if it is not JSON."""
        try:
            return self._event(self._decoder.decode(frame))
        except msgspec.ValidationError:
            return self._second_reading(msgspec.json.decode(frame))

    def _second_reading(self, value: object) -> ce.ClientEvent:
        """The event in a JSON value that did not fit as it was read. Raises ClientFault.

        Of a key that stands twice in an object the last value counts, but the decoder checks each of them. And a
        lenient decoder may understand it.
        """
        forgiven = () if self._strict else forgive(value)
        try:
            event = self._event(msgspec.convert(value, self._event_type))
        except msgspec.ValidationError as mismatch:
            raise self.fault_of(value) from mismatch
        if isinstance(event, ce.SessionUpdate | ce.ResponseCreate):
            return msgspec.structs.replace(event, forgiven=forgiven)
        return event

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

    def _event(self, shape: Any) -> ce.ClientEvent:
        event_id = _or(shape.event_id, None)
        match shape:
            case shapes.AppendIn():
                return self._append(shape.audio, event_id)
            case shapes.CommitIn():
                return ce.InputAudioCommit(event_id=event_id)
            case shapes.ClearIn():
                return ce.InputAudioClear(event_id=event_id)
            case shapes.SessionUpdateIn():
                return ce.SessionUpdate(session=self._session(shape.session), event_id=event_id)
            case shapes.TranscriptionSessionUpdateIn():
                patch = self._transcription_session(shape.session)
                return ce.SessionUpdate(session=patch, kind="transcription", event_id=event_id)
            case shapes.ItemCreateIn():
                return ce.ItemCreate(
                    item=_item(shape.item),
                    previous_item_id=_or(shape.previous_item_id, None),
                    event_id=event_id,
                )
            case shapes.ItemDeleteIn():
                return ce.ItemDelete(item_id=shape.item_id, event_id=event_id)
            case shapes.ItemTruncateIn():
                return ce.ItemTruncate(
                    item_id=shape.item_id,
                    content_index=shape.content_index,
                    audio_end_ms=shape.audio_end_ms,
                    event_id=event_id,
                )
            case shapes.ItemRetrieveIn():
                return ce.ItemRetrieve(item_id=shape.item_id, event_id=event_id)
            case shapes.ResponseCreateIn():
                options = _options(shape.response) if shape.response else sc.ResponseOptions()
                return ce.ResponseCreate(options=options, event_id=event_id)
            case shapes.ResponseCancelByIdIn():
                return ce.ResponseCancel(response_id=_or(shape.response_id, None), event_id=event_id)
            case shapes.ResponseCancelIn():
                return ce.ResponseCancel(event_id=event_id)
            case _:
                raise AssertionError(f"no client event is made of {type(shape).__name__}")

    def _append(self, audio: str, event_id: str | None) -> ce.InputAudioAppend:
        data = _base64(audio)
        if data is None:
            return ce.InputAudioAppend(audio=b"", undecodable=True, event_id=event_id)
        return ce.InputAudioAppend(audio=data, event_id=event_id)

    def _session(self, shape: shapes.Session[Any]) -> sc.SessionPatch:
        max_tokens = shape.max_response_output_tokens
        of_2025 = shape if isinstance(shape, shapes.SessionOf2025) else None
        return sc.SessionPatch(
            model=shape.model,
            modalities=_modalities(shape.modalities),
            instructions=shape.instructions,
            voice=shape.voice,
            input_audio_format=shape.input_audio_format,
            output_audio_format=shape.output_audio_format,
            input_audio_transcription=_transcription(shape.input_audio_transcription),
            turn_detection=self._turn_detection(shape.turn_detection),
            tools=_tools(shape.tools),
            tool_choice=_tool_choice(shape.tool_choice),
            temperature=shape.temperature,
            max_output_tokens=None if max_tokens == "inf" else max_tokens,
            speed=of_2025.speed if of_2025 else UNSET,
            input_audio_noise_reduction=_noise_reduction(of_2025.input_audio_noise_reduction) if of_2025 else UNSET,
            include=_include(of_2025.include) if of_2025 else UNSET,
            tracing=_tracing(of_2025.tracing) if of_2025 else UNSET,
        )

    def _transcription_session(self, shape: shapes.TranscriptionSessionIn) -> sc.SessionPatch:
        return sc.SessionPatch(
            modalities=_modalities(shape.modalities),
            input_audio_format=shape.input_audio_format,
            input_audio_transcription=_transcription(shape.input_audio_transcription),
            turn_detection=self._turn_detection(shape.turn_detection),
            input_audio_noise_reduction=_noise_reduction(shape.input_audio_noise_reduction),
            include=_include(shape.include),
        )

    def _turn_detection(
        self, shape: shapes.ServerVadIn | shapes.SemanticVadIn | shapes.NoTurnDetectionIn | UnsetType | None
    ) -> sc.TurnDetection | UnsetType | None:
        match shape:
            case shapes.ServerVadIn():
                return self._server_vad(shape)
            case shapes.SemanticVadIn():
                return _semantic_vad(shape)
            case shapes.NoTurnDetectionIn() | None:
                return None
            case _:
                return UNSET

    def _server_vad(self, shape: shapes.ServerVadIn) -> sc.ServerVad:
        default = sc.ServerVad(silence_duration_ms=self._profile.silence_duration_ms)
        interrupts = shape.interrupt_response if isinstance(shape, shapes.InterruptingServerVadIn) else UNSET
        return sc.ServerVad(
            threshold=_or(shape.threshold, default.threshold),
            prefix_padding_ms=_or(shape.prefix_padding_ms, default.prefix_padding_ms),
            silence_duration_ms=_or(shape.silence_duration_ms, default.silence_duration_ms),
            create_response=_or(shape.create_response, default.create_response),
            interrupt_response=_or(interrupts, default.interrupt_response),
        )


def _semantic_vad(shape: shapes.SemanticVadIn) -> sc.SemanticVad:
    default = sc.SemanticVad()
    return sc.SemanticVad(
        eagerness=_or(shape.eagerness, default.eagerness),
        create_response=_or(shape.create_response, default.create_response),
        interrupt_response=_or(shape.interrupt_response, default.interrupt_response),
    )


def _or(value: _T | UnsetType, default: _T) -> _T:
    return default if isinstance(value, UnsetType) else value


def _base64(text: str) -> bytes | None:
    """None for a text that is none. The session tells it: the text of that error names its audio format."""
    try:
        return pybase64.b64decode(text, validate=True)
    except ValueError:
        return None


def _modalities(names: list[sc.Modality] | UnsetType) -> tuple[sc.Modality, ...] | UnsetType:
    return UNSET if isinstance(names, UnsetType) else tuple(names)


def _noise_reduction(
    shape: shapes.NoiseReductionIn | UnsetType | None,
) -> sc.NoiseReduction | UnsetType | None:
    return shape.type if isinstance(shape, shapes.NoiseReductionIn) else shape


def _include(names: list[sc.Include] | UnsetType | None) -> tuple[sc.Include, ...] | UnsetType | None:
    return tuple(names) if isinstance(names, list) else names


def _tracing(shape: Literal["auto"] | shapes.TracingIn | UnsetType | None) -> sc.Tracing | UnsetType | None:
    return msgspec.to_builtins(shape) if isinstance(shape, shapes.TracingIn) else shape


def _transcription(shape: shapes.Transcription | UnsetType | None) -> sc.Transcription | UnsetType | None:
    if shape is UNSET or shape is None:
        return shape
    return sc.Transcription(
        model=_or(shape.model, "whisper-1"),
        language=_or(shape.language, None),
        prompt=_or(shape.prompt, None),
    )


def _tools(shape: list[shapes.Tool] | UnsetType) -> tuple[sc.FunctionTool, ...] | UnsetType:
    if isinstance(shape, UnsetType):
        return UNSET
    return tuple(
        sc.FunctionTool(
            name=tool.name, description=_or(tool.description, None), parameters=_or(tool.parameters, None)
        )
        for tool in shape
    )


def _tool_choice(shape: shapes.ToolChoiceIn | UnsetType) -> sc.ToolChoice | UnsetType:
    """Three spellings of a named function are in use (protocol section 8, row 15)."""
    if not isinstance(shape, shapes.ToolChoiceObject):
        return shape
    if not isinstance(shape.name, UnsetType):
        return sc.NamedFunction(shape.name)
    assert not isinstance(shape.function, UnsetType)
    return sc.NamedFunction(shape.function if isinstance(shape.function, str) else shape.function.name)


def _options(shape: shapes.ResponseIn) -> sc.ResponseOptions:
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
        tools=_tools(shape.tools),
        tool_choice=_tool_choice(shape.tool_choice),
        temperature=shape.temperature,
        max_output_tokens=None if max_tokens == "inf" else max_tokens,
        conversation="none" if apart else "auto",
        metadata=_or(shape.metadata, None),
        input=None if context is None else tuple(item for item, _ in context),
        input_paths=tuple(path for _, path in context or ()),
        append=tuple(_item(item) for item in _or(shape.append_input_items, [])),
        cancel_previous=shape.cancel_previous is True,
    )


def _input(shape: list[shapes.ContextItemIn], name: str) -> list[tuple[items.ContextItem, str]]:
    """The items with the places in the client's event at which they stand."""
    context: list[tuple[items.ContextItem, str]] = []
    for i, item in enumerate(shape):
        path = f"{name}[{i}]"
        if isinstance(item, shapes.ItemReferenceIn):
            context.append((items.ItemReference(item.id), path))
        elif isinstance(item, shapes.ContextMessageIn) and (references := _references(item, path)):
            context.extend(references)
        else:
            context.append((_item(item), path))
    return context


def _references(message: shapes.ContextMessageIn, path: str) -> list[tuple[items.ContextItem, str]]:
    """Spellings of a reference other than ``item_reference`` (protocol section 8, rows 13 and 14)."""
    if isinstance(message.content, UnsetType):
        return [(items.ItemReference(message.id or ""), path)]
    return [
        (items.ItemReference(part.id), f"{path}.content[{i}]")
        for i, part in enumerate(message.content)
        if isinstance(part, shapes.ReferencePartIn)
    ]


def _item(shape: shapes.ItemIn | shapes.ContextMessageIn) -> items.Item:
    item_id = shape.id or ""
    match shape:
        case shapes.MessageIn() | shapes.ContextMessageIn():
            assert not isinstance(shape.role, UnsetType)
            assert not isinstance(shape.content, UnsetType)
            return items.MessageItem(item_id, shape.role, tuple(_part(part) for part in shape.content))
        case shapes.FunctionCallIn():
            return items.FunctionCallItem(item_id, shape.call_id or "", shape.name, shape.arguments)
        case shapes.FunctionCallOutputIn():
            return items.FunctionCallOutputItem(item_id, shape.call_id, shape.output)


def _part(part: shapes.PartIn) -> items.Part:
    match part:
        case shapes.InputTextIn():
            return items.InputTextPart(part.text)
        case shapes.TextIn():
            return items.TextPart(part.text)
        case shapes.InputAudioIn():
            transcript = _or(part.transcript, None)
            if isinstance(part.audio, UnsetType):
                return items.InputAudioPart(transcript=transcript)
            data = _base64(part.audio)
            return items.InputAudioPart(transcript=transcript, audio=data or b"", undecodable=data is None)
        case shapes.ReferencePartIn():
            raise AssertionError("reference parts are refused by role, or expanded, before")
