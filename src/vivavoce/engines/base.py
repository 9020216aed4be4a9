"""What a backend must be: the engine protocols, their capabilities, and the values they exchange.

Laws
----
1. An engine is a plain object that satisfies one of the protocols below; there is no base class. A factory
   named by an entry point (``vivavoce.vad``, ``.transcriber``, ``.end_of_turn``, ``.language_model``,
   ``.synthesizer``, ``.speech_model``) makes it from the options of its configuration table; built-ins come in by
   the same door as plug-ins.
2. Work is an async generator. Closing it (or cancelling whoever iterates) ends the work and frees what it
   held, in ``finally``; nothing of it goes on in the background.
3. An engine owns no task of a session. CPU-heavy work runs in its own processes or threads, bounded in number.
4. Capabilities are declared, and the server branches on them, never on an engine's name.
5. Faults are :class:`EngineError`; anything else that escapes is a bug.
6. Neither speech nor prompts nor transcripts are ever logged.

Audio between server and engines is mono, signed 16-bit little-endian PCM at the rate that the engine declares.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

Float32: TypeAlias = npt.NDArray[np.float32]
JsonObject: TypeAlias = Mapping[str, Any]


class EngineError(Exception):
    """An engine could not do its work.

    ``code`` and ``message`` reach the client (``response.done`` failed, or ``transcription.failed``), so they
    name the fault without speech, prompts or secrets.
    """

    def __init__(self, code: str, message: str, *, type: str = "server_error") -> None:  # noqa: A002
        super().__init__(message)
        self.type = type
        self.code = code
        self.message = message


class EngineOptionsError(Exception):
    """The options of an engine's configuration table are wrong; ``path`` names the option, or is empty."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem


class Engine(Protocol):
    """What every engine has: a name and version to show, a start, and an end."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...

    async def start(self) -> None:
        """Load models and start workers; called once, before the server reports that it is ready.

        Raises :class:`EngineError` when the engine cannot work on this machine.
        """

    async def close(self) -> None:
        """Stop workers and free everything, within a few seconds, also when work is under way."""


@runtime_checkable
class Watched(Protocol):
    """An engine that knows whether it works now. One that does not say is taken to work while it runs."""

    @property
    def working(self) -> bool:
        """False while whoever asked something of it would be told that it is unavailable. Asked often: a look."""


@runtime_checkable
class Restarting(Protocol):
    """An engine whose workers are replaced when they crash or hang."""

    @property
    def restarts(self) -> int:
        """How often that has happened since it was started."""


@runtime_checkable
class SessionAware(Protocol):
    """A model that keeps something from one response of a session to the next, such as a connection."""

    async def end_session(self, session: str) -> None:
        """Free what is kept for :attr:`GenerationRequest.session`, which may be nothing. It waits for nobody."""


# ---------------------------------------------------------------------------------------------------- VAD


@dataclass(frozen=True, slots=True)
class VadCapabilities:
    sample_rate: int
    """Hz of the frames it takes (16000 for Silero)."""
    frame_samples: int
    """Samples in a frame; with ``sample_rate`` this must be 32 ms (protocol section 7.3)."""
    state_size: int
    """float32 values of memory that one stream carries from frame to frame."""


@runtime_checkable
class Vad(Engine, Protocol):
    """Voice activity detection for many streams at once."""

    @property
    def capabilities(self) -> VadCapabilities: ...

    def infer(self, frames: Float32, states: Float32) -> Float32:
        """One frame of each of B streams -> the probability of speech in each.

        ``frames`` is [B, frame_samples] in -1..1; ``states`` is [B, state_size], all zero for a new stream, and
        is updated in place. Returns [B] in 0..1. Called by one thread at a time: by a worker thread or, for so few
        frames that they should take no longer than 4 ms, by the event loop.
        """


# -------------------------------------------------------------------------------------------- transcriber


@dataclass(frozen=True, slots=True)
class TranscriberCapabilities:
    sample_rate: int
    """Hz of the audio it takes."""
    streaming: bool
    """True when it works while audio arrives (partial results need not appear)."""
    languages: tuple[str, ...] = ()
    """ISO-639-1 codes it knows; empty means any."""
    heavy: bool = False
    """It holds much memory, or a device: one instance should serve all workers of a server."""
    logprobs: bool = False
    """True when it can tell how sure it is of each token."""
    partials: bool = False
    """True when it can yield :class:`PartialTranscript`, where the options ask for it."""


@dataclass(frozen=True, slots=True)
class TranscriptionOptions:
    language: str | None = None
    prompt: str | None = None
    logprobs: bool = False
    """Wanted; set only where the capabilities say that there are any."""
    partials: bool = False
    """:class:`PartialTranscript` is of use; set only where the capabilities say that there are any."""
    session: str = ""
    """Opaque; equal for all requests of a session, and never used again."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How sure a recogniser is of a token, which may be a word."""

    token: str
    logprob: float
    """Natural logarithm of the probability that it was said; a measured one, never made up."""


@dataclass(frozen=True, slots=True)
class TranscriptDelta:
    """More of the transcript. The concatenation of all deltas is the transcript; there may be none (silence)."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens of ``text``, where they were asked for."""


@dataclass(frozen=True, slots=True)
class PartialTranscript:
    """What the audio so far seems to say, after the deltas; the next one takes its place. No part of the result."""

    text: str
    audio_ms: int
    """How much of the audio it takes into account."""


@runtime_checkable
class Transcriber(Engine, Protocol):
    """Speech recognition of one utterance at a time per call, any number of calls at once."""

    @property
    def capabilities(self) -> TranscriberCapabilities: ...

    def transcribe(
        self, audio: AsyncIterator[bytes], options: TranscriptionOptions
    ) -> AsyncGenerator[TranscriptDelta | PartialTranscript, None]:
        """``audio``: s16le mono at ``sample_rate`` in pieces of any length, ending when the utterance ends (it may
        arrive in real time, while the person speaks). Deltas hold only text that will not change.

        Raises :class:`EngineError` (``engine_overloaded`` when its bounded queue is full).
        """


# -------------------------------------------------------------------------------------------- end of turn


@dataclass(frozen=True, slots=True)
class EndOfTurnCapabilities:
    sample_rate: int
    """Hz of the audio it takes."""
    audio_ms: int
    """How much of the end of a turn it listens to, at most 8000; 0 for none."""
    reads_words: bool
    """True when :attr:`Pause.words` are of use to it. Then turns are recognised while people speak, even where
    neither the client nor the model asks for words."""
    languages: tuple[str, ...] = ()
    """ISO-639-1 codes of the words that it can judge; empty means any."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A speaker has fallen silent: all that is known of the turn so far."""

    words: str | None
    """What was said, as the recogniser has it at this moment; None when nobody listens for words."""
    language: str | None
    """The client's hint, ISO-639-1."""
    pcm: bytes
    """The last ``audio_ms`` of the turn, s16le mono at ``sample_rate``, up to now: it ends in the silence."""
    silence_ms: int
    """How long the silence has lasted; a multiple of 32."""
    session: str = ""
    """Opaque; equal for all requests of a session, and never used again."""


@runtime_checkable
class EndOfTurn(Engine, Protocol):
    """Tells a speaker who has finished from one who only pauses (semantic_vad, protocol section 7.4)."""

    @property
    def capabilities(self) -> EndOfTurnCapabilities: ...

    async def judge(self, pause: Pause) -> float:
        """The probability, 0..1, that the speaker has finished.

        It should tell of what was said and how, not of the length of the silence: the server weighs that itself
        (``core.turns.patience_ms``). Cancelled when the speaker goes on. Raises :class:`EngineError`; the turn then
        ends after its longest silence.
        """


# ----------------------------------------------------------------------------------------- language model


@dataclass(frozen=True, slots=True)
class LanguageModelCapabilities:
    hears_audio: bool = False
    """True when it takes :class:`AudioInput`; otherwise it gets the recogniser's text instead."""
    sees_images: bool = False
    """True when it takes :class:`ImageInput`; otherwise clients cannot send images."""
    calls_tools: bool = True
    reasons: bool = False
    """True when it takes :attr:`GenerationRequest.reasoning`."""


@dataclass(frozen=True, slots=True)
class TextInput:
    text: str


@dataclass(frozen=True, slots=True)
class AudioInput:
    pcm: bytes
    """s16le mono at ``rate`` Hz."""
    rate: int
    transcript: str | None = None


@dataclass(frozen=True, slots=True)
class ImageInput:
    """A picture; only for a model whose capabilities say that it sees."""

    url: str
    """A ``data:`` URL, or one that the model's server can fetch."""
    detail: Literal["auto", "low", "high"] = "auto"


Content: TypeAlias = TextInput | AudioInput | ImageInput


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: tuple[Content, ...]
    item_id: str = ""
    """Names the item in its session; only what the assistant said may change under it, by truncation."""
    audio_ms: int | None = None
    """Milliseconds of the assistant's speech that the conversation holds; None where it was not spoken."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    call_id: str
    name: str
    arguments: str
    """A JSON object as text."""
    item_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolOutput:
    call_id: str
    output: str
    item_id: str = ""


Turn: TypeAlias = Message | ToolCall | ToolOutput


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str = ""
    parameters: JsonObject = field(default_factory=dict)
    """A JSON schema of type object; empty for no arguments."""


@dataclass(frozen=True, slots=True)
class NamedTool:
    """``tool_choice`` that demands one function."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One turn for a language model to take."""

    instructions: str
    turns: tuple[Turn, ...]
    """The context, oldest first."""
    modalities: frozenset[Literal["text", "audio"]] = frozenset({"text", "audio"})
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    temperature: float = 0.8
    max_output_tokens: int | None = None
    """None for no limit. The server enforces the limit too."""
    parallel_tool_calls: bool | None = None
    """False: at most one call, which the server enforces too. None: nobody has said."""
    reasoning: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None
    """How long to think; set only for a model whose capabilities say that it reasons."""
    session: str = ""
    """Opaque; equal for all requests of a session, and never used again."""
    out_of_band: bool = False
    """The answer is no part of the conversation; ``turns`` may be others than those of the conversation."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A function call begins; :class:`ToolArgumentsDelta` that follow belong to it until the next start."""

    name: str


@dataclass(frozen=True, slots=True)
class ToolArgumentsDelta:
    text: str


@dataclass(frozen=True, slots=True)
class InputUsage:
    """Tokens that a model has read. What is cached is a part of the same modality; raises ValueError otherwise."""

    text: int = 0
    audio: int = 0
    cached_text: int = 0
    cached_audio: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.cached_text <= self.text and 0 <= self.cached_audio <= self.audio):
            raise ValueError("tokens are not negative, and cached ones are a part of all")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a generation has used, as the model itself counted it. What is None, the server counts."""

    input: InputUsage | None = None
    output_text: int | None = None
    """Tokens of words and calls, and what the model thought besides."""
    output_audio: int | None = None

    def __post_init__(self) -> None:
        if min(self.output_text or 0, self.output_audio or 0) < 0:
            raise ValueError("tokens are not negative")


@dataclass(frozen=True, slots=True)
class Finish:
    """Last of every generation that was not cut short."""

    reason: Literal["stop", "max_output_tokens", "content_filter"] = "stop"
    usage: Usage | None = None
    """None where the model does not say."""


ModelDelta: TypeAlias = TextDelta | ToolCallStart | ToolArgumentsDelta | Finish


@runtime_checkable
class LanguageModel(Engine, Protocol):
    @property
    def capabilities(self) -> LanguageModelCapabilities: ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[ModelDelta, None]:
        """Stream the turn: text and calls in any number and order, then :class:`Finish`.

        Raises :class:`EngineError`.
        """


# -------------------------------------------------------------------------------------------- synthesizer


@dataclass(frozen=True, slots=True)
class SynthesizerCapabilities:
    sample_rate: int
    """Hz of the audio it makes."""
    word_timings: bool = False
    voices: Mapping[str, str] = field(default_factory=dict)
    """Protocol voice (``alloy`` ...) -> the engine's own voice. A voice not named here is refused at start-up."""
    heavy: bool = False
    """It holds much memory, or a device: one instance should serve all workers of a server."""
    reads_numbers: bool = True
    """It reads digits, sums, dates and times aloud by itself; otherwise it gets them in words."""
    clauses_at_once: int = 1
    """Clauses of one answer that it may be given at once. 1 spares a local engine, whose next clause would only
    slow down the one that is awaited; 2 or more hide the way to a remote one."""


@dataclass(frozen=True, slots=True)
class SynthesisRequest:
    text: str
    voice: str
    """A protocol voice name, a key of ``capabilities.voices``."""
    speed: float = 1.0
    session: str = ""
    """Opaque; equal for all requests of a session, and never used again."""


@dataclass(frozen=True, slots=True)
class WordTiming:
    """Where one word of the request's text is heard."""

    start: int
    """Offset of its first character in the text."""
    length: int
    """Characters."""
    audio_ms: int
    """Milliseconds from the start of this synthesis."""


@dataclass(frozen=True, slots=True)
class SpeechChunk:
    pcm: bytes
    """s16le mono at ``sample_rate``; whole samples."""
    words: tuple[WordTiming, ...] = ()
    """Words that begin within this chunk."""


@runtime_checkable
class Synthesizer(Engine, Protocol):
    @property
    def capabilities(self) -> SynthesizerCapabilities: ...

    def synthesize(self, request: SynthesisRequest) -> AsyncGenerator[SpeechChunk, None]:
        """Stream speech for one clause or more of plain text; silence for text with nothing to say is no fault.

        The text is free of markup (``docs/explanation/speech.md``); the words of :class:`SpeechChunk` refer to it.

        Raises :class:`EngineError`.
        """


# ------------------------------------------------------------------------------------------- speech model


@dataclass(frozen=True, slots=True)
class SpeechModelCapabilities:
    sample_rate: int
    """Hz of the audio it makes."""
    hears_audio: bool = True
    """True when it takes :class:`AudioInput`; otherwise it gets the recogniser's text instead."""
    voices: frozenset[str] = frozenset()
    """Protocol voices that it has. A voice not named here is refused at start-up."""
    sees_images: bool = False
    """True when it takes :class:`ImageInput`; otherwise clients cannot send images."""
    reasons: bool = False
    """True when it takes :attr:`GenerationRequest.reasoning`."""
    keeps_speech: bool = False
    """True when it remembers its own speech, so that a message without words, since truncation takes them, is of
    use to it: it gets a :class:`Message` with ``audio_ms`` and no content."""


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """One turn for a speech model to take; where ``generation.modalities`` lacks ``audio`` it answers in text."""

    generation: GenerationRequest
    voice: str
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class AudioDelta:
    """More of the speech of the current message; its words come as :class:`TextDelta`, ahead of it or beside it."""

    pcm: bytes
    """s16le mono at ``sample_rate``; whole samples."""


SpeechDelta: TypeAlias = TextDelta | AudioDelta | ToolCallStart | ToolArgumentsDelta | Finish


@runtime_checkable
class SpeechModel(Engine, Protocol):
    """A model that speaks for itself: it stands for language model and synthesiser together."""

    @property
    def capabilities(self) -> SpeechModelCapabilities: ...

    def respond(self, request: SpeechRequest) -> AsyncGenerator[SpeechDelta, None]:
        """Stream the turn, then :class:`Finish`. Raises :class:`EngineError`."""
