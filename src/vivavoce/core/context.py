"""What a response runs on: a frozen snapshot of configuration and conversation, never live state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

from msgspec import Struct, UnsetType

from vivavoce.audio.formats import AudioFormat, Clip
from vivavoce.core.alignment import Alignment
from vivavoce.wire import session_config as sc
from vivavoce.wire.items import Item
from vivavoce.wire.session_config import FunctionTool, Modality, ToolChoice, Voice

_T = TypeVar("_T")


_NOTHING: Final[Mapping[int, Any]] = MappingProxyType({})


class _Sole(Mapping[int, _T]):
    """One value at one index. A dictionary takes five times as much, and a session has one for each turn."""

    __slots__ = ("_index", "_value")

    def __init__(self, index: int, value: _T) -> None:
        self._index, self._value = index, value

    def __getitem__(self, index: int) -> _T:
        if index != self._index:
            raise KeyError(index)
        return self._value

    def __iter__(self) -> Iterator[int]:
        yield self._index

    def __len__(self) -> int:
        return 1


def by_index(values: Mapping[int, _T]) -> Mapping[int, _T]:
    """A frozen copy of a few values, as small as it can be."""
    if len(values) == 1:
        return _Sole(*next(iter(values.items())))
    return MappingProxyType(dict(values)) if values else _NOTHING


class Entry(Struct, frozen=True, gc=False):
    """One item of a conversation with what the wire does not show. Replaced as a whole, never changed in place."""

    item: Item
    clips: Mapping[int, Clip] = _NOTHING
    """Audio that the client sent, by content index."""
    heard: Mapping[int, str] = _NOTHING
    """What the recogniser made of it, by content index."""
    listened: bool = False
    """The audio came through the input buffer, so the recogniser has heard it, or is hearing it, under this id."""
    text_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    audio_ms: int = 0
    """Milliseconds of assistant audio that the conversation holds."""
    truncated: bool = False
    alignment: Alignment | None = None
    """Of what the assistant said; None where nobody wants to know what was heard of it."""
    heard_text: str | None = None
    """The words of a truncated message that were heard, for the model; they are not in ``item`` any more."""

    @property
    def tokens(self) -> int:
        """Of all kinds."""
        return self.text_tokens + self.audio_tokens + self.image_tokens

    @property
    def has_audio(self) -> bool:
        """The assistant spoke here, also when none of it is left after a truncation to 0 ms."""
        return self.audio_ms > 0 or self.truncated


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """All that an engine may know of a response."""

    response_id: str
    session_id: str
    in_band: bool
    """Its answer becomes part of the conversation."""
    instructions: str
    context: tuple[Entry, ...]
    modalities: tuple[Modality, ...]
    voice: Voice
    output_format: AudioFormat
    tools: tuple[FunctionTool, ...]
    tool_choice: ToolChoice
    temperature: float
    max_output_tokens: int | None
    speed: float
    parallel_tool_calls: bool | None = None
    reasoning: sc.ReasoningEffort | None = None

    @property
    def speaks(self) -> bool:
        """True when messages of this response are audio with a transcript; False when they are text."""
        return "audio" in self.modalities


def plan_response(
    response_id: str,
    session_id: str,
    options: sc.ResponseOptions,
    config: sc.SessionConfig,
    context: tuple[Entry, ...],
) -> ResponsePlan:
    """What a response would run on, if it began now."""
    return ResponsePlan(
        response_id=response_id,
        session_id=session_id,
        in_band=options.conversation == "auto",
        instructions=chosen(options.instructions, config.instructions),
        context=context,
        modalities=chosen(options.modalities, config.modalities),
        voice=chosen(options.voice, config.voice),
        output_format=AudioFormat(chosen(options.output_audio_format, config.output_audio_format)),
        tools=chosen(options.tools, config.tools),
        tool_choice=chosen(options.tool_choice, config.tool_choice),
        temperature=chosen(options.temperature, config.temperature),
        max_output_tokens=chosen(options.max_output_tokens, config.max_output_tokens),
        parallel_tool_calls=chosen(options.parallel_tool_calls, config.parallel_tool_calls),
        reasoning=chosen(options.reasoning, config.reasoning),
        speed=config.speed,
    )


def chosen(value: _T | UnsetType, default: _T) -> _T:
    """What the options of a response say, or else the session."""
    return default if isinstance(value, UnsetType) else value
