"""How the two dialects of the Realtime API say what a relay has to say, and one reading of what both answer.

A client writes in its server's dialect; a reader takes the event names of both, which do not collide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec

from vivavoce.engines import base

Event: TypeAlias = dict[str, Any]
DialectName: TypeAlias = Literal["preview", "ga"]

RATE: Final = 24_000
"""Hz of pcm16 in both dialects, both ways."""

WORDS: Final = frozenset(
    {
        "response.text.delta",
        "response.audio_transcript.delta",
        "response.output_text.delta",
        "response.output_audio_transcript.delta",
    }
)
SOUND: Final = frozenset({"response.audio.delta", "response.output_audio.delta"})


class Dialect(Protocol):
    """What differs between the dialects in what a relay sends."""

    assistant_text: str
    """Type of the content part that holds words of the assistant."""
    headers: Mapping[str, str]

    def session(self) -> Event:
        """What a session must be for a relay: it takes turns when it is told to."""

    def speed(self, speed: float) -> Event: ...
    def response(self, request: base.SpeechRequest, voice: str) -> Event: ...


class _Preview:
    assistant_text = "text"
    headers: Mapping[str, str] = {"OpenAI-Beta": "realtime=v1"}

    def session(self) -> Event:
        return {"turn_detection": None, "input_audio_format": "pcm16", "output_audio_format": "pcm16"}

    def speed(self, speed: float) -> Event:
        return {"speed": speed}

    def response(self, request: base.SpeechRequest, voice: str) -> Event:
        generation = request.generation
        speaks = "audio" in generation.modalities
        asked = _response(generation) | {
            "modalities": ["text", "audio"] if speaks else ["text"],
            "temperature": generation.temperature,
        }
        return asked | {"voice": voice, "output_audio_format": "pcm16"} if speaks else asked


class _Ga:
    assistant_text = "output_text"
    headers: Mapping[str, str] = {}

    def session(self) -> Event:
        return {"type": "realtime", "audio": {"input": {"turn_detection": None}}}

    def speed(self, speed: float) -> Event:
        return {"type": "realtime", "audio": {"output": {"speed": speed}}}

    def response(self, request: base.SpeechRequest, voice: str) -> Event:
        generation = request.generation
        asked = _response(generation)
        if generation.parallel_tool_calls is not None:
            asked["parallel_tool_calls"] = generation.parallel_tool_calls
        if generation.reasoning is not None:
            asked["reasoning"] = {"effort": generation.reasoning}
        if "audio" not in generation.modalities:
            return asked | {"output_modalities": ["text"]}
        output = {"voice": voice, "format": {"type": "audio/pcm", "rate": RATE}}
        return asked | {"output_modalities": ["audio"], "audio": {"output": output}}


DIALECTS: Final[Mapping[DialectName, Dialect]] = {"preview": _Preview(), "ga": _Ga()}


def _response(generation: base.GenerationRequest) -> Event:
    choice = generation.tool_choice
    asked: Event = {
        "instructions": generation.instructions,
        "tools": [_tool(tool) for tool in generation.tools],
        "tool_choice": {"type": "function", "name": choice.name} if isinstance(choice, base.NamedTool) else choice,
    }
    if generation.max_output_tokens is not None:
        asked["max_output_tokens"] = generation.max_output_tokens
    return asked


def _tool(tool: base.Tool) -> Event:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }


# ---------------------------------------------------------------------------------------------- what is answered


class Item(msgspec.Struct, frozen=True):
    id: str | None = None
    type: str | None = None
    name: str | None = None
    call_id: str | None = None


class Error(msgspec.Struct, frozen=True):
    type: str | None = None
    code: str | None = None
    message: str | None = None
    event_id: str | None = None


class StatusDetails(msgspec.Struct, frozen=True):
    reason: str | None = None
    error: Error | None = None


class TokenDetails(msgspec.Struct, frozen=True):
    text_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    cached_tokens_details: TokenDetails | None = None


class Usage(msgspec.Struct, frozen=True):
    input_token_details: TokenDetails | None = None
    output_token_details: TokenDetails | None = None


class Response(msgspec.Struct, frozen=True):
    id: str | None = None
    status: str | None = None
    status_details: StatusDetails | None = None
    usage: Usage | None = None


class Session(msgspec.Struct, frozen=True):
    id: str | None = None
    expires_at: float | None = None


class Answer(msgspec.Struct, frozen=True):
    """Whatever a server may say, as far as it matters here."""

    type: str
    response_id: str | None = None
    item_id: str | None = None
    output_index: int | None = None
    delta: str | None = None
    item: Item | None = None
    response: Response | None = None
    session: Session | None = None
    error: Error | None = None


_DECODER: Final = msgspec.json.Decoder(Answer)


class Nonsense(Exception):
    """The upstream server says what no such server says; the text tells what, without quoting it."""


def read(frame: str) -> Answer:
    """Raises :class:`Nonsense`."""
    try:
        return _DECODER.decode(frame)
    except (msgspec.DecodeError, UnicodeError):
        raise Nonsense("a message that is no event") from None


def usage_of(usage: Usage | None) -> base.Usage | None:
    """None where the server did not count, or not in a way that adds up. Images are counted with the text."""
    taken, made = (usage.input_token_details, usage.output_token_details) if usage is not None else (None, None)
    if taken is None or made is None:
        return None
    cached = taken.cached_tokens_details or TokenDetails(text_tokens=taken.cached_tokens)
    try:
        return base.Usage(
            base.InputUsage(
                text=taken.text_tokens + taken.image_tokens,
                audio=taken.audio_tokens,
                cached_text=cached.text_tokens + cached.image_tokens,
                cached_audio=cached.audio_tokens,
            ),
            output_text=made.text_tokens,
            output_audio=made.audio_tokens,
        )
    except ValueError:
        return None


@dataclass(slots=True)
class Said:
    """One item that the upstream server made, as far as it got."""

    item_id: str
    is_call: bool
    text: str = ""
    """Words, or arguments."""
    audio_ms: float = 0.0
    half: bytes = b""
    """The first byte of a sample whose second has not come."""
    name: str = ""
    call_id: str = ""


class Output:
    """Items of one response as they are made -> deltas in their order, one item after the other.

    A server may begin an item before the last one has ended; ours are told one after the other.
    """

    def __init__(self) -> None:
        self._said: dict[str, Said] = {}
        self._held: dict[str, list[base.SpeechDelta]] = {}
        """Of items that have not ended, in their order; only the first of them is told."""
        self._ended: set[str] = set()

    @property
    def said(self) -> Sequence[Said]:
        return tuple(self._said.values())

    def added(self, item: Item | None) -> list[base.SpeechDelta]:
        """Raises :class:`Nonsense`."""
        if item is None or not item.id or item.id in self._said:
            raise Nonsense("an output item without an id of its own")
        if item.type == "function_call":
            if not item.name or not item.call_id:
                raise Nonsense("a function call without name or call_id")
            self._said[item.id] = Said(item.id, True, name=item.name, call_id=item.call_id)
            return self._tell(item.id, base.ToolCallStart(item.name))
        if item.type == "message":
            self._said[item.id] = Said(item.id, False)
            return self._tell(item.id)
        # Of tools that run at the server; a relay asks for none, and their words would be nobody's.
        return []

    def words(self, item_id: str | None, text: str | None, *, of_call: bool) -> list[base.SpeechDelta]:
        """Raises :class:`Nonsense`."""
        said = self._open(item_id)
        if text is None or said.is_call is not of_call:
            raise Nonsense("a delta that does not fit its item")
        said.text += text
        return self._tell(said.item_id, base.ToolArgumentsDelta(text) if of_call else base.TextDelta(text))

    def sound(self, item_id: str | None, pcm: bytes) -> list[base.SpeechDelta]:
        """Raises :class:`Nonsense`."""
        said = self._open(item_id)
        if said.is_call:
            raise Nonsense("sound that does not fit its item")
        # A sample may be cut in two: nobody promises that deltas hold whole ones.
        pcm = said.half + pcm
        pcm, said.half = pcm[: len(pcm) & ~1], pcm[len(pcm) & ~1 :]
        said.audio_ms += len(pcm) * 1000 / (2 * RATE)
        return self._tell(said.item_id, base.AudioDelta(pcm)) if pcm else []

    def ended(self, item_id: str | None) -> list[base.SpeechDelta]:
        """The item is complete: those that waited for it are told."""
        if item_id in self._held:
            self._ended.add(item_id)
        told: list[base.SpeechDelta] = []
        while self._held and (first := next(iter(self._held))) in self._ended:
            del self._held[first]
            for held in self._held.values():
                told += held
                held.clear()
                break
        return told

    def rest(self) -> list[base.SpeechDelta]:
        """The response is over, whatever was said of its items."""
        return [delta for held in self._held.values() for delta in held]

    def _open(self, item_id: str | None) -> Said:
        if item_id is None or item_id not in self._held or item_id in self._ended:
            raise Nonsense("a delta of an item that is not being made")
        return self._said[item_id]

    def _tell(self, item_id: str, *deltas: base.SpeechDelta) -> list[base.SpeechDelta]:
        held = self._held.setdefault(item_id, [])
        if next(iter(self._held)) == item_id:
            return list(deltas)
        held += deltas
        return []
