"""The contract of the core on one screen: ``Input`` is all that can happen, ``Effect`` all that can be asked for.

Laws
----
1. The core decides, the runtime acts. A session turns each input into effects, at once and without waiting.
2. Reports of an engine carry the id of what they belong to; a report whose id is gone is late, and dies here.
3. Effects are performed in the order given. Starting what was started and stopping what has stopped is harmless.
4. Times of audio are ticks of 1/24000 s on the session's audio clock (``audio.formats``).
5. What comes many times a second is a msgspec struct, which is made four times as fast as a frozen dataclass. It
   holds nothing that could lead back to it, so that the collector of cycles need not watch it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import msgspec

from vivavoce.audio.formats import AudioFormat, Clip
from vivavoce.core.alignment import Mark
from vivavoce.core.context import ResponsePlan
from vivavoce.wire.client_events import ControlEvent, InputAudioAppend, Rejected
from vivavoce.wire.errors import ServerFault
from vivavoce.wire.items import Item
from vivavoce.wire.server_events import Logprob, RateLimit, ServerEvent, Usage
from vivavoce.wire.session_config import Transcription

# ------------------------------------------------------------------------------------- what can happen


class VadFrame(msgspec.Struct, frozen=True, gc=False):
    """The VAD judged the 32 ms frame that ends at ``end_tick`` (always a multiple of 768)."""

    end_tick: int
    probability: float


@dataclass(frozen=True, slots=True)
class VadFailed:
    """The VAD could not judge; turn detection goes on with the next frame."""


@dataclass(frozen=True, slots=True)
class TurnJudged:
    """The answer to :class:`JudgeTurn`; without one, the silence has to last its longest."""

    item_id: str
    silent_from: int
    """Of the silence that was asked about."""
    probability: float
    """That the speaker has finished, 0..1."""


@dataclass(frozen=True, slots=True)
class Recognised:
    """The whole transcript of one item's audio is known."""

    item_id: str
    text: str
    content_index: int = 0
    logprobs: tuple[Logprob, ...] | None = None
    """Of all its tokens; None where the recogniser gives none."""
    clip: Clip | None = None
    """What was listened to, where that was audio of an item and not an utterance."""


@dataclass(frozen=True, slots=True)
class RecognitionDelta:
    """More of a transcript that will not change any more."""

    item_id: str
    text: str
    logprobs: tuple[Logprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class RecognitionFailed:
    item_id: str
    code: str | None


@dataclass(frozen=True, slots=True)
class QuotaGranted:
    response_id: str
    rate_limits: tuple[RateLimit, ...]


@dataclass(frozen=True, slots=True)
class QuotaDenied:
    response_id: str
    name: Literal["requests", "tokens"]
    retry_after_s: float
    rate_limits: tuple[RateLimit, ...]


@dataclass(frozen=True, slots=True)
class QuotaSettled:
    rate_limits: tuple[RateLimit, ...]


class TextProduced(msgspec.Struct, frozen=True, gc=False):
    """The model's words: the text of a text message, the transcript of a spoken one."""

    response_id: str
    text: str


class AudioProduced(msgspec.Struct, frozen=True, gc=False):
    response_id: str
    audio: bytes
    """In the plan's output format; whole samples. Empty where only marks are new."""
    marks: tuple[Mark, ...] = ()
    """Where words of the message stand in its sound, as far as is known now: in this audio, or near it."""


@dataclass(frozen=True, slots=True)
class CallStarted:
    response_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsProduced:
    response_id: str
    text: str


@dataclass(frozen=True, slots=True)
class InputTokens:
    """What a model has read; what is cached is a part of the same modality."""

    text: int = 0
    audio: int = 0
    cached_text: int = 0
    cached_audio: int = 0


@dataclass(frozen=True, slots=True)
class UsageReported:
    """The model itself has counted what the response used. What is None here, the session counts."""

    response_id: str
    input: InputTokens | None = None
    output_text: int | None = None
    output_audio: int | None = None


@dataclass(frozen=True, slots=True)
class ResponseFinished:
    response_id: str
    reason: Literal["stop", "max_output_tokens", "content_filter"] = "stop"


@dataclass(frozen=True, slots=True)
class ResponseFailed:
    response_id: str
    fault: ServerFault


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The deadline that the session asked for has come."""


@dataclass(frozen=True, slots=True)
class ShutDown:
    """The server ends the session: 1001 when it goes away, 1011 when it found a bug."""

    code: int
    reason: str


Report: TypeAlias = (
    VadFrame
    | VadFailed
    | TurnJudged
    | Recognised
    | RecognitionDelta
    | RecognitionFailed
    | QuotaGranted
    | QuotaDenied
    | QuotaSettled
    | TextProduced
    | AudioProduced
    | CallStarted
    | ArgumentsProduced
    | UsageReported
    | ResponseFinished
    | ResponseFailed
)
OtherInput: TypeAlias = ControlEvent | Rejected | Report | TimePassed | ShutDown
"""All but sound, from which nothing follows but what it is fed to."""
Input: TypeAlias = InputAudioAppend | OtherInput

# ----------------------------------------------------------------------------------- what can be asked for


class Emit(msgspec.Struct, frozen=True, gc=False):
    event: ServerEvent


@dataclass(frozen=True, slots=True)
class Retrieve:
    """Send ``item`` with its audio in ``format``; what the client says next is answered after it."""

    item: Item
    clips: Mapping[int, Clip]
    """By content index."""
    format: AudioFormat


@final
class FeedVad(msgspec.Struct, frozen=True, gc=False):
    """Judge this audio; it begins at ``start_tick``."""

    start_tick: int
    format: AudioFormat
    data: bytes


@dataclass(frozen=True, slots=True)
class ResetVad:
    """Forget what was heard; frames under way are not reported."""


@dataclass(frozen=True, slots=True)
class OpenUtterance:
    """The audio of ``item_id`` begins; ``transcription`` is None where only the model may want the words."""

    item_id: str
    transcription: Transcription | None
    logprobs: bool = False
    """The client wants to know how sure the recogniser is."""
    judged: bool = False
    """Its end may be asked about (:class:`JudgeTurn`), so its words are of use while they are spoken."""


class FeedUtterance(msgspec.Struct, frozen=True, gc=False):
    item_id: str
    clip: Clip


@dataclass(frozen=True, slots=True)
class JudgeTurn:
    """Has the speaker of ``item_id`` finished? Answered by TurnJudged; what has been fed of the utterance counts.

    It takes the place of an earlier question. Closing or dropping the utterance withdraws it.
    """

    item_id: str
    silent_from: int
    """Where the silence began that ``clip`` ends in."""
    end_tick: int
    clip: Clip
    """The last of the turn, up to ``end_tick``, silence included."""


@dataclass(frozen=True, slots=True)
class WithdrawQuestion:
    """The speaker of ``item_id`` goes on."""

    item_id: str


@dataclass(frozen=True, slots=True)
class CloseUtterance:
    """The audio of ``item_id`` is complete; its words are awaited."""

    item_id: str


@dataclass(frozen=True, slots=True)
class DropUtterance:
    """Nobody wants the words of ``item_id`` any more. While its audio still comes, it may be opened anew."""

    item_id: str


@dataclass(frozen=True, slots=True)
class ReserveQuota:
    """Ask for admission of one response; answered by QuotaGranted or QuotaDenied."""

    response_id: str
    tokens: int
    """All that it may use: what it reads, and the most that it may say."""
    reads: Usage
    """Of which the input alone counts."""
    max_output_tokens: int | None
    """None where nobody has set a limit."""


@dataclass(frozen=True, slots=True)
class SettleQuota:
    """A response has ended and used ``tokens``, those of ``used``; answered by QuotaSettled if ``tell``."""

    response_id: str
    tokens: int
    tell: bool
    used: Usage


@dataclass(frozen=True, slots=True)
class StartResponse:
    plan: ResponsePlan


@dataclass(frozen=True, slots=True)
class StopResponse:
    response_id: str


@dataclass(frozen=True, slots=True)
class Speculate:
    """The turn is likely over: this is the response that it would have. Its work may be done now, and nothing of it
    reported before ``StartResponse`` asks for a response of this id, and then only if that comes to the same.

    Ended by ``StartResponse``, ``StopResponse`` or ``DropSpeculation`` of this id, whichever comes first. There is
    at most one at a time.
    """

    plan: ResponsePlan
    """Its last entry is the speech so far; the words of that are not known yet."""
    input_tokens: int


@dataclass(frozen=True, slots=True)
class DropSpeculation:
    """There will be no such response."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Close:
    """Send what was emitted, then close the connection."""

    code: int
    reason: str


Effect: TypeAlias = (
    Emit
    | Retrieve
    | FeedVad
    | ResetVad
    | OpenUtterance
    | FeedUtterance
    | JudgeTurn
    | WithdrawQuestion
    | CloseUtterance
    | DropUtterance
    | ReserveQuota
    | SettleQuota
    | StartResponse
    | StopResponse
    | Speculate
    | DropSpeculation
    | Close
)
