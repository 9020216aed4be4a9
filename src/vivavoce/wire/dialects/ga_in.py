"""GA dialect, from the wire: shapes -> client events without dialect (protocol sections 3.3, 4 and 8.1).

What it has in common with the other dialect is in ``decoder``.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET, UnsetType

from vivavoce.wire import client_events as ce
from vivavoce.wire import items
from vivavoce.wire import session_config as sc
from vivavoce.wire.client_secrets import SecretRequest
from vivavoce.wire.dialects import ga_shapes as own
from vivavoce.wire.dialects import shapes
from vivavoce.wire.dialects.decoder import (
    EventDecoder,
    include,
    item_of,
    noise_reduction,
    or_,
    part_of,
    secret_seconds,
    semantic_vad,
    server_vad,
    shape_in,
    tools,
    tracing,
    transcription,
)
from vivavoce.wire.images import NoPicture, size_of

SECRET_S: Final = 600
"""How long a client secret opens sessions, unless asked otherwise."""


class GaDecoder(EventDecoder):
    """Reads client events of the GA dialect."""

    def __init__(self) -> None:
        super().__init__(own.EVENTS)

    def _own_event(self, shape: Any, event_id: str | None) -> ce.ClientEvent:
        match shape:
            case own.SessionUpdateIn(session=own.SessionIn() as session):
                return ce.SessionUpdate(session=_session(session), event_id=event_id)
            case own.SessionUpdateIn(session=own.TranscriptionSessionIn() as session):
                patch = _transcription_session(session)
                return ce.SessionUpdate(session=patch, kind="transcription", event_id=event_id)
            case own.ItemCreateIn():
                return ce.ItemCreate(
                    item=_item(shape.item),
                    previous_item_id=or_(shape.previous_item_id, None),
                    event_id=event_id,
                )
            case own.ResponseCreateIn():
                options = _options(shape.response) if shape.response else sc.ResponseOptions()
                return ce.ResponseCreate(options=options, event_id=event_id)
            case _:
                return super()._own_event(shape, event_id)

    def secret_request(self, body: dict[str, Any], kind: sc.SessionKind) -> SecretRequest:
        shape = shape_in(body, own.ClientSecretIn, "")
        seconds = secret_seconds(shape.expires_after, SECRET_S)
        match shape.session:
            case own.TranscriptionSessionIn() as session:
                return SecretRequest(session=_transcription_session(session), kind="transcription", seconds=seconds)
            case own.SessionIn() as session:
                return SecretRequest(session=_session(session), kind="realtime", seconds=seconds)
            case _:
                return SecretRequest(session=sc.SessionPatch(), kind=kind, seconds=seconds)


def _session(shape: own.SessionIn) -> sc.SessionPatch:
    audio = or_(shape.audio, own.AudioIn())
    hears, speaks = or_(audio.input, own.AudioInputIn()), or_(audio.output, own.AudioOutputIn())
    return sc.SessionPatch(
        model=shape.model,
        modalities=_modalities(shape.output_modalities),
        # An empty text is none of the client's own: the service goes back to its default.
        instructions=None if shape.instructions == "" else shape.instructions,
        voice=speaks.voice,
        input_audio_format=_format(hears.format),
        output_audio_format=_format(speaks.format),
        input_audio_transcription=transcription(hears.transcription),
        turn_detection=_turn_detection(hears.turn_detection),
        input_audio_noise_reduction=noise_reduction(hears.noise_reduction),
        tools=tools(shape.tools),
        tool_choice=_tool_choice(shape.tool_choice),
        max_output_tokens=None if shape.max_output_tokens == "inf" else shape.max_output_tokens,
        speed=speaks.speed,
        include=include(shape.include),
        tracing=tracing(shape.tracing),
        truncation=_truncation(shape.truncation),
        parallel_tool_calls=shape.parallel_tool_calls,
        reasoning=_reasoning(shape.reasoning),
        prompt=_prompt(shape.prompt),
    )


def _transcription_session(shape: own.TranscriptionSessionIn) -> sc.SessionPatch:
    hears = or_(or_(shape.audio, own.TranscriptionAudioIn()).input, own.AudioInputIn())
    return sc.SessionPatch(
        input_audio_format=_format(hears.format),
        input_audio_transcription=transcription(hears.transcription),
        turn_detection=_turn_detection(hears.turn_detection),
        input_audio_noise_reduction=noise_reduction(hears.noise_reduction),
        include=include(shape.include),
    )


def _turn_detection(shape: own.TurnDetectionIn | UnsetType | None) -> sc.TurnDetection | UnsetType | None:
    match shape:
        case own.TimingServerVadIn():
            return server_vad(shape, sc.ServerVad(idle_timeout_ms=or_(shape.idle_timeout_ms, None)))
        case shapes.SemanticVadIn():
            return semantic_vad(shape)
        case shapes.NoTurnDetectionIn() | None:
            return None
        case _:
            return UNSET


def _format(shape: own.FormatIn | UnsetType) -> sc.AudioFormatName | UnsetType:
    match shape:
        case own.PcmIn():
            return "pcm16"
        case own.PcmuIn():
            return "g711_ulaw"
        case own.PcmaIn():
            return "g711_alaw"
        case _:
            return UNSET


def _modalities(names: list[sc.Modality] | UnsetType) -> tuple[sc.Modality, ...] | UnsetType:
    if isinstance(names, UnsetType):
        return UNSET
    return ("audio", "text") if names == ["audio"] else ("text",)


def _truncation(shape: own.TruncationIn | UnsetType) -> sc.Truncation | UnsetType:
    if not isinstance(shape, own.RetentionRatioIn):
        return shape
    limits = or_(shape.token_limits, own.TokenLimitsIn())
    return sc.RetentionRatio(
        retention_ratio=shape.retention_ratio, post_instructions=or_(limits.post_instructions, None)
    )


def _reasoning(shape: own.ReasoningIn | UnsetType | None) -> sc.ReasoningEffort | UnsetType | None:
    return or_(shape.effort, None) if isinstance(shape, own.ReasoningIn) else shape


def _prompt(shape: own.PromptIn | UnsetType | None) -> sc.PromptReference | UnsetType | None:
    if not isinstance(shape, own.PromptIn):
        return shape
    if not isinstance(shape.variables, dict):
        return sc.PromptReference(id=shape.id, version=shape.version, variables=shape.variables)
    variables = {name: _variable(value) for name, value in shape.variables.items()}
    return sc.PromptReference(id=shape.id, version=shape.version, variables=variables)


def _variable(shape: own.VariableIn) -> str | items.InputTextPart:
    assert not isinstance(shape, own.ImageVariableIn), "it is refused when it is made"
    return shape if isinstance(shape, str) else items.InputTextPart(shape.text)


def _tool_choice(shape: own.ToolChoiceIn | UnsetType) -> sc.ToolChoice | UnsetType:
    return sc.NamedFunction(shape.name) if isinstance(shape, own.NamedToolIn) else shape


def _options(shape: own.ResponseIn) -> sc.ResponseOptions:
    audio = or_(or_(shape.audio, own.ResponseAudioIn()).output, own.ResponseAudioOutputIn())
    return sc.ResponseOptions(
        modalities=_modalities(shape.output_modalities),
        instructions=UNSET if shape.instructions is None else shape.instructions,
        voice=audio.voice,
        output_audio_format=_format(audio.format),
        tools=tools(shape.tools),
        tool_choice=_tool_choice(shape.tool_choice),
        max_output_tokens=None if shape.max_output_tokens == "inf" else shape.max_output_tokens,
        parallel_tool_calls=shape.parallel_tool_calls,
        reasoning=_reasoning(shape.reasoning),
        prompt=_prompt(shape.prompt),
        conversation=or_(shape.conversation, "auto"),
        metadata=or_(shape.metadata, None),
        input=None if isinstance(shape.input, UnsetType) else tuple(map(_context_item, shape.input)),
    )


def _context_item(shape: own.ContextItemIn) -> items.ContextItem:
    return items.ItemReference(shape.id) if isinstance(shape, shapes.ItemReferenceIn) else _item(shape)


def _item(shape: own.ItemIn) -> items.Item:
    return item_of(shape, _own_part)


def _own_part(shape: Any) -> items.Part:
    if not isinstance(shape, own.InputImageIn):
        return part_of(shape)
    detail: items.Detail = or_(shape.detail, "auto")
    try:
        width, height = size_of(shape.image_url)
    except NoPicture as instead:
        return items.InputImagePart("", detail, problem=str(instead))
    return items.InputImagePart(shape.image_url, detail, width, height)
