"""Client events as the preview dialect spells them: one typed shape an object (protocol sections 3 and 4).

These are shapes only: field names, JSON types, ranges, lengths. What they mean is in ``preview_in``.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vivavoce.wire.items import Role
from vivavoce.wire.session_config import AudioFormatName, Include, Modality, Voice

Text: TypeAlias = Annotated[str, Meta(max_length=1_048_576)]
"""Characters of one message, as the service bounds them for its other APIs (protocol section 9.2)."""
EventId: TypeAlias = Annotated[str, Meta(max_length=512)]
ItemId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=32)]
OutputTokens: TypeAlias = Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"]
Temperature: TypeAlias = Annotated[float, Meta(ge=0.6, le=1.2)]
MetadataKey: TypeAlias = Annotated[str, Meta(max_length=64)]
MetadataValue: TypeAlias = Annotated[str, Meta(max_length=512)]
Metadata: TypeAlias = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)]
ItemStatusIn: TypeAlias = Literal["completed", "incomplete", "in_progress"]

MAX_SILENCE_MS: Final = 1_800_000
"""As long as a session: a longer wait could never end a turn."""
MAX_PADDING_MS: Final = 5_000


class _Shape(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class TurnDetection(_Shape, kw_only=True):
    type: Literal["server_vad", "none"]
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] | UnsetType = UNSET
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=MAX_PADDING_MS)] | UnsetType = UNSET
    silence_duration_ms: Annotated[int, Meta(ge=0, le=MAX_SILENCE_MS)] | UnsetType = UNSET
    create_response: bool | UnsetType = UNSET
    interrupt_response: bool | UnsetType = UNSET


class Transcription(_Shape, kw_only=True):
    model: str | UnsetType = UNSET
    language: str | UnsetType | None = UNSET
    prompt: Text | UnsetType | None = UNSET


class Tool(_Shape, kw_only=True):
    type: Literal["function"]
    name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]
    description: Annotated[str, Meta(max_length=1024)] | UnsetType | None = UNSET
    parameters: dict[str, Any] | UnsetType | None = UNSET


class FunctionName(_Shape, kw_only=True):
    name: str


class ToolChoiceObject(_Shape, kw_only=True):
    type: Literal["function"]
    name: str | UnsetType = UNSET
    function: FunctionName | str | UnsetType = UNSET


ToolChoiceIn: TypeAlias = Literal["auto", "none", "required"] | ToolChoiceObject


class Session(_Shape, kw_only=True):
    model: str | UnsetType = UNSET
    modalities: list[Modality] | UnsetType = UNSET
    instructions: Text | UnsetType = UNSET
    voice: Voice | UnsetType = UNSET
    input_audio_format: AudioFormatName | UnsetType = UNSET
    output_audio_format: AudioFormatName | UnsetType = UNSET
    input_audio_transcription: Transcription | UnsetType | None = UNSET
    turn_detection: TurnDetection | UnsetType | None = UNSET
    tools: list[Tool] | UnsetType = UNSET
    tool_choice: ToolChoiceIn | UnsetType = UNSET
    temperature: Temperature | UnsetType = UNSET
    max_response_output_tokens: OutputTokens | UnsetType = UNSET


class SessionWithExtras(Session, kw_only=True):
    """The fields that came with the api-versions of 2025; null is the only value of those not served."""

    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | UnsetType = UNSET
    input_audio_noise_reduction: UnsetType | None = UNSET
    include: list[Include] | UnsetType | None = UNSET
    tracing: UnsetType | None = UNSET


class TranscriptionSessionIn(_Shape, kw_only=True):
    """A session that makes no responses."""

    modalities: list[Modality] | UnsetType = UNSET
    input_audio_format: AudioFormatName | UnsetType = UNSET
    input_audio_transcription: Transcription | UnsetType | None = UNSET
    turn_detection: TurnDetection | UnsetType | None = UNSET
    input_audio_noise_reduction: UnsetType | None = UNSET
    include: list[Include] | UnsetType | None = UNSET


class InputTextIn(_Shape, tag_field="type", tag="input_text", kw_only=True):
    text: Text


class InputAudioIn(_Shape, tag_field="type", tag="input_audio", kw_only=True):
    audio: str | UnsetType = UNSET
    transcript: Text | UnsetType | None = UNSET


class TextIn(_Shape, tag_field="type", tag="text", kw_only=True):
    text: Text


class ReferencePartIn(_Shape, tag_field="type", tag="item_reference", kw_only=True):
    id: str


PartIn: TypeAlias = InputTextIn | InputAudioIn | TextIn | ReferencePartIn


class _Item(_Shape, tag_field="type", kw_only=True):
    id: ItemId | UnsetType | None = UNSET
    object: Literal["realtime.item"] | UnsetType = UNSET
    status: ItemStatusIn | UnsetType = UNSET


class MessageIn(_Item, tag="message", kw_only=True):
    role: Role
    content: list[PartIn]


class ContextMessageIn(_Item, tag="message", kw_only=True):
    """A message in the ``input`` of a response; without role and content it refers to an item."""

    role: Role | UnsetType = UNSET
    content: list[PartIn] | UnsetType = UNSET


class FunctionCallIn(_Item, tag="function_call", kw_only=True):
    call_id: str | UnsetType = UNSET
    name: str
    arguments: Text


class FunctionCallOutputIn(_Item, tag="function_call_output", kw_only=True):
    call_id: str
    output: Text


class ItemReferenceIn(_Shape, tag_field="type", tag="item_reference", kw_only=True):
    id: str


ItemIn: TypeAlias = MessageIn | FunctionCallIn | FunctionCallOutputIn
ContextItemIn: TypeAlias = ContextMessageIn | FunctionCallIn | FunctionCallOutputIn | ItemReferenceIn


class ResponseIn(_Shape, kw_only=True):
    modalities: list[Modality] | UnsetType = UNSET
    instructions: Text | UnsetType | None = UNSET
    voice: Voice | UnsetType = UNSET
    output_audio_format: AudioFormatName | UnsetType = UNSET
    tools: list[Tool] | UnsetType = UNSET
    tool_choice: ToolChoiceIn | UnsetType = UNSET
    temperature: Temperature | UnsetType = UNSET
    max_output_tokens: OutputTokens | UnsetType = UNSET
    conversation: Literal["auto", "none"] | UnsetType = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    input: list[ContextItemIn] | UnsetType = UNSET
    commit: bool | UnsetType = UNSET
    cancel_previous: bool | UnsetType = UNSET


class _Event(_Shape, tag_field="type", kw_only=True):
    event_id: EventId | UnsetType | None = UNSET


class SessionUpdateIn(_Event, tag="session.update", kw_only=True):
    session: Session


class SessionUpdateWithExtrasIn(_Event, tag="session.update", kw_only=True):
    session: SessionWithExtras


class TranscriptionSessionUpdateIn(_Event, tag="transcription_session.update", kw_only=True):
    session: TranscriptionSessionIn


class AppendIn(_Event, tag="input_audio_buffer.append", kw_only=True):
    audio: str


class CommitIn(_Event, tag="input_audio_buffer.commit", kw_only=True):
    pass


class ClearIn(_Event, tag="input_audio_buffer.clear", kw_only=True):
    pass


class ItemCreateIn(_Event, tag="conversation.item.create", kw_only=True):
    item: ItemIn
    previous_item_id: str | UnsetType | None = UNSET


class ItemDeleteIn(_Event, tag="conversation.item.delete", kw_only=True):
    item_id: str


class ItemTruncateIn(_Event, tag="conversation.item.truncate", kw_only=True):
    item_id: str
    content_index: Annotated[int, Meta(ge=0)]
    audio_end_ms: Annotated[int, Meta(ge=0)]


class ItemRetrieveIn(_Event, tag="conversation.item.retrieve", kw_only=True):
    item_id: str


class ResponseCreateIn(_Event, tag="response.create", kw_only=True):
    response: ResponseIn | UnsetType | None = UNSET


class ResponseCancelIn(_Event, tag="response.cancel", kw_only=True):
    response_id: str | UnsetType | None = UNSET


CommonEventIn: TypeAlias = (
    AppendIn
    | CommitIn
    | ClearIn
    | ItemCreateIn
    | ItemDeleteIn
    | ItemTruncateIn
    | ResponseCreateIn
    | ResponseCancelIn
)
EventIn: TypeAlias = SessionUpdateIn | CommonEventIn
LaterEventIn: TypeAlias = SessionUpdateWithExtrasIn | TranscriptionSessionUpdateIn | ItemRetrieveIn | CommonEventIn

EVENT_SHAPES: Final[dict[str, type[_Event]]] = {
    "session.update": SessionUpdateIn,
    "input_audio_buffer.append": AppendIn,
    "input_audio_buffer.commit": CommitIn,
    "input_audio_buffer.clear": ClearIn,
    "conversation.item.create": ItemCreateIn,
    "conversation.item.delete": ItemDeleteIn,
    "conversation.item.truncate": ItemTruncateIn,
    "response.create": ResponseCreateIn,
    "response.cancel": ResponseCancelIn,
}
"""The nine client events in the order in which the service lists them."""

LATER_EVENT_SHAPES: Final[dict[str, type[_Event]]] = {
    "session.update": SessionUpdateWithExtrasIn,
    "transcription_session.update": TranscriptionSessionUpdateIn,
    "input_audio_buffer.append": AppendIn,
    "input_audio_buffer.commit": CommitIn,
    "input_audio_buffer.clear": ClearIn,
    "conversation.item.create": ItemCreateIn,
    "conversation.item.delete": ItemDeleteIn,
    "conversation.item.truncate": ItemTruncateIn,
    "conversation.item.retrieve": ItemRetrieveIn,
    "response.create": ResponseCreateIn,
    "response.cancel": ResponseCancelIn,
}
"""Those of the later preview."""
