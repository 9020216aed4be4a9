"""What the server can say: every server event, without dialect (protocol sections 4 and 5).

A dialect gives each its name and shape, or leaves it out where its wire has no such event. Identifiers of the
events themselves (``event_id``) are given when a frame is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.wire.errors import ErrorBody, ServerFault
from vivavoce.wire.items import Item, OutputPart
from vivavoce.wire.session_config import AudioFormatName, Modality, SessionConfig, SessionKind, Voice


class Session(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    model: str
    expires_at: int
    """Unix seconds."""
    config: SessionConfig
    kind: SessionKind = "realtime"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one response (protocol section 7.2)."""

    input_text: int = 0
    input_audio: int = 0
    input_image: int = 0
    cached_text: int = 0
    cached_audio: int = 0
    cached_image: int = 0
    output_text: int = 0
    output_audio: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output_text + self.output_audio

    @property
    def input(self) -> int:
        return self.input_text + self.input_audio + self.input_image

    @property
    def cached(self) -> int:
        return self.cached_text + self.cached_audio + self.cached_image


ResponseStatus: TypeAlias = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]
StatusReason: TypeAlias = Literal["turn_detected", "client_cancelled", "max_output_tokens", "content_filter"]


class StatusDetails(msgspec.Struct, frozen=True, kw_only=True):
    type: ResponseStatus
    reason: StatusReason | None = None
    error: ServerFault | None = None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    status: ResponseStatus
    status_details: StatusDetails | None = None
    output: tuple[Item, ...] = ()
    usage: Usage | None = None
    conversation_id: str | None
    """None out of band."""
    metadata: Mapping[str, str] | None = None
    modalities: tuple[Modality, ...]
    voice: Voice
    output_audio_format: AudioFormatName
    temperature: float
    max_output_tokens: int | None = None


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    name: Literal["requests", "tokens"]
    limit: int
    remaining: int
    reset_seconds: float


class ErrorRaised(msgspec.Struct, frozen=True):
    error: ErrorBody


class SessionCreated(msgspec.Struct, frozen=True):
    session: Session


class SessionUpdated(msgspec.Struct, frozen=True):
    session: Session


class ConversationCreated(msgspec.Struct, frozen=True):
    conversation_id: str


class ItemAdded(msgspec.Struct, frozen=True):
    """An item took its place in the conversation; ``previous_item_id`` is its predecessor then."""

    previous_item_id: str | None
    item: Item


class ItemDone(msgspec.Struct, frozen=True):
    """An item will not change any more."""

    previous_item_id: str | None
    item: Item


class ItemDeleted(msgspec.Struct, frozen=True):
    item_id: str


class ItemTruncated(msgspec.Struct, frozen=True):
    item_id: str
    content_index: int
    audio_end_ms: int


class ItemRetrieved(msgspec.Struct, frozen=True):
    """An item as the server has it."""

    item: Item
    audio: Mapping[int, bytes]
    """Sound that the user said, by content index, in the session's input format."""


class Logprob(msgspec.Struct, frozen=True):
    token: str
    """A stretch of the transcript."""
    logprob: float
    """Natural logarithm of the probability that it was said."""


class TranscriptionTokens(msgspec.Struct, frozen=True):
    """What the words of an item cost, in tokens."""

    input_audio: int
    input_text: int
    output: int


class TranscriptionDuration(msgspec.Struct, frozen=True):
    """What the words of an item cost, by the length of its audio."""

    seconds: int


TranscriptionUsage: TypeAlias = TranscriptionTokens | TranscriptionDuration


class TranscriptionDelta(msgspec.Struct, frozen=True):
    item_id: str
    content_index: int
    delta: str
    logprobs: tuple[Logprob, ...] | UnsetType | None = UNSET
    """UNSET where the client did not ask; None where it asked and the recogniser has none."""


class TranscriptionCompleted(msgspec.Struct, frozen=True):
    item_id: str
    content_index: int
    transcript: str
    usage: TranscriptionUsage
    logprobs: tuple[Logprob, ...] | UnsetType | None = UNSET


class TranscriptionFailed(msgspec.Struct, frozen=True):
    item_id: str
    content_index: int
    error: ServerFault


class InputAudioCommitted(msgspec.Struct, frozen=True):
    previous_item_id: str | None
    item_id: str


class InputAudioCleared(msgspec.Struct, frozen=True):
    pass


class SpeechStarted(msgspec.Struct, frozen=True):
    audio_start_ms: int
    item_id: str


class SpeechStopped(msgspec.Struct, frozen=True):
    audio_end_ms: int
    item_id: str


class IdleTimedOut(msgspec.Struct, frozen=True):
    """Nobody spoke for long after an answer; what came in meanwhile becomes an item."""

    audio_start_ms: int
    audio_end_ms: int
    item_id: str


class ResponseCreated(msgspec.Struct, frozen=True):
    response: Response


class ResponseDone(msgspec.Struct, frozen=True):
    response: Response


class RateLimitsUpdated(msgspec.Struct, frozen=True):
    """``at``: dialects differ in when they tell (protocol section 8, row 3), so both moments are offered."""

    at: Literal["created", "done"]
    rate_limits: tuple[RateLimit, ...]


class OutputItemAdded(msgspec.Struct, frozen=True):
    response_id: str
    output_index: int
    item: Item


class OutputItemDone(msgspec.Struct, frozen=True):
    response_id: str
    output_index: int
    item: Item


class ContentPartAdded(msgspec.Struct, frozen=True):
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: OutputPart


class ContentPartDone(msgspec.Struct, frozen=True):
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    part: OutputPart


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str


class TextDone(msgspec.Struct, frozen=True):
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    text: str


class TranscriptDelta(msgspec.Struct, frozen=True, gc=False):
    """What the assistant's audio says, as text."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: str


class TranscriptDone(msgspec.Struct, frozen=True):
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    transcript: str


class AudioDelta(msgspec.Struct, frozen=True, gc=False):
    response_id: str
    item_id: str
    output_index: int
    content_index: int
    delta: bytes
    """Sound in the response's output format."""


class AudioDone(msgspec.Struct, frozen=True):
    response_id: str
    item_id: str
    output_index: int
    content_index: int


class ArgumentsDelta(msgspec.Struct, frozen=True):
    response_id: str
    item_id: str
    output_index: int
    call_id: str
    delta: str


class ArgumentsDone(msgspec.Struct, frozen=True):
    response_id: str
    item_id: str
    output_index: int
    call_id: str
    name: str
    arguments: str


ServerEvent: TypeAlias = (
    ErrorRaised
    | SessionCreated
    | SessionUpdated
    | ConversationCreated
    | ItemAdded
    | ItemDone
    | ItemDeleted
    | ItemTruncated
    | ItemRetrieved
    | TranscriptionDelta
    | TranscriptionCompleted
    | TranscriptionFailed
    | InputAudioCommitted
    | InputAudioCleared
    | SpeechStarted
    | SpeechStopped
    | IdleTimedOut
    | ResponseCreated
    | ResponseDone
    | RateLimitsUpdated
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | TextDelta
    | TextDone
    | TranscriptDelta
    | TranscriptDone
    | AudioDelta
    | AudioDone
    | ArgumentsDelta
    | ArgumentsDone
)
