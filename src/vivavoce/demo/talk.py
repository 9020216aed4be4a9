"""What has been said so far, kept from the server's events: turns of the user, answers of the model.

Laws
----
1. Nothing here waits, sends or prints: :meth:`Talk.receive` takes an event and tells what it means.
2. Turns are told apart by item id, answers by response id; events of the two interleave freely
   (protocol section 5), and a transcript of a turn may come after the answer to it.
3. An answer that was cut off (cancelled, failed) is no answer: its sound is not part of the reply.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from vivavoce.demo.client import Event, ProtocolFault

_ANSWERED: Final = ("completed", "incomplete")


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The server heard speech begin ``at_ms`` into the audio sent."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The server heard speech end; ``at_ms`` includes the silence it waited for."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Heard:
    """The words that the server heard in one turn; may be empty."""

    text: str


@dataclass(frozen=True, slots=True)
class NotHeard:
    """The transcription of a turn failed."""

    reason: str


@dataclass(frozen=True, slots=True)
class AnswerGrew:
    """More of an answer's words came; ``text`` is all of them so far."""

    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The words of an answer are complete."""

    text: str


@dataclass(frozen=True, slots=True)
class FirstAudio:
    """The first sound of an answer came."""

    response_id: str


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """An answer is over; ``reason`` says why when the status is not ``completed``."""

    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class ServerError:
    """The server reported an error."""

    message: str


Happening: TypeAlias = (
    SpeechStarted
    | SpeechStopped
    | Heard
    | NotHeard
    | AnswerGrew
    | Answered
    | FirstAudio
    | AnswerEnded
    | ServerError
)


@dataclass(slots=True)
class Turn:
    """One stretch of the user's speech. Times in ms are on the server's audio clock."""

    started_ms: int | None = None
    stopped_ms: int | None = None
    stopped_at: float | None = None
    """When ``speech_stopped`` arrived, in seconds of the client's clock."""
    heard: str | None = None
    fault: str | None = None

    @property
    def open(self) -> bool:
        """Speech has started and not stopped."""
        return self.started_ms is not None and self.stopped_ms is None

    @property
    def settled(self) -> bool:
        """The transcription has ended, well or not."""
        return self.heard is not None or self.fault is not None


@dataclass(slots=True)
class Answer:
    """One response of the model."""

    after_turns: int
    """How many turns had been heard to their end when it was created."""
    parts: dict[tuple[str, int], str] = field(default_factory=dict)
    audio: bytearray = field(default_factory=bytearray)
    first_audio_at: float | None = None
    status: str | None = None
    reason: str = ""

    @property
    def text(self) -> str:
        """The words of all parts."""
        return " ".join(part.strip() for part in self.parts.values() if part.strip())

    @property
    def stands(self) -> bool:
        """It ended, and was not cut off."""
        return self.status in _ANSWERED


class Talk:
    """The state of one conversation."""

    def __init__(self) -> None:
        self.turns: dict[str, Turn] = {}
        self.answers: dict[str, Answer] = {}

    # -- what others ask -----------------------------------------------------------------------------

    @property
    def stops(self) -> int:
        """How many turns have ended."""
        return sum(turn.stopped_ms is not None for turn in self.turns.values())

    @property
    def speech_started(self) -> bool:
        """Some turn has started."""
        return any(turn.started_ms is not None for turn in self.turns.values())

    @property
    def speech_open(self) -> bool:
        """Some turn has started and not stopped."""
        return any(turn.open for turn in self.turns.values())

    @property
    def detected(self) -> bool:
        """Speech was detected from its start to its end."""
        return self.speech_started and self.stops > 0 and not self.speech_open

    @property
    def last_stop(self) -> Turn | None:
        """The turn that ended last."""
        ended = [turn for turn in self.turns.values() if turn.stopped_ms is not None]
        return ended[-1] if ended else None

    @property
    def last_answer(self) -> Answer | None:
        """The answer to the last turn (or to what was typed): the newest created after the turn's end."""
        fitting = [answer for answer in self.answers.values() if answer.after_turns == self.stops]
        return fitting[-1] if fitting else None

    @property
    def answered(self) -> bool:
        """The last turn has its answer, and no answer is under way."""
        return self.last_answer is not None and all(a.status is not None for a in self.answers.values())

    @property
    def transcribed(self) -> bool:
        """Every turn's transcription has ended, well or not."""
        return bool(self.turns) and all(turn.settled for turn in self.turns.values())

    @property
    def heard(self) -> str:
        """The words of all turns."""
        return " ".join(turn.heard.strip() for turn in self.turns.values() if turn.heard and turn.heard.strip())

    @property
    def reply_text(self) -> str:
        """The words of the answers that stand."""
        return " ".join(a.text for a in self.answers.values() if a.stands and a.text)

    @property
    def reply_audio(self) -> bytes:
        """The sound of the answers that stand: pcm16 at 24 kHz."""
        return b"".join(bytes(a.audio) for a in self.answers.values() if a.stands)

    # -- what the server says ------------------------------------------------------------------------

    def receive(self, event: Event, now: float) -> list[Happening]:
        """Take the next event, which arrived at ``now`` (s); tell what it means for somebody who watches.

        Raises :class:`ProtocolFault` for an event without the fields it must have.
        """
        match event["type"]:
            case "input_audio_buffer.speech_started":
                turn = self.turns.setdefault(_str(event, "item_id"), Turn())
                turn.started_ms = _int(event, "audio_start_ms")
                return [SpeechStarted(turn.started_ms)]
            case "input_audio_buffer.speech_stopped":
                return self._stopped(event, now)
            case "input_audio_buffer.committed":
                self.turns.setdefault(_str(event, "item_id"), Turn())
                return []
            case "conversation.item.input_audio_transcription.completed":
                turn = self.turns.setdefault(_str(event, "item_id"), Turn())
                turn.heard = _str(event, "transcript")
                return [Heard(turn.heard)]
            case "conversation.item.input_audio_transcription.failed":
                turn = self.turns.setdefault(_str(event, "item_id"), Turn())
                turn.fault = _reason(event.get("error")) or "no reason given"
                return [NotHeard(turn.fault)]
            case "error":
                return [ServerError(_reason(event.get("error")) or "no reason given")]
            case str(name) if name.startswith("response."):
                return self._answer_event(name, event, now)
            case _:
                return []

    def _stopped(self, event: Event, now: float) -> list[Happening]:
        turn = self.turns.get(_str(event, "item_id"))
        if turn is None or not turn.open:
            # A commit by hand takes the announced id away; the stop then names an item not seen before.
            open_turns = [known for known in self.turns.values() if known.open]
            turn = open_turns[-1] if open_turns else self.turns.setdefault(_str(event, "item_id"), Turn())
        turn.stopped_ms = _int(event, "audio_end_ms")
        turn.stopped_at = now
        return [SpeechStopped(turn.stopped_ms)]

    def _answer_event(self, name: str, event: Event, now: float) -> list[Happening]:
        if name in ("response.created", "response.done"):
            response = event.get("response")
            if not isinstance(response, dict):
                raise ProtocolFault(f"the server sent {name} without a response")
            answer = self.answers.setdefault(_str(response, "id"), Answer(after_turns=self.stops))
            return _end(answer, response) if name == "response.done" else []
        response_id = event.get("response_id")
        answer_or_none = self.answers.get(response_id) if isinstance(response_id, str) else None
        if answer_or_none is None:
            return []
        answer = answer_or_none
        match name:
            case "response.audio.delta":
                return _add_audio(answer, event, now)
            case "response.audio_transcript.delta" | "response.text.delta":
                key = _part(event)
                answer.parts[key] = answer.parts.get(key, "") + _str(event, "delta")
                return [AnswerGrew(answer.text)]
            case "response.audio_transcript.done" | "response.text.done":
                text = _str(event, "transcript" if "audio" in name else "text")
                answer.parts[_part(event)] = text
                return [Answered(text)]
            case _:
                return []


def _end(answer: Answer, response: Event) -> list[Happening]:
    answer.status = _str(response, "status")
    details = response.get("status_details")
    if isinstance(details, dict):
        reason = details.get("reason")
        answer.reason = _reason(details.get("error")) or (reason if isinstance(reason, str) else "")
    return [AnswerEnded(answer.status, answer.reason)]


def _add_audio(answer: Answer, event: Event, now: float) -> list[Happening]:
    try:
        sound = b64decode(_str(event, "delta"), validate=True)
    except (binascii.Error, ValueError) as fault:
        raise ProtocolFault("the server sent audio that is not base64") from fault
    answer.audio += sound
    if answer.first_audio_at is not None or not sound:
        return []
    answer.first_audio_at = now
    return [FirstAudio(_str(event, "response_id"))]


def _part(event: Event) -> tuple[str, int]:
    return _str(event, "item_id"), _int(event, "content_index")


def _reason(error: Any) -> str:
    """The message of an error object, with its code where it has one."""
    if not isinstance(error, dict):
        return ""
    message, code = error.get("message"), error.get("code")
    if not isinstance(message, str) or not message:
        return code if isinstance(code, str) else ""
    return f"{message} (code {code})" if isinstance(code, str) and code else message


def _str(event: Event, key: str) -> str:
    value = event.get(key)
    if not isinstance(value, str):
        raise ProtocolFault(f"the server sent {event.get('type', 'a response')} without a valid {key}")
    return value


def _int(event: Event, key: str) -> int:
    value = event.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProtocolFault(f"the server sent {event.get('type', 'a response')} without a valid {key}")
    return value
