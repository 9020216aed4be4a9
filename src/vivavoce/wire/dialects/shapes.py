"""Client events as both dialects spell them: one typed shape an object (protocol sections 3 and 4).

These are shapes only: what a valid object is, not what it means, which is in ``decoder``. Most of it stands in the
types of the fields. What they cannot say a shape says twice, for the two ways of reading it: ``__post_init__``
refuses the decoded object (the decoder makes a ValidationError of it), ``faults`` names what is wrong in the JSON
value (see :mod:`vivavoce.wire.faults`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from vivavoce.wire import errors
from vivavoce.wire.faults import Found, Phase
from vivavoce.wire.items import Role
from vivavoce.wire.session_config import Eagerness, NoiseReduction

Text: TypeAlias = Annotated[str, Meta(max_length=1_048_576)]
"""Characters of one message, as the service bounds them for its other APIs (protocol section 9.2)."""
EventId: TypeAlias = Annotated[str, Meta(max_length=512)]
ItemId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=32)]
OutputTokens: TypeAlias = Annotated[int, Meta(ge=1, le=4096)] | Literal["inf"]
MetadataKey: TypeAlias = Annotated[str, Meta(max_length=64)]
MetadataValue: TypeAlias = Annotated[str, Meta(max_length=512)]
Metadata: TypeAlias = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)]
APPEND_LIMIT: Final = 15 * 1024 * 1024
"""Bytes of audio in one event (protocol section 4.1)."""
AUDIO_CHARS: Final = APPEND_LIMIT // 3 * 4
"""As many as :data:`APPEND_LIMIT` bytes take in base64."""
ItemStatusIn: TypeAlias = Literal["completed", "incomplete", "in_progress"]

MAX_SILENCE_MS: Final = 1_800_000
"""As long as a session: a longer wait could never end a turn."""
MAX_PADDING_MS: Final = 5_000
MIN_SECRET_S: Final = 10
MAX_SECRET_S: Final = 7_200
MAX_DEPTH: Final = 100
"""Levels of a JSON value that is given back; deeper ones could be read but not be written."""


class Shape(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    tolerated: ClassVar[bool] = False
    """Of objects told apart by their ``type``: accepted, but not offered in the texts of errors."""
    tag_first: ClassVar[bool] = False
    """Without its ``type`` nothing else of the object is looked at."""

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        """What is wrong with a JSON object beyond the types of the single fields."""
        return iter(())


# ------------------------------------------------------------------------------------------------------ sessions


class NoTurnDetectionIn(Shape, tag_field="type", tag="none", kw_only=True):
    """The same as null (protocol section 8, row 10)."""

    tolerated = True


class ServerVadIn(Shape, tag_field="type", tag="server_vad", kw_only=True):
    threshold: Annotated[float, Meta(ge=0.0, le=1.0)] | UnsetType = UNSET
    prefix_padding_ms: Annotated[int, Meta(ge=0, le=MAX_PADDING_MS)] | UnsetType = UNSET
    silence_duration_ms: Annotated[int, Meta(ge=0, le=MAX_SILENCE_MS)] | UnsetType = UNSET
    create_response: bool | UnsetType = UNSET


class InterruptingServerVadIn(ServerVadIn, tag="server_vad", kw_only=True):
    interrupt_response: bool | UnsetType = UNSET


class SemanticVadIn(Shape, tag_field="type", tag="semantic_vad", kw_only=True):
    eagerness: Eagerness | UnsetType = UNSET
    create_response: bool | UnsetType = UNSET
    interrupt_response: bool | UnsetType = UNSET


class ExpiresAfterIn(Shape, kw_only=True):
    """How long a client secret opens sessions (protocol section 1.5)."""

    anchor: Literal["created_at"] | UnsetType = UNSET
    seconds: Annotated[int, Meta(ge=MIN_SECRET_S, le=MAX_SECRET_S)] | UnsetType = UNSET


class Transcription(Shape, kw_only=True):
    model: str | UnsetType = UNSET
    language: str | UnsetType | None = UNSET
    prompt: Text | UnsetType | None = UNSET


class Tool(Shape, kw_only=True):
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


class FunctionName(Shape, kw_only=True):
    name: str


class ToolChoiceObject(Shape, kw_only=True):
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


class TracingIn(Shape, kw_only=True):
    workflow_name: str | UnsetType = UNSET
    group_id: str | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if _deeper_than(self.metadata, MAX_DEPTH):
            raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        return _depth(value.get("metadata"), f"{path}.metadata")


class NoiseReductionIn(Shape, kw_only=True):
    type: NoiseReduction


# --------------------------------------------------------------------------------------------------------- items


class InputTextIn(Shape, tag_field="type", tag="input_text", kw_only=True):
    text: Text


class InputAudioIn(Shape, tag_field="type", tag="input_audio", kw_only=True):
    """Audio, or the words of it, or both."""

    audio: str | UnsetType = UNSET
    transcript: Text | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if isinstance(self.audio, UnsetType):
            if self.transcript is UNSET or self.transcript is None:
                raise ValueError
        elif len(self.audio) > AUDIO_CHARS:
            raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        if "audio" not in value and value.get("transcript") is None:
            yield Phase.MISSING, errors.missing_parameter(f"{path}.audio")
        yield from _size(value.get("audio"), f"{path}.audio")


def _size(audio: object, path: str) -> Iterator[Found]:
    if isinstance(audio, str) and len(audio) > AUDIO_CHARS:
        yield Phase.RANGE, errors.audio_too_large(path, APPEND_LIMIT, len(audio.rstrip("=")) * 3 // 4)


class AssistantTextIn(Shape, tag_field="type", tag="text", kw_only=True):
    """What the assistant said before; dialects differ in its ``type``."""

    text: Text


class ReferencePartIn(Shape, tag_field="type", tag="item_reference", kw_only=True):
    """A reference where a part stands (protocol section 8, row 13)."""

    tolerated = True

    id: str


class ItemShape(Shape, tag_field="type", kw_only=True):
    id: ItemId | UnsetType | None = UNSET
    object: Literal["realtime.item"] | UnsetType = UNSET
    status: ItemStatusIn | UnsetType = UNSET


class MessageShape(ItemShape, tag="message", kw_only=True):
    """A message. A dialect says which parts it has, and who may say which (protocol section 4.4)."""

    parts_of_role: ClassVar[dict[str, tuple[str, ...]]] = {}
    kinds: ClassVar[tuple[str, ...]] = ()
    """All types of parts that there are."""

    role: Role
    content: list[Any]

    def __post_init__(self) -> None:
        allowed = self.parts_of_role[self.role]
        for part in self.content:
            if part.__struct_config__.tag not in allowed:
                raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        return cls.misplaced(value.get("role"), kinds_of(value.get("content")), path)

    @classmethod
    def misplaced(cls, role: object, kinds: Iterable[object], path: str) -> Iterator[Found]:
        """Parts that exist, but not in messages of this role."""
        if not isinstance(role, str) or role not in cls.parts_of_role:
            return
        allowed = cls.parts_of_role[role]
        for i, kind in enumerate(kinds):
            if kind in cls.kinds and kind not in allowed:
                yield Phase.TYPE, errors.unsupported_value(f"{path}.content[{i}].type", kind, allowed)


def kinds_of(content: object) -> list[object]:
    """The types of the parts of a JSON message."""
    if not isinstance(content, list):
        return []
    return [part.get("type") if isinstance(part, dict) else None for part in content]


class FunctionCallIn(ItemShape, tag="function_call", kw_only=True):
    call_id: str | UnsetType = UNSET
    name: str
    arguments: Text


class FunctionCallOutputIn(ItemShape, tag="function_call_output", kw_only=True):
    call_id: str
    output: Text


class ItemReferenceIn(Shape, tag_field="type", tag="item_reference", kw_only=True):
    id: str


# -------------------------------------------------------------------------------------------------------- events


class EventShape(Shape, tag_field="type", kw_only=True):
    event_id: EventId | UnsetType | None = UNSET


class AppendIn(EventShape, tag="input_audio_buffer.append", kw_only=True, gc=False):
    """How long ``audio`` may be is seen to where it becomes an event: fifty come in a second, and a call of Python
    from within the decoder is dear."""

    audio: str

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        return _size(value.get("audio"), "audio")


class CommitIn(EventShape, tag="input_audio_buffer.commit", kw_only=True):
    pass


class ClearIn(EventShape, tag="input_audio_buffer.clear", kw_only=True):
    pass


class ItemDeleteIn(EventShape, tag="conversation.item.delete", kw_only=True):
    item_id: str


class ItemTruncateIn(EventShape, tag="conversation.item.truncate", kw_only=True):
    item_id: str
    content_index: Annotated[int, Meta(ge=0)]
    audio_end_ms: Annotated[int, Meta(ge=0)]


class ItemRetrieveIn(EventShape, tag="conversation.item.retrieve", kw_only=True):
    item_id: str


class ResponseCancelIn(EventShape, tag="response.cancel", kw_only=True):
    pass


class ResponseCancelByIdIn(ResponseCancelIn, tag="response.cancel", kw_only=True):
    response_id: str | UnsetType | None = UNSET
