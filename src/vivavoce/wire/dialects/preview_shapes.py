"""Client events as the preview dialect spells them: one typed shape an object (protocol sections 3 and 4).

What both dialects spell alike, and how shapes work, is in ``shapes``; what these mean is in ``preview_in``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Generic, Literal, TypeAlias, TypeVar

from msgspec import UNSET, Meta, UnsetType

from vivavoce.wire import errors
from vivavoce.wire.dialects.profiles import Profile
from vivavoce.wire.dialects.shapes import (
    AppendIn,
    AssistantTextIn,
    ClearIn,
    CommitIn,
    EventShape,
    ExpiresAfterIn,
    FunctionCallIn,
    FunctionCallOutputIn,
    InputAudioIn,
    InputTextIn,
    InterruptingServerVadIn,
    ItemDeleteIn,
    ItemReferenceIn,
    ItemRetrieveIn,
    ItemShape,
    ItemTruncateIn,
    MessageShape,
    Metadata,
    NoiseReductionIn,
    NoTurnDetectionIn,
    OutputTokens,
    ReferencePartIn,
    ResponseCancelByIdIn,
    ResponseCancelIn,
    SemanticVadIn,
    ServerVadIn,
    Shape,
    Text,
    Tool,
    ToolChoiceIn,
    TracingIn,
    Transcription,
    kinds_of,
)
from vivavoce.wire.faults import Found, Phase
from vivavoce.wire.items import Role
from vivavoce.wire.session_config import AudioFormatName, Include, Modality

Voice: TypeAlias = Literal["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse"]
Temperature: TypeAlias = Annotated[float, Meta(ge=0.6, le=1.2)]
MODALITIES: Final = (["text"], ["audio", "text"])


# ------------------------------------------------------------------------------------------------------ sessions


def _combine(names: list[Any]) -> bool:
    """Modalities are compared as a set (protocol section 8, row 18)."""
    return names in MODALITIES or names[::-1] in MODALITIES


class _Speaking(Shape, kw_only=True):
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


TurnDetectionOf2025: TypeAlias = InterruptingServerVadIn | SemanticVadIn | NoTurnDetectionIn


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


class SecretConfigIn(Shape, kw_only=True):
    expires_after: ExpiresAfterIn | UnsetType = UNSET


class SessionOf2025WithSecret(SessionOf2025, kw_only=True):
    """The body that a client secret is asked for with; no event."""

    client_secret: SecretConfigIn | UnsetType = UNSET


class TranscriptionSessionWithSecret(TranscriptionSessionIn, kw_only=True):
    """The same, of a session that makes no responses."""

    client_secret: SecretConfigIn | UnsetType = UNSET


# --------------------------------------------------------------------------------------------------------- items


PartIn: TypeAlias = InputTextIn | InputAudioIn | AssistantTextIn | ReferencePartIn


_PARTS_OF_ROLE: Final = {"system": ("input_text",), "user": ("input_text", "input_audio"), "assistant": ("text",)}
_PARTS: Final = ("input_text", "input_audio", "text", "item_reference")


class MessageIn(MessageShape, tag="message", kw_only=True):
    parts_of_role = _PARTS_OF_ROLE
    kinds = _PARTS

    content: list[PartIn]


class ContextMessageIn(ItemShape, tag="message", kw_only=True):
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
        kinds = kinds_of(value["content"]) if "content" in value else UNSET
        return _in_context(value.get("role", UNSET), kinds, bool(value.get("id")), path)


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
        yield from MessageIn.misplaced(role, kinds, path)


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


SessionIn = TypeVar("SessionIn")


class SessionUpdateIn(EventShape, Generic[SessionIn], tag="session.update", kw_only=True):
    session: SessionIn


class TranscriptionSessionUpdateIn(EventShape, tag="transcription_session.update", kw_only=True):
    session: TranscriptionSessionIn


class ItemCreateIn(EventShape, tag="conversation.item.create", kw_only=True):
    item: ItemIn
    previous_item_id: str | UnsetType | None = UNSET


class ResponseCreateIn(EventShape, tag="response.create", kw_only=True):
    response: ResponseIn | UnsetType | None = UNSET


def event_shapes(profile: Profile) -> dict[str, Any]:
    """The client events that a profile knows, by type, in the order in which the service lists them."""
    session: Any = Session[ServerVadIn | NoTurnDetectionIn]
    if profile.accepts_interrupt_response:
        session = Session[InterruptingServerVadIn | NoTurnDetectionIn]
    if profile.of_2025:
        session = SessionOf2025
    return {
        "session.update": SessionUpdateIn[session],
        **({"transcription_session.update": TranscriptionSessionUpdateIn} if profile.of_2025 else {}),
        "input_audio_buffer.append": AppendIn,
        "input_audio_buffer.commit": CommitIn,
        "input_audio_buffer.clear": ClearIn,
        "conversation.item.create": ItemCreateIn,
        "conversation.item.delete": ItemDeleteIn,
        "conversation.item.truncate": ItemTruncateIn,
        **({"conversation.item.retrieve": ItemRetrieveIn} if profile.of_2025 else {}),
        "response.create": ResponseCreateIn,
        "response.cancel": ResponseCancelByIdIn if profile.cancels_by_id else ResponseCancelIn,
    }
