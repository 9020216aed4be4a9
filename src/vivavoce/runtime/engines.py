"""What the runtime needs from outside itself: the engines of a deployment, quota, and a way out."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from vivavoce.core.contract import ReserveQuota
from vivavoce.engines.base import EndOfTurn, LanguageModel, SpeechModel, Synthesizer, Transcriber
from vivavoce.runtime.vad_pool import VadPool
from vivavoce.wire.server_events import RateLimit, Usage


@dataclass(frozen=True, slots=True)
class Cascaded:
    """A language model whose words a synthesiser speaks."""

    language_model: LanguageModel
    synthesizer: Synthesizer

    @property
    def hears_audio(self) -> bool:
        return self.language_model.capabilities.hears_audio

    @property
    def sees_images(self) -> bool:
        return self.language_model.capabilities.sees_images

    @property
    def reasons(self) -> bool:
        return self.language_model.capabilities.reasons

    @property
    def model(self) -> LanguageModel:
        return self.language_model


@dataclass(frozen=True, slots=True)
class Native:
    """A model that speaks for itself."""

    speech_model: SpeechModel

    @property
    def hears_audio(self) -> bool:
        return self.speech_model.capabilities.hears_audio

    @property
    def sees_images(self) -> bool:
        return self.speech_model.capabilities.sees_images

    @property
    def reasons(self) -> bool:
        return self.speech_model.capabilities.reasons

    @property
    def model(self) -> SpeechModel:
        return self.speech_model


@dataclass(frozen=True, slots=True)
class Stages:
    """How long the stages of one response took, in seconds; None for one that it did not reach."""

    recognition_s: float | None = None
    """From the end of the utterance that it answers to the final transcript."""
    first_output_s: float | None = None
    """From its start, as the following."""
    first_audio_s: float | None = None
    total_s: float | None = None


class Telemetry(Protocol):
    """Who counts what happens in the sessions of a deployment."""

    def recognised(self, seconds: float) -> None:
        """The final words of an utterance came so long after its end."""

    def responded(self, status: str, stages: Stages) -> None:
        """A response ended."""


class Silent:
    """Nobody counts."""

    def recognised(self, seconds: float) -> None: ...
    def responded(self, status: str, stages: Stages) -> None: ...


SILENT: Final = Silent()


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of one deployment, started and shared by all of its sessions."""

    vad_pool: VadPool
    transcriber: Transcriber
    end_of_turn: EndOfTurn
    speaker: Cascaded | Native
    telemetry: Telemetry = SILENT


@dataclass(frozen=True, slots=True)
class Denial:
    """Quota says no to a response."""

    name: Literal["requests", "tokens"]
    retry_after_s: float


class Reservation(Protocol):
    def settle(self, used: Usage) -> Awaitable[None] | None:
        """Put right what was reserved; the second time changes nothing."""


class Meter(Protocol):
    """The quota of a deployment. It answers at once, or awaitably where it has to ask somebody else."""

    def reserve(self, asked: ReserveQuota) -> Reservation | Denial | Awaitable[Reservation | Denial]:
        """Take what a response may use. A no changes nothing."""

    def rate_limits(self) -> tuple[RateLimit, ...]:
        """The state to tell clients now; where it is kept by somebody else, as known from the last answer."""


class Room(Protocol):
    """Room for output. Bounded: whoever makes output waits for :meth:`drained`."""

    @property
    def crowded(self) -> bool:
        """So much waits that no more output should be made now; see :meth:`drained`."""

    async def drained(self) -> None:
        """Wait until it is not crowded; returns at once when it is not."""


class Outbox(Room, Protocol):
    """The way out to one client."""

    @property
    def full(self) -> bool:
        """So much waits that not even answers to the client's own events should be added."""

    def send(self, frame: bytes) -> None:
        """Queue one text frame of UTF-8 JSON; never waits."""

    def close(self, code: int, reason: str) -> None:
        """Close the connection once everything queued is sent."""
