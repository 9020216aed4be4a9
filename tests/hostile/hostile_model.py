"""A small model of one session: what a client does and an engine makes -> every frame that the server must send.

It is written from the protocol, in JSON and numbers, and shares no code with the server: no types, no state
machine, no arithmetic. Where the two disagree, one of them is wrong.

Laws
----
1. Each method returns the whole frames that must come, in order, without ``event_id``; a stand-in of
   :mod:`hostile_matching` is where the server chooses.
2. A client event that is refused is answered by one ``error`` and changes nothing.
3. Times are ticks of 1/24000 s on the clock of all audio ever appended.
"""

from __future__ import annotations

import base64
import binascii
import copy
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from hostile_matching import Frame, Limits, Naming, Ref, Sound, UnixTime, Usage, Whole

TICKS_MS: Final = 24
FRAME: Final = 32 * TICKS_MS
USER_TOKEN: Final = 100 * TICKS_MS
MODEL_TOKEN: Final = 50 * TICKS_MS
OUT_OF_BAND: Final = 16
BYTE_TICKS: Final = {"pcm16": (1, 2), "g711_ulaw": (3, 1), "g711_alaw": (3, 1)}
"""Ticks for so many bytes."""

FORMAT_NAMES: Final = {
    "pcm16": "mono PCM16 at 24kHz",
    "g711_ulaw": "G.711 u-law at 8kHz",
    "g711_alaw": "G.711 A-law at 8kHz",
}
ZERO_BYTES: Final = {"pcm16": 0.0, "g711_ulaw": 32124 / 32768, "g711_alaw": 5504 / 32768}
"""Of full scale: what bytes of zero sound like."""

Span: TypeAlias = tuple[int, int]
"""At least, and at most."""


@dataclass(frozen=True)
class Edition:
    """What differs between the profiles (protocol section 8)."""

    name: str
    limits_at: str
    shows_create: bool
    knows_interrupt: bool
    shows_interrupt: bool
    describes: bool
    extras: bool
    early: frozenset[str] = frozenset()
    """Codes that it did not have yet."""

    @property
    def cancels_by_id(self) -> bool:
        return self.knows_interrupt


_ACTIVE: Final = "conversation_already_has_active_response"
EARLY_TEXTS: Final = {
    "input_audio_buffer_commit_empty": "Error committing input audio buffer: the buffer is empty.",
    _ACTIVE: "Conversation already has an active response",
}
"""How errors were told before they had codes."""
EDITIONS: Final = {
    one.name: one
    for one in (
        Edition("azure-2024-10-01", "done", False, False, False, False, False, frozenset(EARLY_TEXTS)),
        Edition("azure-2024-12-17", "created", True, True, False, True, False, frozenset({_ACTIVE})),
        Edition("azure-2025-04", "created", True, True, True, True, True),
    )
}


class Refused(Exception):
    """A client event that must be answered by an ``error``."""

    def __init__(self, code: str, message: str | Naming, param: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.param = param


@dataclass(eq=False)
class Item:
    """An item of the conversation."""

    id: Ref
    wire: dict[str, Any]
    audio: Span = (0, 0)
    """Tokens that its audio counts for, as input."""
    call_id: Ref | None = None
    spoken_ms: int = 0
    """Assistant audio that the conversation holds."""
    truncated: bool = False
    sounds: dict[int, tuple[str, Span]] = field(default_factory=dict)
    """What the client sent of sound: format and ticks, by content index."""

    @property
    def spoken(self) -> bool:
        return self.truncated or self.spoken_ms > 0


@dataclass(eq=False)
class Open:
    """The item that a response is producing."""

    item: Item
    index: int
    call: bool
    text: str = ""
    ticks: int = 0


@dataclass(eq=False)
class Run:
    """A response under way."""

    id: Ref
    number: int
    """As they were created in this session, from 1."""
    in_band: bool
    plan: dict[str, Any]
    metadata: dict[str, str] | None
    audio_in: Span
    done: list[dict[str, Any]] = field(default_factory=list)
    open: Open | None = None
    ticks: int = 0

    @property
    def speaks(self) -> bool:
        return "audio" in self.plan["modalities"]

    @property
    def limit(self) -> int | None:
        limit = self.plan["max_output_tokens"]
        return None if limit == "inf" else limit


@dataclass
class Speech:
    """A turn of the user under way."""

    id: Ref
    start: int
    silent_from: int | None = None
    announced: bool = True


def ticks_of(size: int, fmt: str) -> int:
    ticks, size_of = BYTE_TICKS[fmt]
    return size * ticks // size_of


def bytes_of(ticks: int, fmt: str) -> int:
    per, size = BYTE_TICKS[fmt]
    return ticks * size // per


class Model:
    """One session of ``edition``."""

    def __init__(self, edition: Edition, *, model: str, instructions: str, limits: Limits) -> None:
        self.edition = edition
        self.limits = limits
        self.session_id = Ref("sess")
        self.conversation_id = Ref("conv")
        self.config: dict[str, Any] = {
            "modalities": ["audio", "text"],
            "instructions": instructions,
            "voice": "alloy",
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 200,
                "create_response": True,
                "interrupt_response": True,
            },
            "input_audio_format": "pcm16",
            "output_audio_format": "pcm16",
            "input_audio_transcription": None,
            "tool_choice": "auto",
            "temperature": 0.8,
            "max_response_output_tokens": "inf",
            "tools": [],
            "speed": 1.0,
        }
        self.model = model
        self.items: list[Item] = []
        self.default: Run | None = None
        self.apart: list[Run] = []
        self.created = 0
        self.owed = False
        self.unheard: list[Item] = []
        """Items whose words the client waits for, oldest first."""
        self.clock = 0
        self.uncommitted = 0
        self.chunks: list[tuple[int, int]] = []
        self.exact = True
        """Nothing but pcm16 was appended, so that ticks are samples."""
        self.speech: Speech | None = None
        self._vad_waits: list[tuple[int, float]] | None = None
        """Ticks and amplitudes that fill no frame yet; None where the stream begins anew."""
        self._vad_end = 0

    # ------------------------------------------------------------------------------------------- session

    def greeting(self, *, conversation_created: bool = True) -> list[Frame]:
        frames: list[Frame] = [{"type": "session.created", "session": self._session()}]
        if conversation_created:
            conversation = {"id": self.conversation_id, "object": "realtime.conversation"}
            frames.append({"type": "conversation.created", "conversation": conversation})
        return frames

    def _session(self) -> dict[str, Any]:
        config = copy.deepcopy(self.config)
        speed = config.pop("speed")
        vad = config["turn_detection"]
        if vad is not None:
            if vad["create_response"] and not self.edition.shows_create:
                del vad["create_response"]
            if vad["interrupt_response"] and not self.edition.shows_interrupt:
                del vad["interrupt_response"]
        words = config["input_audio_transcription"]
        if words is not None:
            for key in ("language", "prompt"):
                if words[key] is None and not self.edition.extras:
                    del words[key]
        if self.edition.extras:
            nothing = ("input_audio_noise_reduction", "include", "client_secret", "tracing")
            config |= {"speed": speed, **dict.fromkeys(nothing)}
        return config | {
            "id": self.session_id,
            "object": "realtime.session",
            "model": self.model,
            "expires_at": UnixTime(),
        }

    @property
    def detects(self) -> bool:
        return self.config["turn_detection"] is not None

    @property
    def format(self) -> str:
        fmt: str = self.config["input_audio_format"]
        return fmt

    # ------------------------------------------------------------------------------------- client events

    def client(self, event: dict[str, Any]) -> list[Frame]:
        """A client event whose form is right, in any state."""
        try:
            match event["type"]:
                case "session.update":
                    frames = self._update(event["session"])
                case "input_audio_buffer.append":
                    frames = self._append(event["audio"])
                case "input_audio_buffer.commit":
                    frames = self._commit()
                case "input_audio_buffer.clear":
                    frames = self._clear()
                case "conversation.item.create":
                    frames = self._item_create(event["item"], event.get("previous_item_id"))
                case "conversation.item.delete":
                    frames = self._item_delete(event["item_id"])
                case "conversation.item.retrieve":
                    frames = self._item_retrieve(event["item_id"])
                case "conversation.item.truncate":
                    frames = self._item_truncate(event["item_id"], event["content_index"], event["audio_end_ms"])
                case "response.create":
                    frames = self._response_create(event.get("response") or {})
                case kind:
                    assert kind == "response.cancel"
                    frames = self._response_cancel(event.get("response_id"))
        except Refused as refused:
            if refused.code in self.edition.early:
                return [error(None, EARLY_TEXTS[refused.code], None, event.get("event_id"))]
            return [error(refused.code, refused.message, refused.param, event.get("event_id"))]
        return frames + self._pay()

    def _update(self, session: dict[str, Any]) -> list[Frame]:
        if session.get("model", self.model) != self.model:
            message = "Cannot update a session's model after it was created."
            raise Refused("invalid_value", message, "session.model")
        if session.get("input_audio_noise_reduction") is not None:
            at = "session.input_audio_noise_reduction"
            raise Refused("invalid_value", f"This server has no noise reduction: '{at}' can only be null.", at)
        merged = copy.deepcopy(self.config)
        for key, value in session.items():
            if key == "turn_detection" and value is not None:
                merged[key] = None if value["type"] == "none" else self._turn_detection(value)
            elif key == "input_audio_transcription" and value is not None:
                merged[key] = {"model": "whisper-1", "language": None, "prompt": None, **value}
            elif key == "tools":
                merged[key] = tools(value)
            elif key == "tool_choice":
                merged[key] = tool_choice(value)
            elif key in self.config:
                merged[key] = copy.deepcopy(value)
        self._check_tools(merged["tool_choice"], merged["tools"], "session")
        self._check_voice(merged["voice"], "session")
        detected = self.detects
        self.config = merged
        vad = merged["turn_detection"]
        self.owed = self.owed and vad is not None and vad["create_response"]
        if detected and not self.detects:
            self.speech = None
            self._vad_waits = None
        return [{"type": "session.updated", "session": self._session()}]

    def _turn_detection(self, given: dict[str, Any]) -> dict[str, Any]:
        defaults = {
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 500,
            "create_response": True,
            "interrupt_response": True,
        }
        return {"type": "server_vad", **defaults, **given}

    def _check_tools(self, choice: Any, known: list[Any], where: str) -> None:
        if isinstance(choice, dict) and choice["name"] not in [tool["name"] for tool in known]:
            message = f"Tool choice '{choice['name']}' not found in 'tools' parameter."
            raise Refused("invalid_value", message, f"{where}.tool_choice")

    def _check_voice(self, voice: str, where: str) -> None:
        if voice != self.config["voice"]:
            self._catch_up()
            if any(item.spoken for item in self.items):
                message = "Cannot update a conversation's voice if assistant audio is present."
                raise Refused("cannot_update_voice", message, f"{where}.voice")

    def _catch_up(self) -> None:
        """The item under way counts with the sound that was sent."""
        run = self.default
        if run is not None and run.open is not None and not run.open.item.truncated:
            run.open.item.spoken_ms = run.open.ticks // TICKS_MS

    # ----------------------------------------------------------------------------------- audio and turns

    def _append(self, audio: str) -> list[Frame]:
        size = self._sound_size(audio, "audio")
        if not size:
            raise Refused("invalid_value", f"{self._wanted('audio')} empty bytes.", "audio")
        return self.sound(size, ZERO_BYTES[self.format])

    def sound(self, size: int, amplitude: float) -> list[Frame]:
        """``size`` bytes of one amplitude, in one append."""
        ticks = ticks_of(size, self.format)
        start = self.clock
        self.clock += ticks
        self.chunks.append((start, self.clock))
        self.exact = self.exact and self.format == "pcm16"
        frames: list[Frame] = []
        if self.detects:
            for end, probability in self._judge(start, ticks, amplitude):
                frames += self._heard_frame(end, probability)
        return frames

    def margin(self, size: int, amplitude: float) -> float:
        """How far the frames that end in such a sound would be from the thresholds."""
        waits, end = self._vad_waits, self._vad_end
        judged = self._judge(self.clock, ticks_of(size, self.format), amplitude)
        self._vad_waits, self._vad_end = waits, end
        threshold = self.config["turn_detection"]["threshold"]
        if not threshold:
            return 1.0
        limits = (threshold, leaves(threshold))
        return min((abs(probability - limit) for _, probability in judged for limit in limits), default=1.0)

    def _judge(self, start: int, ticks: int, amplitude: float) -> list[tuple[int, float]]:
        """Frames of 32 ms on the grid of the clock; silence where a stream begins within one."""
        if self._vad_waits is None:
            head = start % FRAME
            self._vad_waits, self._vad_end = [(head, 0.0)], start - head + FRAME
        waits = [*self._vad_waits, (ticks, amplitude)]
        judged = []
        while sum(length for length, _ in waits) >= FRAME:
            missing, total = FRAME, 0.0
            while missing:
                length, level = waits.pop(0)
                taken = min(length, missing)
                total += taken * level
                missing -= taken
                if taken < length:
                    waits.insert(0, (length - taken, level))
            judged.append((self._vad_end, total / FRAME))
            self._vad_end += FRAME
        self._vad_waits = waits
        return judged

    def _heard_frame(self, end: int, probability: float) -> list[Frame]:
        vad = self.config["turn_detection"]
        if self.speech is None and end <= self.uncommitted:
            return []
        threshold = vad["threshold"]
        leave = leaves(threshold)
        frames: list[Frame] = []
        if self.speech is None:
            if probability >= threshold:
                frames = self._speech_starts(end, vad)
        elif self.speech.silent_from is not None and probability >= threshold:
            self.speech.silent_from = None
        elif self.speech.silent_from is not None or probability < leave:
            if self.speech.silent_from is None:
                self.speech.silent_from = end - FRAME
            if end - self.speech.silent_from >= vad["silence_duration_ms"] * TICKS_MS:
                frames = self._speech_stops(end, vad)
        if self.speech is None:
            self._forget(end - vad["prefix_padding_ms"] * TICKS_MS)
        return frames + self._pay()

    def _speech_starts(self, end: int, vad: dict[str, Any]) -> list[Frame]:
        start = max(0, end - FRAME - vad["prefix_padding_ms"] * TICKS_MS, self._kept_from())
        self.speech = Speech(Ref("item"), start)
        frames: list[Frame] = [
            {
                "type": "input_audio_buffer.speech_started",
                "audio_start_ms": start // TICKS_MS,
                "item_id": self.speech.id,
            }
        ]
        if vad["interrupt_response"] and self.default is not None:
            self.owed = False
            frames += self._end(self.default, "cancelled", {"type": "cancelled", "reason": "turn_detected"})
        return frames

    def _speech_stops(self, end: int, vad: dict[str, Any]) -> list[Frame]:
        speech = self.speech
        assert speech is not None
        self.speech = None
        frames: list[Frame] = [
            {
                "type": "input_audio_buffer.speech_stopped",
                "audio_end_ms": end // TICKS_MS,
                "item_id": speech.id,
            }
        ]
        if end > speech.start:
            frames += self._committed(speech.id, speech.start, end)
            self.uncommitted = max(self.uncommitted, end)
            self.owed = self.owed or vad["create_response"]
        return frames

    def _kept_from(self) -> int:
        return self.chunks[0][0] if self.chunks else self.clock

    def _forget(self, before: int) -> None:
        while self.chunks and self.chunks[0][1] <= before:
            del self.chunks[0]

    def _commit(self) -> list[Frame]:
        speech = self.speech
        start = max(self.uncommitted, self._kept_from()) if speech is None else speech.start
        length = self.clock - start
        if length < 100 * TICKS_MS:
            raise Refused(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
                f"but buffer only has {length / TICKS_MS:.2f}ms of audio.",
            )
        frames = self._committed(speech.id if speech else Ref("item"), start, self.clock)
        self.uncommitted = self.clock
        if speech is not None:
            speech.id, speech.start, speech.announced = Ref("item"), self.clock, False
        elif not self.detects:
            self._forget(self.clock)
        return frames

    def _clear(self) -> list[Frame]:
        self.speech = None
        self.chunks = []
        self.uncommitted = self.clock
        self._vad_waits = None
        return [{"type": "input_audio_buffer.cleared"}]

    def _committed(self, item_id: Ref, start: int, end: int) -> list[Frame]:
        held = sum(max(0, min(end, last) - max(start, first)) for first, last in self.chunks)
        # A G.711 sample is three ticks, and a cut may fall into one.
        slack = 0 if self.exact else 3 * len(self.chunks)
        audio = (max(0, held - slack) // USER_TOKEN, (held + slack) // USER_TOKEN)
        item = Item(item_id, message(item_id, "user", [{"type": "input_audio", "transcript": None}]), audio)
        item.sounds = {0: ("pcm16" if self.exact else "", (max(0, held - slack), held + slack))}
        previous = self.items[-1].id if self.items else None
        if self.config["input_audio_transcription"] is not None:
            self.unheard.append(item)
        return [
            {"type": "input_audio_buffer.committed", "previous_item_id": previous, "item_id": item_id},
            self._added(item, len(self.items)),
        ]

    def heard(self, item: Item, words: str) -> list[Frame]:
        """The recogniser has the words of an item that waits for them."""
        self.unheard.remove(item)
        item.wire = item.wire | {"content": [{"type": "input_audio", "transcript": words}]}
        at = {"item_id": item.id, "content_index": 0}
        kind = "conversation.item.input_audio_transcription"
        completed: Frame = {"type": f"{kind}.completed", **at, "transcript": words}
        if not self.edition.extras:
            return [completed]
        _, (least, most) = item.sounds[0]
        seconds = Whole(-(-least // (1000 * TICKS_MS)), -(-most // (1000 * TICKS_MS)))
        completed["usage"] = {"type": "duration", "seconds": seconds}
        return [{"type": f"{kind}.delta", **at, "delta": words}] * bool(words) + [completed]

    def unheard_for(self, item: Item, code: str) -> list[Frame]:
        """The recogniser failed."""
        self.unheard.remove(item)
        return [
            {
                "type": "conversation.item.input_audio_transcription.failed",
                "item_id": item.id,
                "content_index": 0,
                "error": {
                    "type": "server_error",
                    "code": code,
                    "message": f"Input transcription failed for item '{item.id.value}'.",
                    "param": None,
                },
            }
        ]

    # -------------------------------------------------------------------------------------- conversation

    def find(self, item_id: str) -> Item | None:
        return next((item for item in self.items if item.id.value == item_id), None)

    def _added(self, item: Item, at: int) -> Frame:
        previous = self.items[at - 1].id if at else None
        self.items.insert(at, item)
        return {"type": "conversation.item.created", "previous_item_id": previous, "item": dict(item.wire)}

    def _item_create(self, given: dict[str, Any], previous: str | None) -> list[Frame]:
        self._check_sound(given, "item")
        at = len(self.items)
        if previous is not None:
            before = self.find(previous)
            if before is not None:
                at = self.items.index(before) + 1
            elif previous == "root":
                at = 0
            else:
                message_ = f"Error adding item: the previous item with id '{previous}' does not exist."
                raise Refused("item_create_invalid_previous_item_id", message_, "previous_item_id")
        item_id = given.get("id")
        if item_id is not None and self._taken(item_id):
            message_ = f"Error adding item: an item with id '{item_id}' already exists."
            raise Refused("item_create_duplicate_item_id", message_, "item.id")
        return [self._added(self._item(given, "item", frozenset()), at)]

    def _taken(self, item_id: str) -> bool:
        announced = self.speech is not None and self.speech.id.value == item_id
        run = self.default
        produced = run is not None and run.open is not None and run.open.item.id.value == item_id
        return announced or produced or self.find(item_id) is not None

    def _item(self, given: dict[str, Any], where: str, calls: frozenset[str | None]) -> Item:
        """A client's item, checked; ``calls``: what may be answered beside the calls of the conversation."""
        item_id = Ref("item", given.get("id"))
        match given["type"]:
            case "message":
                content, sounds = self._content(given)
                audio = sum(ticks // USER_TOKEN for _, (ticks, _) in sounds.values())
                return Item(item_id, message(item_id, given["role"], content), (audio, audio), sounds=sounds)
            case "function_call":
                call_id = Ref("call", given.get("call_id"))
                wire = {"name": given["name"], "call_id": call_id, "arguments": given["arguments"]}
                return Item(item_id, _item("function_call", item_id, "completed") | wire, call_id=call_id)
            case kind:
                known = {item.call_id.value for item in self.items if item.call_id is not None}
                if given["call_id"] not in known | calls:
                    message_ = f"Tool call ID '{given['call_id']}' not found in conversation."
                    raise Refused("invalid_tool_call_id", message_, f"{where}.call_id")
                wire = {"call_id": given["call_id"], "output": given["output"]}
                return Item(item_id, _item(kind, item_id, "completed") | wire)

    def _check_sound(self, given: dict[str, Any], where: str) -> None:
        """Values are looked at before anything that depends on what was before."""
        for i, part in enumerate(given.get("content", [])):
            if "audio" in part:
                param = f"{where}.content[{i}].audio"
                if self._sound_size(part["audio"], param) == 0 and part.get("transcript") is None:
                    raise Refused("invalid_value", f"{self._wanted(param)} empty bytes.", param)

    def _wanted(self, param: str) -> str:
        expected = f"base64-encoded audio bytes ({FORMAT_NAMES[self.format]})"
        return f"Invalid '{param}'. Expected {expected} but got"

    def _sound_size(self, audio: str, param: str) -> int:
        try:
            size = len(base64.b64decode(audio, validate=True))
        except (binascii.Error, ValueError):
            size = -1
        if size < 0 or (self.format == "pcm16" and size % 2):
            raise Refused("invalid_value", f"{self._wanted(param)} an invalid value.", param)
        return size

    def _content(self, given: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[int, tuple[str, Span]]]:
        content = []
        sounds: dict[int, tuple[str, Span]] = {}
        for i, part in enumerate(given["content"]):
            if part["type"] != "input_audio":
                content.append({"type": part["type"], "text": part["text"]})
                continue
            content.append({"type": "input_audio", "transcript": part.get("transcript")})
            if part.get("audio"):
                ticks = ticks_of(self._sound_size(part["audio"], ""), self.format)
                sounds[i] = (self.format, (ticks, ticks))
        return content, sounds

    def _item_delete(self, item_id: str) -> list[Frame]:
        item = self.find(item_id)
        if item is None:
            message_ = f"Error deleting item: the item with id '{item_id}' does not exist."
            raise Refused("item_delete_invalid_item_id", message_)
        self.items.remove(item)
        if item in self.unheard:
            self.unheard.remove(item)
        return [{"type": "conversation.item.deleted", "item_id": item_id}]

    def _item_retrieve(self, item_id: str) -> list[Frame]:
        self._catch_up()
        item = self.find(item_id)
        if item is None:
            message_ = f"Error retrieving item: the item with id '{item_id}' does not exist."
            raise Refused("item_retrieve_invalid_item_id", message_)
        wire = dict(item.wire)
        opened = self.default.open if self.default is not None else None
        if opened is not None and opened.item is item and self.default is not None:
            if opened.call:
                wire["arguments"] = opened.text
            else:
                kind, key = ("audio", "transcript") if self.default.speaks else ("text", "text")
                wire["content"] = [{"type": kind, key: opened.text}]
        if item.truncated:
            wire["content"] = [{"type": "audio", "transcript": None}]
        if "content" in wire:
            wire["content"] = [dict(part) for part in wire["content"]]
        for i, (fmt, (ticks, _)) in item.sounds.items():
            same = fmt == self.format
            wire["content"][i]["audio"] = Sound(bytes_of(ticks, fmt) if same else None)
        return [{"type": "conversation.item.retrieved", "item": wire}]

    def _item_truncate(self, item_id: str, content_index: int, end_ms: int) -> list[Frame]:
        self._catch_up()
        item = self.find(item_id)
        if item is None:
            message_ = f"Error truncating item: the item with id '{item_id}' does not exist."
            raise Refused("item_truncate_invalid_item_id", message_)
        if not item.spoken or content_index:
            raise Refused("unsupported_content_type", "Only model output audio messages can be truncated")
        if end_ms > item.spoken_ms:
            message_ = f"Audio content of {item.spoken_ms}ms is already shorter than {end_ms}ms"
            raise Refused("invalid_value", message_)
        item.spoken_ms, item.truncated, item.audio = end_ms, True, (end_ms // 50, end_ms // 50)
        return [
            {
                "type": "conversation.item.truncated",
                "item_id": item_id,
                "content_index": content_index,
                "audio_end_ms": end_ms,
            }
        ]

    # ----------------------------------------------------------------------------------------- responses

    def _response_create(self, given: dict[str, Any]) -> list[Frame]:
        in_band = given.get("conversation") != "none" and given.get("commit") is not False
        replaces = given.get("cancel_previous") is True
        for i, one in enumerate(given.get("input", [])):
            self._check_sound(one, f"response.input[{i}]")
        if in_band and self.default is not None and not replaces:
            raise Refused(
                "conversation_already_has_active_response",
                Naming(
                    "Conversation already has an active response in progress: ",
                    self.default.id,
                    ". Wait until the response is finished before creating a new one.",
                ),
            )
        if not in_band and len(self.apart) >= OUT_OF_BAND:
            raise Refused(
                "too_many_active_responses",
                f"This session already has {OUT_OF_BAND} out-of-band responses in progress. "
                "Wait until one is finished.",
            )
        if in_band:
            self._check_voice(given.get("voice", self.config["voice"]), "response")
        known = tools(given["tools"]) if "tools" in given else self.config["tools"]
        choice = tool_choice(given.get("tool_choice", self.config["tool_choice"]))
        self._check_tools(choice, known, "response")
        context = self._context(given["input"]) if "input" in given else None
        frames: list[Frame] = []
        if replaces and self.default is not None:
            frames = self._end(self.default, "cancelled", {"type": "cancelled", "reason": "client_cancelled"})
        if in_band:
            self.owed = False
            return frames + self._start(given, in_band, context)
        # Out of band nothing waits: what is left of the quota is told when everything else is.
        told = [frame for frame in frames if frame["type"] == "rate_limits.updated"]
        created, *rest = self._start(given, in_band, context)
        return [*frames[: len(frames) - len(told)], created, *told, *rest]

    def _context(self, given: list[dict[str, Any]]) -> list[Item]:
        context: list[Item] = []
        for i, one in enumerate(given):
            where = f"response.input[{i}]"
            if one["type"] == "item_reference" or (one["type"] == "message" and "role" not in one):
                item = self.find(one["id"])
                if item is None:
                    message_ = f"Item with id '{one['id']}' not found in conversation."
                    raise Refused("invalid_value", message_, f"{where}.id")
            else:
                calls = frozenset(item.call_id.value for item in context if item.call_id is not None)
                item = self._item(one, where, calls)
            context.append(item)
        return context

    def _pay(self) -> list[Frame]:
        """A turn of the user that waits for its response gets it when none runs."""
        if not self.owed or self.default is not None:
            return []
        self.owed = False
        return self._start({}, True, None)

    def _start(self, given: dict[str, Any], in_band: bool, context: list[Item] | None) -> list[Frame]:
        config = self.config
        self.created += 1
        plan = {
            key: given.get(key, config[key])
            for key in ("modalities", "voice", "output_audio_format", "temperature")
        }
        plan["max_output_tokens"] = given.get("max_output_tokens", config["max_response_output_tokens"])
        considered = self.items if context is None else context
        run = Run(
            id=Ref("resp"),
            number=self.created,
            in_band=in_band,
            plan=plan,
            metadata=given.get("metadata"),
            audio_in=(sum(self._counts(i)[0] for i in considered), sum(self._counts(i)[1] for i in considered)),
        )
        if in_band:
            self.default = run
        else:
            self.apart.append(run)
        frames: list[Frame] = [
            {"type": "response.created", "response": self._response(run, "in_progress", None, None)}
        ]
        return frames + self._tell_limits("created")

    def _counts(self, item: Item) -> Span:
        """Tokens of an item's audio; of one that is being produced, up to what was sent of it."""
        run = self.default
        if run is not None and run.open is not None and run.open.item is item and not item.truncated:
            return (0, run.open.ticks // MODEL_TOKEN)
        return item.audio

    def _response(self, run: Run, status: str, details: Any, usage: Any) -> dict[str, Any]:
        body = {
            "object": "realtime.response",
            "id": run.id,
            "status": status,
            "status_details": details,
            "output": [dict(item) for item in run.done],
            "usage": usage,
        }
        if self.edition.describes:
            body |= run.plan
            body |= {"conversation_id": self.conversation_id if run.in_band else None, "metadata": run.metadata}
        elif run.metadata is not None:
            body["metadata"] = run.metadata
        return body

    def _tell_limits(self, at: str) -> list[Frame]:
        return [{"type": "rate_limits.updated", "rate_limits": self.limits}] * (at == self.edition.limits_at)

    def _response_cancel(self, response_id: str | None) -> list[Frame]:
        run = self.default if response_id is None else self.run(response_id)
        if run is None:
            raise Refused("response_cancel_not_active", "Cancellation failed: no active response found")
        return self._end(run, "cancelled", {"type": "cancelled", "reason": "client_cancelled"})

    @property
    def runs(self) -> list[Run]:
        return [*([self.default] if self.default else []), *self.apart]

    def run(self, response_id: str) -> Run | None:
        return next((run for run in self.runs if run.id.value == response_id), None)

    # ------------------------------------------------------------------------------ what a model produces

    def says(self, run: Run, text: str) -> list[Frame]:
        frames = self._message(run)
        assert run.open is not None
        run.open.text += text
        kind = "response.audio_transcript.delta" if run.speaks else "response.text.delta"
        return [*frames, {"type": kind, **self._at(run), "delta": text}]

    def sounds(self, run: Run, ms: int) -> list[Frame]:
        """Sound of a response that speaks; with a limit, up to the last tick before the next token."""
        if not run.speaks:
            fault = {
                "type": "server_error",
                "code": "invalid_engine_output",
                "message": "Audio in a response of text.",
            }
            return self.fails(run, fault)
        ticks = ms * TICKS_MS
        cut = False
        if run.limit is not None:
            room = (run.limit + 1) * MODEL_TOKEN - 1 - run.ticks
            cut = ticks > room
            # Whole samples: of G.711, three ticks each.
            ticks = min(ticks, room - room % BYTE_TICKS[run.plan["output_audio_format"]][0])
        frames: list[Frame] = []
        if ticks:
            frames = self._message(run)
            assert run.open is not None
            run.open.ticks += ticks
            run.ticks += ticks
            size = bytes_of(ticks, run.plan["output_audio_format"])
            frames.append({"type": "response.audio.delta", **self._at(run), "delta": Sound(size)})
        if cut:
            frames += self._end(run, "incomplete", {"type": "incomplete", "reason": "max_output_tokens"})
            frames += self._pay()
        return frames

    def calls(self, run: Run, name: str) -> list[Frame]:
        frames = self._close(run, "completed")
        item_id, call_id = Ref("item"), Ref("call")
        wire = _item("function_call", item_id, "in_progress") | {"name": name, "call_id": call_id, "arguments": ""}
        return frames + self._open(run, Item(item_id, wire, call_id=call_id), call=True)

    def argues(self, run: Run, text: str) -> list[Frame]:
        if run.open is None or not run.open.call:
            fault = {
                "type": "server_error",
                "code": "invalid_engine_output",
                "message": "Arguments without a function call.",
            }
            return self.fails(run, fault)
        run.open.text += text
        at = self._at(run)
        del at["content_index"]
        return [
            {
                "type": "response.function_call_arguments.delta",
                **at,
                "call_id": run.open.item.call_id,
                "delta": text,
            }
        ]

    def finishes(self, run: Run, reason: str) -> list[Frame]:
        if reason == "stop":
            return self._end(run, "completed", None) + self._pay()
        return self._end(run, "incomplete", {"type": "incomplete", "reason": reason}) + self._pay()

    def fails(self, run: Run, fault: dict[str, Any]) -> list[Frame]:
        return self._end(run, "failed", {"type": "failed", "error": fault}) + self._pay()

    def _message(self, run: Run) -> list[Frame]:
        if run.open is not None and not run.open.call:
            return []
        frames = self._close(run, "completed")
        item_id = Ref("item")
        item = Item(item_id, message(item_id, "assistant", [], "in_progress"))
        frames += self._open(run, item, call=False)
        part = {"type": "audio", "transcript": ""} if run.speaks else {"type": "text", "text": ""}
        return [*frames, {"type": "response.content_part.added", **self._at(run), "part": part}]

    def _open(self, run: Run, item: Item, *, call: bool) -> list[Frame]:
        run.open = Open(item, len(run.done), call)
        frames: list[Frame] = [
            {
                "type": "response.output_item.added",
                "response_id": run.id,
                "output_index": run.open.index,
                "item": dict(item.wire),
            }
        ]
        if run.in_band:
            frames.append(self._added(item, len(self.items)))
        return frames

    def _at(self, run: Run) -> dict[str, Any]:
        assert run.open is not None
        return {
            "response_id": run.id,
            "item_id": run.open.item.id,
            "output_index": run.open.index,
            "content_index": 0,
        }

    def _close(self, run: Run, status: str) -> list[Frame]:
        """Close what is open, from the inside out."""
        opened = run.open
        if opened is None:
            return []
        at = self._at(run)
        item = opened.item
        frames: list[Frame] = []
        if opened.call:
            item.wire = item.wire | {"arguments": opened.text, "status": status}
            del at["content_index"]
            done = {"call_id": item.call_id, "name": item.wire["name"], "arguments": opened.text}
            frames.append({"type": "response.function_call_arguments.done", **at, **done})
        else:
            part: dict[str, Any]
            if run.speaks:
                part = {"type": "audio", "transcript": opened.text}
                frames.append({"type": "response.audio.done", **at})
                frames.append({"type": "response.audio_transcript.done", **at, "transcript": opened.text})
            else:
                part = {"type": "text", "text": opened.text}
                frames.append({"type": "response.text.done", **at, "text": opened.text})
            frames.append({"type": "response.content_part.done", **at, "part": part})
            item.wire = item.wire | {"status": status, "content": [part]}
        frames.append(
            {
                "type": "response.output_item.done",
                "response_id": run.id,
                "output_index": opened.index,
                "item": dict(item.wire),
            }
        )
        run.done.append(item.wire)
        if not item.truncated:
            item.spoken_ms = opened.ticks // TICKS_MS
            item.audio = (opened.ticks // MODEL_TOKEN,) * 2
        run.open = None
        return frames

    def _end(self, run: Run, status: str, details: dict[str, Any] | None) -> list[Frame]:
        untouched = status in ("cancelled", "failed") and not run.done and run.open is None
        frames = self._close(run, "completed" if status == "completed" else "incomplete")
        if run is self.default:
            self.default = None
        else:
            self.apart.remove(run)
        nothing = Usage((0, 0), 0, 0, self.edition.describes)
        counted = Usage(run.audio_in, run.ticks // MODEL_TOKEN, run.limit, self.edition.describes)
        usage = nothing if untouched else counted
        frames.append({"type": "response.done", "response": self._response(run, status, details, usage)})
        if not untouched:
            frames += self._tell_limits("done")
        return frames


def leaves(threshold: float) -> float:
    """Below this a frame is silence: a little less than the threshold."""
    return min(threshold, max(threshold - 0.15, 0.01))


def error(code: str | None, message: str | Naming, param: str | None, event_id: str | None) -> Frame:
    """An ``error`` that a client has made."""
    body = {
        "type": "invalid_request_error",
        "code": code,
        "message": message,
        "param": param,
        "event_id": event_id,
    }
    return {"type": "error", "error": body}


def _item(kind: str, item_id: Ref, status: str) -> dict[str, Any]:
    return {"id": item_id, "object": "realtime.item", "type": kind, "status": status}


def message(item_id: Ref, role: str, content: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    return _item("message", item_id, status) | {"role": role, "content": content}


def tools(given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As the server shows them: null is nothing."""
    return [{key: value for key, value in tool.items() if value is not None} for tool in given]


def tool_choice(given: Any) -> Any:
    """Three spellings of a function, of which one comes back."""
    if not isinstance(given, dict):
        return given
    function = given.get("function")
    name = given.get("name") or (function["name"] if isinstance(function, dict) else function)
    return {"type": "function", "name": name}
