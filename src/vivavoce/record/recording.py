"""A recording: one connection between a client and a Realtime server, as lines of JSON.

The first line is a :class:`Header`; then comes a :class:`Frame` for each message in either direction, in the order
in which they passed, and a last line for the close (:class:`End`; missing when the recorder was killed).

Laws
----
1. No key is ever written: not those of the handshake, wherever they turn up, nor what has the form of one, nor the
   fields that carry one (:class:`Scrubber`). What people said, and the prompts, are in the file.
2. A message is kept as ``event`` when it is one JSON object and nothing is lost by reading it; else as it came.
3. The room knows JSON, not a dialect: it records events that nobody here has heard of.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TextIO, TypeAlias

import msgspec

from vivavoce.gateway.auth import HIDDEN

VERSION: Final = 1

Side: TypeAlias = Literal["client", "server"]
Event: TypeAlias = dict[str, Any]
Pairs: TypeAlias = tuple[tuple[str, str], ...]

_SHORTEST_KEY: Final = 6
"""Shorter ones are no secrets, and would be found in every text."""
_FORM_OF_A_KEY: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:ek_|sk-)[A-Za-z0-9_-]{8,}|eyJ[\w-]{8,}\.[\w-]+\.[\w-]*)"
    r"|(?i:(?<=\bbearer )[\w.~+/=-]{20,})"
)
_SECRET_FIELDS: Final = frozenset(
    {"access_token", "api-key", "api_key", "apikey", "authorization", "client_secret", "password"}
)
_AUDIO_DELTA: Final = re.compile(r"response\.(?:output_)?audio\.delta")
_LONG_TEXT: Final = 4096


class RecordingError(Exception):
    """A file is no recording; the text says where and why."""


class Size(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stands for audio, or another bulk of bytes, that was left out."""

    bytes: int


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the server answered to the request: 101, or a refusal with its body."""

    status: int
    headers: Pairs = ()
    subprotocol: str | None = None
    body: str | None = None


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line; nothing in it is secret any more."""

    vivavoce_recording: int
    started: str
    """ISO 8601, UTC."""
    url: str
    """That the client was connected to."""
    headers: Pairs
    """Of the request, without those that every WebSocket handshake has."""
    subprotocols: tuple[str, ...]
    audio: bool
    """False: audio was left out, see :class:`Size`."""
    answer: Answer


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"sender": "from"}):
    """One message: a JSON object (``event``), another text, or bytes (base64); exactly one of the three."""

    t_ms: int
    """Milliseconds since the handshake."""
    sender: Side
    event: Event | None = None
    text: str | Size | None = None
    binary: str | Size | None = None

    @property
    def kind(self) -> str:
        """The event's ``type``, or ``(text)``, ``(binary)``, ``(no type)`` for what has none."""
        if self.event is None:
            return "(text)" if self.text is not None else "(binary)"
        kind = self.event.get("type")
        return kind if isinstance(kind, str) else "(no type)"


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the connection was closed. 1006: it was lost, without a close."""

    code: int
    reason: str
    by: Literal["client", "server", "recorder"]


class _LastLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    t_ms: int
    close: End


@dataclass(frozen=True, slots=True)
class Recording:
    header: Header
    frames: tuple[Frame, ...]
    end: End | None = None
    end_ms: int | None = None
    """When the connection was closed, as ``t_ms`` of a frame."""

    def of(self, side: Side) -> list[tuple[int, Frame]]:
        """Line numbers and frames of one side."""
        return [(number, frame) for number, frame in enumerate(self.frames, 2) if frame.sender == side]


# ---------------------------------------------------------------------------------------------------- to lines


def frame_of(t_ms: int, sender: Side, data: str | bytes, scrub: Scrubber) -> Frame:
    """A message as it is recorded."""
    if isinstance(data, bytes):
        kept: str | Size = base64.b64encode(data).decode() if scrub.keep_audio else Size(len(data))
        return Frame(t_ms, sender, binary=kept)
    event = _read_object(data)
    if event is not None:
        return Frame(t_ms, sender, event=scrub.event(event))
    if not scrub.keep_audio and len(data) > _LONG_TEXT:
        return Frame(t_ms, sender, text=Size(len(data.encode("utf-8", "surrogatepass"))))
    return Frame(t_ms, sender, text=scrub.text(data))


def _read_object(text: str) -> Event | None:
    """The object that ``text`` says, if writing it again says the same."""

    def unique(pairs: list[tuple[str, Any]]) -> Event:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    try:
        value = json.loads(text, object_pairs_hook=unique)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class Scrubber:
    """Takes out of messages what must not be on disk.

    ``keys`` are the secrets of this connection; with ``keep_audio`` False the number of its bytes stands for audio.
    """

    def __init__(self, keys: Iterable[str] = (), *, keep_audio: bool = True) -> None:
        self.keep_audio = keep_audio
        known = sorted({key for key in keys if len(key) >= _SHORTEST_KEY}, key=len, reverse=True)
        words = "|".join(re.escape(key) for key in known)
        self._known = re.compile(rf"(?<![A-Za-z0-9])(?:{words})(?![A-Za-z0-9])") if words else None

    def text(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return _FORM_OF_A_KEY.sub(HIDDEN, text)

    def event(self, event: Event) -> Event:
        speech = _AUDIO_DELTA.fullmatch(str(event.get("type")))
        return {
            self.text(key): self._audio(value) if speech and key == "delta" else self._value(key, value)
            for key, value in event.items()
        }

    def _value(self, key: str, value: Any, *, secret: bool = False) -> Any:
        match value:
            case str() if secret or key.lower() in _SECRET_FIELDS:
                return HIDDEN
            case str() if key == "audio":
                return self._audio(value)
            case str():
                return self.text(value)
            case list():
                return [self._value(key, inner, secret=secret) for inner in value]
            case dict():
                # A secret of a browser is {"value", "expires_at"}; an MCP tool has headers of the user's making.
                headers = value.get("headers") if value.get("type") == "mcp" else None
                return {
                    self.text(name): self._value(
                        name,
                        inner,
                        secret=secret
                        or (key == "client_secret" and name == "value")
                        or (name == "headers" and isinstance(headers, dict)),
                    )
                    for name, inner in value.items()
                }
            case _:
                return value

    def _audio(self, value: Any) -> Any:
        if self.keep_audio or not isinstance(value, str):
            return value
        return {"bytes": len(value.rstrip("=")) * 3 // 4}


class Writer:
    """A recording on its way to a file that did not exist before; each line is in the file when it is written."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file = file
        self.path = path
        self.frames = 0

    @classmethod
    def create(cls, wanted: Path) -> Writer:
        """``wanted``, or ``wanted-2``, ``wanted-3`` ...: the first name that is free. Raises OSError."""
        number = 1
        while True:
            path = wanted if number == 1 else wanted.with_stem(f"{wanted.stem}-{number}")
            try:
                # For its owner only: it holds what people said.
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                number += 1
                continue
            return cls(os.fdopen(handle, "w", encoding="ascii", newline="\n", buffering=1), path)

    def header(self, header: Header) -> None:
        self._line(header)

    def frame(self, frame: Frame) -> None:
        self.frames += 1
        self._line(frame)

    def end(self, end: End, t_ms: int) -> None:
        self._line(_LastLine(t_ms, end))

    def close(self) -> None:
        self._file.close()

    def _line(self, value: msgspec.Struct) -> None:
        if not self._file.closed:
            # The json of the standard library keeps lone surrogates, which clients do send.
            self._file.write(json.dumps(msgspec.to_builtins(value), separators=(",", ":")) + "\n")


def save(recording: Recording, wanted: Path) -> Path:
    """Write a whole recording, to the first name that is free. Raises OSError."""
    writer = Writer.create(wanted)
    try:
        writer.header(recording.header)
        for frame in recording.frames:
            writer.frame(frame)
        if recording.end is not None:
            writer.end(recording.end, recording.end_ms or 0)
    finally:
        writer.close()
    return writer.path


# -------------------------------------------------------------------------------------------------- from lines


def load(path: Path) -> Recording:
    """Raises :class:`RecordingError`, and OSError when the file cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        raise RecordingError(f"{path}: not a recording of vivavoce (no UTF-8)") from fault
    return parse(text, str(path))


def parse(text: str, name: str) -> Recording:
    """``name`` is what errors call the file. Raises :class:`RecordingError`."""
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    frames: list[Frame] = []
    last: _LastLine | None = None
    header: Header | None = None
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
            if header is None:
                header = _header(value)
            elif last is not None:
                raise ValueError("a line after the close")
            elif isinstance(value, dict) and "close" in value:
                last = msgspec.convert(value, _LastLine)
            else:
                frames.append(_frame(value))
        except (ValueError, RecursionError) as fault:
            if number == len(lines) and number > 1 and not text.endswith("\n"):
                break  # Cut off while it was written.
            raise RecordingError(f"{name}:{number}: {fault}") from fault
    if header is None:
        raise RecordingError(f"{name}: not a recording of vivavoce (empty)")
    if last is None:
        return Recording(header, tuple(frames))
    return Recording(header, tuple(frames), last.close, last.t_ms)


def _header(value: Any) -> Header:
    if not isinstance(value, dict) or "vivavoce_recording" not in value:
        raise ValueError("not a recording of vivavoce")
    if value["vivavoce_recording"] != VERSION:
        raise ValueError(f"a recording of version {value['vivavoce_recording']}, this program reads {VERSION}")
    return msgspec.convert(value, Header)


def _frame(value: Any) -> Frame:
    frame = msgspec.convert(value, Frame)
    if sum(body is not None for body in (frame.event, frame.text, frame.binary)) != 1:
        raise ValueError("a frame has one of event, text and binary")
    if isinstance(frame.binary, str):
        try:
            base64.b64decode(frame.binary, validate=True)
        except binascii.Error as fault:
            raise ValueError("binary is not base64") from fault
    return frame


def omitted(value: Any) -> bool:
    """Whether audio was left out of a message, or of a part of it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "audio" and isinstance(inner, dict) and inner.keys() == {"bytes"}:
                return True
            if omitted(inner):
                return True
        return False
    return isinstance(value, list) and any(omitted(inner) for inner in value)


def hidden(value: Any) -> bool:
    """Whether a secret was taken out of a message."""
    if isinstance(value, str):
        return HIDDEN in value
    if isinstance(value, dict):
        return any(hidden(inner) for inner in value.values())
    return isinstance(value, list) and any(hidden(inner) for inner in value)
