"""Sending the client's side of a recording again.

Laws
----
1. What makes a message of the client wait is what the server had sent before it in the recording, not the clock:
   the same events must have come, by type and number, and as much of what is streamed.
2. Ids of the recorded server in it are replaced by those that stand for them now.
3. What the server does not send is waited for only while it is silent for less than a patience, and is not waited
   for again; :attr:`Replayed.notes` tell of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import ssl
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote

import msgspec
from aiohttp import WSMsgType
from yarl import URL

from vivavoce.gateway.auth import HIDDEN, KEY_SUBPROTOCOL, redact_headers, redact_url
from vivavoce.record.compare import Ids, Ignore, client_ids, ids_in, match_ids, translated
from vivavoce.record.recording import (
    VERSION,
    Answer,
    End,
    Event,
    Frame,
    Header,
    Recording,
    RecordingError,
    Scrubber,
    Size,
    frame_of,
    hidden,
    omitted,
)
from vivavoce.record.upstream import Refused, Upstream, connected, join, passed_on, secrets_of

Pace: TypeAlias = Literal["recorded", "fast"]

_APPEND: Final = "input_audio_buffer.append"
_APPEND_PATIENCE: Final = 0.1
"""Of the patience: audio waits less, for a silence may be what the server waits for."""
_AT_ONCE_MS: Final = 50
"""A client that closed so soon after the last event did not wait to see what comes."""
_LONGEST_STAY_S: Final = 1.0
"""At the pace ``fast``."""
_NORMAL_CLOSE: Final = 1000
_LOST: Final = 1006
_NO_CODE: Final = 1005


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """``headers`` replace those of the recording; ``api_key`` goes where the recording hides one."""

    target: URL
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    api_key: str | None = field(default=None, repr=False)
    pace: Pace = "recorded"
    patience_s: float = 10.0
    """Longest silence of the server while something is waited for."""
    ignore: Ignore = field(default_factory=Ignore)
    """Of events that it leaves out, none is waited for."""
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    recording: Recording
    """Of the new session, scrubbed like any."""
    notes: tuple[str, ...]
    """What could not be done as it was recorded."""


def check(recorded: Recording) -> None:
    """Raises :class:`RecordingError` for one that cannot be sent again."""
    for line, frame in recorded.of("client"):
        if omitted(frame.event) or isinstance(frame.text, Size) or isinstance(frame.binary, Size):
            raise RecordingError(f"line {line}: it was recorded without its audio, so it cannot be sent again")


async def replay(recorded: Recording, options: ReplayOptions) -> Replayed:
    """Raises :class:`RecordingError` (see :func:`check`), and ``Unreachable``. A refusal is a result."""
    check(recorded)
    url, headers, subprotocols = _request(recorded.header, options)
    scrub = Scrubber(
        [
            *(value for _, value in options.headers),
            *secrets_of(url.raw_query_string, headers, subprotocols),
            *([options.api_key] if options.api_key else []),
        ],
        keep_audio=recorded.header.audio,
    )
    header = Header(
        vivavoce_recording=VERSION,
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        url=scrub.text(redact_url(str(url))),
        headers=tuple((name, scrub.text(value)) for name, value in redact_headers(headers)),
        subprotocols=recorded.header.subprotocols,
        audio=recorded.header.audio,
        answer=Answer(101),
    )
    try:
        async with connected(url, headers, subprotocols, tls=options.tls) as upstream:
            session = _Session(recorded, options, upstream, scrub)
            end, end_ms = await session.run()
            answer = _shown(upstream.answer, scrub)
            frames = tuple(session.frames)
            again = Recording(msgspec.structs.replace(header, answer=answer), frames, end, end_ms)
            return Replayed(again, tuple(session.notes))
    except Refused as refused:
        return Replayed(Recording(msgspec.structs.replace(header, answer=_shown(refused.answer, scrub)), ()), ())


def _shown(answer: Answer, scrub: Scrubber) -> Answer:
    headers = tuple((name, scrub.text(value)) for name, value in redact_headers(answer.headers))
    return Answer(
        answer.status, headers, answer.subprotocol, None if answer.body is None else scrub.text(answer.body)
    )


def _request(header: Header, options: ReplayOptions) -> tuple[URL, Sequence[tuple[str, str]], Sequence[str]]:
    """The recorded request, for another server; what was hidden is filled in with the key, or left out."""
    key = options.api_key
    was = URL(header.url, encoded=True)
    query = []
    for pair in was.raw_query_string.split("&"):
        name, _, value = pair.partition("=")
        if value != HIDDEN:
            query.append(pair)
        elif key is not None:
            query.append(f"{name}={quote(_credential(name, key), safe='')}")
    kept = []
    for name, value in header.headers:
        if HIDDEN not in value:
            kept.append((name, value))
        elif key is not None and name.lower() in ("api-key", "authorization"):
            kept.append((name, _credential(name, key)))
    subprotocols = [
        name if not name.startswith(KEY_SUBPROTOCOL) else f"{KEY_SUBPROTOCOL}{key}"
        for name in header.subprotocols
        if key is not None or not name.startswith(KEY_SUBPROTOCOL)
    ]
    return join(options.target, was.raw_path, "&".join(query)), passed_on(kept, options.headers), subprotocols


def _credential(place: str, key: str) -> str:
    return f"Bearer {key}" if place.lower() == "authorization" else key


# ------------------------------------------------------------------------------------------------- how far it is


class _Progress:
    """How much a server has sent: events by type, and the amount of each kind of stream since one last ended."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.streamed: Counter[str] = Counter()

    def add(self, frame: Frame) -> None:
        delta = None if frame.event is None else frame.event.get("delta")
        if frame.kind.endswith(".delta") and isinstance(delta, str):
            self.streamed[frame.kind] += len(delta)
        elif frame.kind.endswith(".delta") and isinstance(delta, dict):
            self.streamed[frame.kind] += math.ceil(delta.get("bytes", 0) / 3) * 4
        else:
            self.events[frame.kind] += 1
            self.streamed.pop(_stream_of(frame.kind), None)


def _stream_of(end: str) -> str:
    """The deltas that an event is the end of, if any."""
    return f"{end.removesuffix('.done').removesuffix('.completed')}.delta"


def _ends_of(stream: str) -> tuple[str, str]:
    name = stream.removesuffix(".delta")
    return f"{name}.done", f"{name}.completed"


class _Session:
    """The new session: one reader, and the recorded client."""

    def __init__(self, recorded: Recording, options: ReplayOptions, upstream: Upstream, scrub: Scrubber) -> None:
        self.frames: list[Frame] = []
        self.notes: list[str] = []
        self._recorded = recorded
        self._options = options
        self._socket = upstream.socket
        self._scrub = scrub
        self._started = time.monotonic()
        self._own = client_ids(recorded.frames)
        self._ids = Ids(self._own)
        self._come = _Progress()
        self._forgiven = _Progress()
        self._news = asyncio.Event()
        self._heard_at = self._started
        self._end: End | None = None

    async def run(self) -> tuple[End, int]:
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read())
            try:
                await self._play()
            finally:
                reader.cancel()
        assert self._end is not None
        end_ms = self._now()
        if self._end.by == "client":
            await self._socket.close(code=self._end.code, message=self._end.reason.encode())
        return self._end, end_ms

    def _now(self) -> int:
        return round((time.monotonic() - self._started) * 1000)

    async def _read(self) -> None:
        while self._end is None:
            message = await self._socket.receive()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    data = message.data if message.type is WSMsgType.TEXT else bytes(message.data)
                    frame = frame_of(self._now(), "server", data, self._scrub)
                    self.frames.append(frame)
                    self._come.add(frame)
                    self._forgiven.streamed.pop(_stream_of(frame.kind), None)
                    if self._forgiven.events[frame.kind]:
                        self._forgiven.events[frame.kind] -= 1
                case WSMsgType.PING:
                    with suppress(ConnectionError):
                        await self._socket.pong(message.data)
                case WSMsgType.PONG:
                    continue
                case WSMsgType.CLOSE:
                    self._end = End(message.data or _NO_CODE, self._scrub.text(message.extra or ""), "server")
                    await self._socket.close()
                case _:
                    self._end = End(_LOST, "", "server")
            self._heard_at = time.monotonic()
            self._news.set()

    # -------------------------------------------------------------------------------------------- the client

    async def _play(self) -> None:
        """The recorded client, up to its end."""
        due = _Progress()
        sent_at = self._started
        sent_ms = heard_ms = 0
        for at, frame in enumerate(self._recorded.frames):
            if frame.sender == "server":
                if not self._options.ignore.event(frame.kind):
                    due.add(frame)
                heard_ms = frame.t_ms
                continue
            line = at + 2
            await self._wait(due, line, audio=frame.kind == _APPEND)
            if self._end is not None:
                rest = sum(one.sender == "client" for one in self._recorded.frames[at:])
                self.notes.append(f"line {line}: the connection ended before this was sent; {rest} were not sent")
                return
            if self._options.pace == "recorded":
                gap = max(sent_at + (frame.t_ms - sent_ms) / 1000, self._heard_at + (frame.t_ms - heard_ms) / 1000)
                await self._pass(gap)
            sent_at, sent_ms = time.monotonic(), frame.t_ms
            await self._send(at, line, frame)
        await self._wait(due, len(self._recorded.frames) + 2)
        await self._finish(max(heard_ms, sent_ms))

    async def _wait(self, due: _Progress, line: int, *, audio: bool = False) -> None:
        """Until what is due has come, or does not come."""
        patience = self._options.patience_s * (_APPEND_PATIENCE if audio else 1)
        since = time.monotonic()
        while self._end is None and (missing := list(self._missing(due))):
            left = max(self._heard_at, since) + patience - time.monotonic()
            self._news.clear()
            if left <= 0:
                self.notes.append(f"line {line}: {', '.join(sorted(missing))} did not come before it")
                self._forgive(due)
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._news.wait()

    def _missing(self, due: _Progress) -> Iterator[str]:
        for kind, number in due.events.items():
            if self._come.events[kind] + self._forgiven.events[kind] < number:
                yield kind
        for kind, amount in due.streamed.items():
            over = any(self._come.events[end] > due.events[end] for end in _ends_of(kind))
            if self._come.streamed[kind] + self._forgiven.streamed[kind] < amount and not over:
                yield kind

    def _forgive(self, due: _Progress) -> None:
        for kind, number in due.events.items():
            self._forgiven.events[kind] = max(self._forgiven.events[kind], number - self._come.events[kind], 0)
        for kind, amount in due.streamed.items():
            short = amount - self._come.streamed[kind]
            self._forgiven.streamed[kind] = max(self._forgiven.streamed[kind], short, 0)

    async def _pass(self, until: float) -> None:
        """Let time pass, up to a time of the monotonic clock or the end of the connection."""
        while self._end is None and (left := until - time.monotonic()) > 0:
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._news.wait()

    async def _send(self, at: int, line: int, frame: Frame) -> None:
        if frame.binary is not None:
            data: str | bytes = base64.b64decode(str(frame.binary))
        elif frame.event is not None:
            if hidden(frame.event):
                self.notes.append(f"line {line}: a secret was taken out of this event, so it was sent without")
            data = json.dumps(self._translated(at, line, frame.event))
        else:
            data = str(frame.text)
        self.frames.append(frame_of(self._now(), "client", data, self._scrub))
        with suppress(ConnectionError):
            await (self._socket.send_bytes(data) if isinstance(data, bytes) else self._socket.send_str(data))

    def _translated(self, at: int, line: int, event: Event) -> Any:
        """The event with the ids of now."""
        named = {name for name in ids_in(event) if name not in self._own}
        if not named <= self._ids.now.keys():
            self._ids = match_ids(self._recorded.frames[:at], self.frames)
        for name in sorted(named - self._ids.now.keys()):
            self.notes.append(f"line {line}: nothing stands for the id {name} now; it was sent as it is")
        return translated(event, self._ids)

    async def _finish(self, last_ms: int) -> None:
        """Stay as long as the recorded client did, then close as it did."""
        recorded = self._recorded
        ended_ms = last_ms if recorded.end_ms is None else recorded.end_ms
        if recorded.end is not None and recorded.end.by == "server":
            await self._pass(self._heard_at + self._options.patience_s)
        elif ended_ms - last_ms >= _AT_ONCE_MS:
            stay = (ended_ms - last_ms) / 1000
            stay = stay if self._options.pace == "recorded" else min(stay, _LONGEST_STAY_S)
            await self._pass(time.monotonic() + stay)
        if self._end is None:
            end = recorded.end
            known = end is not None and end.by == "client" and end.code not in (_LOST, _NO_CODE)
            self._end = End(end.code, end.reason, "client") if end and known else End(_NORMAL_CLOSE, "", "client")
