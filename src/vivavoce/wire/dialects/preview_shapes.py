"""Client events as the preview dialect spells them: one typed shape an object (protocol sections 3 and 4).

These are shapes only: what a valid object is, not what it means, which is in ``preview_in``. Most of it stands in
the types of the fields. What they cannot say a shape says twice, for the two ways of reading it: ``__post_init__``
refuses the decoded object (the decoder makes a ValidationError of it), ``faults`` names what is wrong in the JSON
value (see :mod:`vivavoce.wire.faults`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vivavoce.wire import errors
from vivavoce.wire.dialects.profiles import Profile
from vivavoce.wire.faults import Found, Phase
from vivavoce.wire.items import Role
from vivavoce.wire.session_config import AudioFormatName, Eagerness, Include, Modality, NoiseReduction, Voice

Text: TypeAlias = Annotated[str, Meta(max_length=1_048_576)]
"""Characters of one message, as the service bounds them for its other APIs (protocol section 9.2)."""
EventId: TypeAlias = Annotated[str, Meta(max_length=512)]
ItemId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=32)]
OutputTokens: TypeAlias = Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"]
Temperature: TypeAlias = Annotated[float, Meta(ge=0.6, le=1.2)]
MetadataKey: TypeAlias = Annotated[str, Meta(max_length=64)]
MetadataValue: TypeAlias = Annotated[str, Meta(max_length=512)]
Metadata: TypeAlias = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)]
APPEND_LIMIT: Final = 15 * 1024 * 1024
"""Bytes of audio in one event (protocol section 4.1)."""
_AUDIO_CHARS: Final = APPEND_LIMIT // 3 * 4
"""As many as :data:`APPEND_LIMIT` bytes take in base64."""
ItemStatusIn: TypeAlias = Literal["completed", "incomplete", "in_progress"]

MAX_SILENCE_MS: Final = 1_800_000
"""As long as a session: a longer wait could never end a turn."""
MAX_PADDING_MS: Final = 5_000
MAX_DEPTH: Final = 100
"""Levels of a JSON value that is given back; deeper ones could be read but not be written."""
MODALITIES: Final = (["text"], ["audio", "text"])
_PARTS_OF_ROLE: Final = {"system": ("input_text",), "user": ("input_text", "input_audio"), "assistant": ("text",)}
_PARTS: Final = ("input_text", "input_audio", "text", "item_reference")


class _Shape(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    tolerated: ClassVar[bool] = False
    """Of objects told apart by their ``type``: accepted, but not offered in the texts of errors."""

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        """What is wrong with a JSON object beyond the types of the single fields."""
        return iter(())


# ------------------------------------------------------------------------------------------------------ sessions


class NoTurnDetectionIn(_Shape, tag_field="type", tag="none", kw_only=True):
    """The same as null (protocol section 8, row 10)."""

    tolerated = True


class ServerVadIn(_Shape, tag_field="type", tag="server_vad", kw_only=True):
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] | UnsetType = UNSET
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=MAX_PADDING_MS)] | UnsetType = UNSET
    silence_duration_ms: Annotated[int, Meta(ge=0, le=MAX_SILENCE_MS)] | UnsetType = UNSET
    create_response: bool | UnsetType = UNSET


class InterruptingServerVadIn(ServerVadIn, tag="server_vad", kw_only=True):
    interrupt_response: bool | UnsetType = UNSET


class SemanticVadIn(_Shape, tag_field="type", tag="semantic_vad", kw_only=True):
    eagerness: Eagerness | UnsetType = UNSET
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

    def __post_init__(self) -> None:
        if _deeper_than(self.parameters, MAX_DEPTH):
            raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        return _depth(value.get("parameters"), f"{path}.parameters")


def _depth(value: object, path: str) -> Iterator[Found]:
    if _deeper_than(value, MAX_DEPTH):
        yield Phase.RANGE, errors.nested_too_deeply(path, MAX_DEPTH)


def _deeper_than(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(one, depth - 1) for one in inner)


class FunctionName(_Shape, kw_only=True):
    name: str


class ToolChoiceObject(_Shape, kw_only=True):
    type: Literal["function"]
    name: str | UnsetType = UNSET
    function: FunctionName | str | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.name is UNSET and self.function is UNSET:
            raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        if "name" not in value and "function" not in value:
            yield Phase.MISSING, errors.missing_parameter(f"{path}.name")


ToolChoiceIn: TypeAlias = Literal["auto", "none", "required"] | ToolChoiceObject


def _combine(names: list[Any]) -> bool:
    """Modalities are compared as a set (protocol section 8, row 18)."""
    return names in MODALITIES or names[::-1] in MODALITIES


class _Speaking(_Shape, kw_only=True):
    """Settings with ``modalities``."""

    modalities: list[Modality] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if not isinstance(self.modalities, UnsetType) and not _combine(self.modalities):
            raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        names = value.get("modalities")
        if isinstance(names, list) and not _combine(names):
            yield Phase.RANGE, errors.invalid_modalities(f"{path}.modalities", names, MODALITIES)


VadIn = TypeVar("VadIn")


class Session(_Speaking, Generic[VadIn], kw_only=True):
    """The settings that every edition of the service has. ``VadIn``: the kinds of turn detection that it knows."""

    model: str | UnsetType = UNSET
    instructions: Text | UnsetType = UNSET
    voice: Voice | UnsetType = UNSET
    input_audio_format: AudioFormatName | UnsetType = UNSET
    output_audio_format: AudioFormatName | UnsetType = UNSET
    input_audio_transcription: Transcription | UnsetType | None = UNSET
    turn_detection: VadIn | UnsetType | None = UNSET
    tools: list[Tool] | UnsetType = UNSET
    tool_choice: ToolChoiceIn | UnsetType = UNSET
    temperature: Temperature | UnsetType = UNSET
    max_response_output_tokens: OutputTokens | UnsetType = UNSET


class TracingIn(_Shape, kw_only=True):
    workflow_name: str | UnsetType = UNSET
    group_id: str | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if _deeper_than(self.metadata, MAX_DEPTH):
            raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        return _depth(value.get("metadata"), f"{path}.metadata")


TurnDetectionOf2025: TypeAlias = InterruptingServerVadIn | SemanticVadIn | NoTurnDetectionIn


class NoiseReductionIn(_Shape, kw_only=True):
    type: NoiseReduction


class SessionOf2025(Session[TurnDetectionOf2025], kw_only=True):
    """With the settings that came with the api-versions of 2025."""

    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | UnsetType = UNSET
    input_audio_noise_reduction: NoiseReductionIn | UnsetType | None = UNSET
    include: list[Include] | UnsetType | None = UNSET
    tracing: Literal["auto"] | TracingIn | UnsetType | None = UNSET


class TranscriptionSessionIn(_Speaking, kw_only=True):
    """A session that makes no responses."""

    input_audio_format: AudioFormatName | UnsetType = UNSET
    input_audio_transcription: Transcription | UnsetType | None = UNSET
    turn_detection: TurnDetectionOf2025 | UnsetType | None = UNSET
    input_audio_noise_reduction: NoiseReductionIn | UnsetType | None = UNSET
    include: list[Include] | UnsetType | None = UNSET


# --------------------------------------------------------------------------------------------------------- items


class InputTextIn(_Shape, tag_field="type", tag="input_text", kw_only=True):
    text: Text


class InputAudioIn(_Shape, tag_field="type", tag="input_audio", kw_only=True):
    """Audio, or the words of it, or both."""

    audio: str | UnsetType = UNSET
    transcript: Text | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if isinstance(self.audio, UnsetType):
            if self.transcript is UNSET or self.transcript is None:
                raise ValueError
        elif len(self.audio) > _AUDIO_CHARS:
            raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        if "audio" not in value and value.get("transcript") is None:
            yield Phase.MISSING, errors.missing_parameter(f"{path}.audio")
        yield from _size(value.get("audio"), f"{path}.audio")


def _size(audio: object, path: str) -> Iterator[Found]:
    if isinstance(audio, str) and len(audio) > _AUDIO_CHARS:
        yield Phase.RANGE, errors.audio_too_large(path, APPEND_LIMIT, len(audio.rstrip("=")) * 3 // 4)


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

    def __post_init__(self) -> None:
        allowed = _PARTS_OF_ROLE[self.role]
        for part in self.content:
            if part.__struct_config__.tag not in allowed:
                raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        return _misplaced(value.get("role"), _kinds(value.get("content")), path)


class ContextMessageIn(_Item, tag="message", kw_only=True):
    """A message in the ``input`` of a response, or a reference to an item (protocol section 8, rows 13 and 14):
    an id without role and content, or a content that is references alone.
    """

    role: Role | UnsetType = UNSET
    content: list[PartIn] | UnsetType = UNSET

    def __post_init__(self) -> None:
        kinds: list[object] | UnsetType = UNSET
        if not isinstance(self.content, UnsetType):
            kinds = [part.__struct_config__.tag for part in self.content]
        if any(True for _ in _in_context(self.role, kinds, bool(self.id), "")):
            raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        kinds = _kinds(value["content"]) if "content" in value else UNSET
        return _in_context(value.get("role", UNSET), kinds, bool(value.get("id")), path)


def _kinds(content: object) -> list[object]:
    if not isinstance(content, list):
        return []
    return [part.get("type") if isinstance(part, dict) else None for part in content]


def _in_context(role: object, kinds: list[object] | UnsetType, has_id: bool, path: str) -> Iterator[Found]:
    """``role``, ``kinds`` of the parts: UNSET where the message has none."""
    by_id = has_id and role is UNSET and kinds is UNSET
    by_parts = isinstance(kinds, list) and bool(kinds) and all(kind == "item_reference" for kind in kinds)
    if by_id or by_parts:
        return
    if role is UNSET:
        yield Phase.MISSING, errors.missing_parameter(f"{path}.role")
    if isinstance(kinds, UnsetType):
        yield Phase.MISSING, errors.missing_parameter(f"{path}.content")
    else:
        yield from _misplaced(role, kinds, path)


def _misplaced(role: object, kinds: Iterable[object], path: str) -> Iterator[Found]:
    """Parts that exist, but not in messages of this role (protocol section 4.4)."""
    if not isinstance(role, str) or role not in _PARTS_OF_ROLE:
        return
    allowed = _PARTS_OF_ROLE[role]
    for i, kind in enumerate(kinds):
        if kind in _PARTS and kind not in allowed:
            yield Phase.TYPE, errors.unsupported_value(f"{path}.content[{i}].type", kind, allowed)


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


# ----------------------------------------------------------------------------------------------------- responses


class ResponseIn(_Speaking, kw_only=True):
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
    input_items: list[ContextItemIn] | UnsetType = UNSET
    append_input_items: list[ItemIn] | UnsetType = UNSET
    commit: bool | UnsetType = UNSET
    cancel_previous: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        super().__post_init__()
        contexts = (self.input, self.input_items, self.append_input_items)
        if sum(context is not UNSET for context in contexts) > 1:
            raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        yield from super().faults(value, path)
        contexts = [name for name in ("input", "input_items", "append_input_items") if name in value]
        if len(contexts) > 1:
            one, other, *_ = contexts
            yield Phase.RANGE, errors.not_together(f"{path}.{one}", f"{path}.{other}")


# -------------------------------------------------------------------------------------------------------- events


class _Event(_Shape, tag_field="type", kw_only=True):
    event_id: EventId | UnsetType | None = UNSET


SessionIn = TypeVar("SessionIn")


class SessionUpdateIn(_Event, Generic[SessionIn], tag="session.update", kw_only=True):
    session: SessionIn


class TranscriptionSessionUpdateIn(_Event, tag="transcription_session.update", kw_only=True):
    session: TranscriptionSessionIn


class AppendIn(_Event, tag="input_audio_buffer.append", kw_only=True):
    audio: str

    def __post_init__(self) -> None:
        if len(self.audio) > _AUDIO_CHARS:
            raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        return _size(value.get("audio"), "audio")


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
    pass


class ResponseCancelByIdIn(ResponseCancelIn, tag="response.cancel", kw_only=True):
    response_id: str | UnsetType | None = UNSET


def event_shapes(profile: Profile) -> dict[str, Any]:
    """The client events that a profile knows, by type, in the order in which the service lists them."""
    session: Any = Session[ServerVadIn | NoTurnDetectionIn]
    if profile.accepts_interrupt_response:
        session = Session[InterruptingServerVadIn | NoTurnDetectionIn]
    if profile.has_session_extras:
        session = SessionOf2025
    return {
        "session.update": SessionUpdateIn[session],
        **({"transcription_session.update": TranscriptionSessionUpdateIn} if profile.has_later_events else {}),
        "input_audio_buffer.append": AppendIn,
        "input_audio_buffer.commit": CommitIn,
        "input_audio_buffer.clear": ClearIn,
        "conversation.item.create": ItemCreateIn,
        "conversation.item.delete": ItemDeleteIn,
        "conversation.item.truncate": ItemTruncateIn,
        **({"conversation.item.retrieve": ItemRetrieveIn} if profile.has_later_events else {}),
        "response.create": ResponseCreateIn,
        "response.cancel": ResponseCancelByIdIn if profile.cancels_by_id else ResponseCancelIn,
    }
