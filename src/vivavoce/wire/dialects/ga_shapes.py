"""Client events as the GA dialect spells them: one typed shape an object (protocol sections 3.3, 4 and 8.1).

What both dialects spell alike, and how shapes work, is in ``shapes``; what these mean is in ``ga_in``. What this
server cannot do has no shape, so that it is refused and not ignored: MCP tools, custom voices, variables of prompts
that are pictures or files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType

from vivavoce.wire import errors
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
    ItemTruncateIn,
    MessageShape,
    Metadata,
    NoiseReductionIn,
    NoTurnDetectionIn,
    OutputTokens,
    ResponseCancelByIdIn,
    SemanticVadIn,
    Shape,
    Text,
    Tool,
    TracingIn,
    Transcription,
)
from vivavoce.wire.faults import Found, Phase
from vivavoce.wire.items import Detail
from vivavoce.wire.session_config import Include, Modality, ReasoningEffort, Voice

RATE: Final = 24_000
"""Hz of ``audio/pcm``, the only one."""
MODALITIES: Final = (["text"], ["audio"])
"""Audio comes with its transcript, and needs no ``text`` beside it."""


# ------------------------------------------------------------------------------------------------------ settings


class PcmIn(Shape, tag_field="type", tag="audio/pcm", kw_only=True):
    rate: Annotated[int, Meta(ge=RATE, le=RATE)] | UnsetType = UNSET


class PcmuIn(Shape, tag_field="type", tag="audio/pcmu", kw_only=True):
    pass


class PcmaIn(Shape, tag_field="type", tag="audio/pcma", kw_only=True):
    pass


FormatIn: TypeAlias = PcmIn | PcmuIn | PcmaIn


class TimingServerVadIn(InterruptingServerVadIn, tag="server_vad", kw_only=True):
    idle_timeout_ms: Annotated[int, Meta(ge=5_000, le=30_000)] | UnsetType | None = UNSET


TurnDetectionIn: TypeAlias = TimingServerVadIn | SemanticVadIn | NoTurnDetectionIn


class NamedToolIn(Shape, kw_only=True):
    type: Literal["function"]
    name: str


ToolChoiceIn: TypeAlias = Literal["auto", "none", "required"] | NamedToolIn


class SpeakingShape(Shape, kw_only=True):
    """Settings with ``output_modalities``."""

    output_modalities: list[Modality] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if not isinstance(self.output_modalities, UnsetType) and self.output_modalities not in MODALITIES:
            raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        names = value.get("output_modalities")
        if isinstance(names, list) and names not in MODALITIES:
            yield Phase.RANGE, errors.invalid_modalities(f"{path}.output_modalities", names, MODALITIES)


class ReasoningIn(Shape, kw_only=True):
    effort: ReasoningEffort | UnsetType = UNSET


class TokenLimitsIn(Shape, kw_only=True):
    post_instructions: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class RetentionRatioIn(Shape, kw_only=True):
    type: Literal["retention_ratio"]
    retention_ratio: Annotated[float, Meta(ge=0.0, le=1.0)]
    token_limits: TokenLimitsIn | UnsetType = UNSET


TruncationIn: TypeAlias = Literal["auto", "disabled"] | RetentionRatioIn


class ImageVariableIn(Shape, tag_field="type", tag="input_image", kw_only=True):
    """A picture in a prompt, which is text here. It has a shape since without another one ``input_text`` might be
    left out."""

    tolerated = True

    image_url: Any = UNSET
    file_id: Any = UNSET
    detail: Any = UNSET

    def __post_init__(self) -> None:
        raise ValueError

    @classmethod
    def faults(cls, value: dict[str, Any], path: str) -> Iterator[Found]:
        yield Phase.TYPE, errors.unsupported_value(f"{path}.type", "input_image", ("input_text",))


VariableIn: TypeAlias = Text | InputTextIn | ImageVariableIn


class PromptIn(Shape, kw_only=True):
    id: str
    version: str | UnsetType | None = UNSET
    variables: dict[str, VariableIn] | UnsetType | None = UNSET


# ------------------------------------------------------------------------------------------------------ sessions


class AudioInputIn(Shape, kw_only=True):
    format: FormatIn | UnsetType = UNSET
    transcription: Transcription | UnsetType | None = UNSET
    noise_reduction: NoiseReductionIn | UnsetType | None = UNSET
    turn_detection: TurnDetectionIn | UnsetType | None = UNSET


class AudioOutputIn(Shape, kw_only=True):
    format: FormatIn | UnsetType = UNSET
    voice: Voice | UnsetType = UNSET
    speed: Annotated[float, Meta(ge=0.25, le=1.5)] | UnsetType = UNSET


class AudioIn(Shape, kw_only=True):
    input: AudioInputIn | UnsetType = UNSET
    output: AudioOutputIn | UnsetType = UNSET


class SessionIn(SpeakingShape, tag_field="type", tag="realtime", kw_only=True):
    tag_first = True

    model: str | UnsetType = UNSET
    instructions: Text | UnsetType = UNSET
    tools: list[Tool] | UnsetType = UNSET
    tool_choice: ToolChoiceIn | UnsetType = UNSET
    max_output_tokens: OutputTokens | UnsetType = UNSET
    tracing: Literal["auto"] | TracingIn | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    reasoning: ReasoningIn | UnsetType | None = UNSET
    truncation: TruncationIn | UnsetType = UNSET
    prompt: PromptIn | UnsetType | None = UNSET
    audio: AudioIn | UnsetType = UNSET
    include: list[Include] | UnsetType | None = UNSET


class TranscriptionAudioIn(Shape, kw_only=True):
    input: AudioInputIn | UnsetType = UNSET


class TranscriptionSessionIn(Shape, tag_field="type", tag="transcription", kw_only=True):
    """A session that makes no responses."""

    audio: TranscriptionAudioIn | UnsetType = UNSET
    include: list[Include] | UnsetType | None = UNSET


class ClientSecretIn(Shape, kw_only=True):
    """The body that a client secret is asked for with; no event."""

    expires_after: ExpiresAfterIn | UnsetType = UNSET
    session: SessionIn | TranscriptionSessionIn | UnsetType = UNSET


# --------------------------------------------------------------------------------------------------------- items


class OutputTextIn(AssistantTextIn, tag="output_text", kw_only=True):
    pass


class InputImageIn(Shape, tag_field="type", tag="input_image", kw_only=True):
    image_url: str
    detail: Detail | UnsetType = UNSET


PartIn: TypeAlias = InputTextIn | InputAudioIn | InputImageIn | OutputTextIn


_PARTS_OF_ROLE: Final = {
    "system": ("input_text",),
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text",),
}


class MessageIn(MessageShape, tag="message", kw_only=True):
    parts_of_role = _PARTS_OF_ROLE
    kinds = ("input_text", "input_audio", "input_image", "output_text")

    content: list[PartIn]


ItemIn: TypeAlias = MessageIn | FunctionCallIn | FunctionCallOutputIn
ContextItemIn: TypeAlias = ItemIn | ItemReferenceIn


# ----------------------------------------------------------------------------------------------------- responses


class ResponseAudioOutputIn(Shape, kw_only=True):
    format: FormatIn | UnsetType = UNSET
    voice: Voice | UnsetType = UNSET


class ResponseAudioIn(Shape, kw_only=True):
    output: ResponseAudioOutputIn | UnsetType = UNSET


class ResponseIn(SpeakingShape, kw_only=True):
    instructions: Text | UnsetType | None = UNSET
    audio: ResponseAudioIn | UnsetType = UNSET
    tools: list[Tool] | UnsetType = UNSET
    tool_choice: ToolChoiceIn | UnsetType = UNSET
    max_output_tokens: OutputTokens | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    reasoning: ReasoningIn | UnsetType | None = UNSET
    conversation: Literal["auto", "none"] | UnsetType = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    prompt: PromptIn | UnsetType | None = UNSET
    input: list[ContextItemIn] | UnsetType = UNSET


# -------------------------------------------------------------------------------------------------------- events


class SessionUpdateIn(EventShape, tag="session.update", kw_only=True):
    session: SessionIn | TranscriptionSessionIn


class ItemCreateIn(EventShape, tag="conversation.item.create", kw_only=True):
    item: ItemIn
    previous_item_id: str | UnsetType | None = UNSET


class ResponseCreateIn(EventShape, tag="response.create", kw_only=True):
    response: ResponseIn | UnsetType | None = UNSET


EVENTS: Final[dict[str, Any]] = {
    "session.update": SessionUpdateIn,
    "input_audio_buffer.append": AppendIn,
    "input_audio_buffer.commit": CommitIn,
    "input_audio_buffer.clear": ClearIn,
    "conversation.item.create": ItemCreateIn,
    "conversation.item.delete": ItemDeleteIn,
    "conversation.item.truncate": ItemTruncateIn,
    "conversation.item.retrieve": ItemRetrieveIn,
    "response.create": ResponseCreateIn,
    "response.cancel": ResponseCancelByIdIn,
}
"""The client events by type, in the order in which the service lists them."""
