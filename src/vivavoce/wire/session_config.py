"""Session configuration and response options, as the core knows them (protocol sections 3 and 4.8).

``UNSET`` in a patch or in options means that the client did not send the field: leave it, or take the session's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.wire.items import ContextItem, InputTextPart, Item

Modality: TypeAlias = Literal["text", "audio"]
AudioFormatName: TypeAlias = Literal["pcm16", "g711_ulaw", "g711_alaw"]
Tracing: TypeAlias = Literal["auto"] | Mapping[str, Any]
"""``auto``, or a name, a group and metadata of one's own for the traces."""
Eagerness: TypeAlias = Literal["low", "medium", "high", "auto"]
Voice: TypeAlias = Literal[
    "alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"
]  # fmt: skip

NoiseReduction: TypeAlias = Literal["near_field", "far_field"]
"""How far the microphone is from the mouth: a headset, or a laptop or a conference room."""

VOICES: Final[tuple[Voice, ...]] = get_args(Voice)
AUDIO_FORMATS: Final[tuple[AudioFormatName, ...]] = ("pcm16", "g711_ulaw", "g711_alaw")


SessionKind: TypeAlias = Literal["realtime", "transcription"]
"""A transcription session hears and writes down; it makes no responses (protocol section 8.1)."""
Include: TypeAlias = Literal["item.input_audio_transcription.logprobs"]
"""What the client may ask to be told beside the usual."""
LOGPROBS: Final[Include] = "item.input_audio_transcription.logprobs"


class ServerVad(msgspec.Struct, frozen=True):
    """Turn detection by voice activity (protocol section 7.3)."""

    threshold: float = 0.5
    """Probability, 0..1, from which a 32 ms frame counts as speech."""
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 200
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = None
    """Silence after an answer has been heard, until the assistant speaks again; None to wait for ever."""


class SemanticVad(msgspec.Struct, frozen=True):
    """Turn detection by what was said and how, beside voice activity (protocol section 7.4)."""

    threshold: ClassVar[float] = ServerVad().threshold
    prefix_padding_ms: ClassVar[int] = ServerVad().prefix_padding_ms
    """Speech begins as by default with :class:`ServerVad`; clients cannot change it."""

    eagerness: Eagerness = "auto"
    """How soon a pause is taken for the end; ``auto`` is the same as ``medium``."""
    create_response: bool = True
    interrupt_response: bool = True


TurnDetection: TypeAlias = ServerVad | SemanticVad


class Transcription(msgspec.Struct, frozen=True):
    """Input transcription is asked for."""

    model: str = "whisper-1"
    language: str | None = None
    prompt: str | None = None


class FunctionTool(msgspec.Struct, frozen=True):
    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    """A JSON schema of type object."""


class NamedFunction(msgspec.Struct, frozen=True):
    """``tool_choice`` that demands one function."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedFunction


class RetentionRatio(msgspec.Struct, frozen=True, kw_only=True):
    """A context that grows too long is cut far enough that the next cut is not due soon."""

    retention_ratio: float
    """What is left of the most that there may be, 0..1."""
    post_instructions: int | None = None
    """Tokens of items that there may be, below what the model reads; None for all that it reads."""


Truncation: TypeAlias = Literal["auto", "disabled"] | RetentionRatio
"""What becomes of a context that is longer than the model reads."""


ReasoningEffort: TypeAlias = Literal["minimal", "low", "medium", "high", "xhigh"]
"""How long a model that reasons thinks before it answers."""


class PromptReference(msgspec.Struct, frozen=True, kw_only=True):
    """A stored prompt, as the client names it."""

    id: str
    version: str | UnsetType | None = UNSET
    """Not named, or null: the one that the prompt has by default."""
    variables: Mapping[str, str | InputTextPart] | UnsetType | None = UNSET
    """What goes into its gaps, by name."""


class SessionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The full effective configuration of a session; replaced as a whole, never changed in place."""

    modalities: tuple[Modality, ...] = ("audio", "text")
    instructions: str = ""
    voice: Voice = "alloy"
    input_audio_format: AudioFormatName = "pcm16"
    output_audio_format: AudioFormatName = "pcm16"
    input_audio_transcription: Transcription | None = None
    turn_detection: TurnDetection | None = ServerVad()
    input_audio_noise_reduction: NoiseReduction | None = None
    """What is taken out of the audio before it comes to the buffer."""
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: ToolChoice = "auto"
    temperature: float = 0.8
    max_output_tokens: int | None = None
    """None is the protocol's ``"inf"``."""
    speed: float = 1.0
    include: tuple[Include, ...] | None = None
    tracing: Tracing | None = None
    """Kept and shown; this server traces nothing."""
    truncation: Truncation = "auto"
    parallel_tool_calls: bool | None = None
    """False: a response calls one function at most. None leaves it to the model, as true does."""
    reasoning: ReasoningEffort | None = None
    """None leaves it to the model."""
    prompt: PromptReference | None = None
    """Kept and shown; what it says has become part of the other settings."""


class SessionPatch(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a ``session.update``; merged shallowly, by top-level key."""

    model: str | UnsetType = UNSET
    modalities: tuple[Modality, ...] | UnsetType = UNSET
    instructions: str | UnsetType | None = UNSET
    """None: those that the session began with."""
    voice: Voice | UnsetType = UNSET
    input_audio_format: AudioFormatName | UnsetType = UNSET
    output_audio_format: AudioFormatName | UnsetType = UNSET
    input_audio_transcription: Transcription | UnsetType | None = UNSET
    turn_detection: TurnDetection | UnsetType | None = UNSET
    input_audio_noise_reduction: NoiseReduction | UnsetType | None = UNSET
    tools: tuple[FunctionTool, ...] | UnsetType = UNSET
    tool_choice: ToolChoice | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    max_output_tokens: int | UnsetType | None = UNSET
    speed: float | UnsetType = UNSET
    include: tuple[Include, ...] | UnsetType | None = UNSET
    tracing: Tracing | UnsetType | None = UNSET
    truncation: Truncation | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    reasoning: ReasoningEffort | UnsetType | None = UNSET
    prompt: PromptReference | UnsetType | None = UNSET


class ResponseOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``response.create`` may override, for one response."""

    modalities: tuple[Modality, ...] | UnsetType = UNSET
    instructions: str | UnsetType = UNSET
    voice: Voice | UnsetType = UNSET
    output_audio_format: AudioFormatName | UnsetType = UNSET
    tools: tuple[FunctionTool, ...] | UnsetType = UNSET
    tool_choice: ToolChoice | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    max_output_tokens: int | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    reasoning: ReasoningEffort | UnsetType | None = UNSET
    prompt: PromptReference | UnsetType | None = UNSET
    """Null is as good as none: that of the session remains."""
    conversation: Literal["auto", "none"] = "auto"
    metadata: Mapping[str, str] | None = None
    input: tuple[ContextItem, ...] | None = None
    """The context instead of the default conversation; None when the client sent no ``input``."""
    input_paths: tuple[str, ...] = ()
    """Where each item of ``input`` stands in the client's event, for errors; empty: at ``response.input[i]``."""
    append: tuple[Item, ...] = ()
    """An Azure alpha field: items that join the conversation first; out of band they are of this context only."""
    cancel_previous: bool = False
    """An Azure alpha field: cancel the running response first (protocol section 8, row 8)."""

    @property
    def placed_input(self) -> list[tuple[ContextItem, str]]:
        """The items of ``input``, each with its place."""
        given = self.input or ()
        paths = self.input_paths or [f"response.input[{i}]" for i in range(len(given))]
        return list(zip(given, paths, strict=True))

    @property
    def placed_append(self) -> list[tuple[Item, str]]:
        """The items of ``append``, each with its place."""
        return [(item, f"response.append_input_items[{i}]") for i, item in enumerate(self.append)]
