"""The recorder: relays between clients and a Realtime server, and writes down what passes.

Laws
----
1. Messages pass unchanged and in order, pings and pongs too, and the close with its code and reason. While one
   cannot be passed on, nothing more is read from the side that it came from.
2. A message is in the file before it is passed on: an answer never stands before what it answers.
3. What cannot be recorded is not relayed: both sides are closed with 1011.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

import aiohttp
from aiohttp import WSMsgType, web
from multidict import CIMultiDict
from yarl import URL

from vivavoce.gateway.auth import HIDDEN, redact_headers, redact_url, tells_a_secret
from vivavoce.record.recording import VERSION, Answer, End, Header, Pairs, Scrubber, Side, Writer, frame_of
from vivavoce.record.upstream import (
    MAX_MESSAGE_BYTES,
    Refused,
    Unreachable,
    Upstream,
    connected,
    join,
    passed_on,
    redacted_subprotocols,
    secrets_of,
)

log = logging.getLogger(__name__)

CLOSE_GOING_AWAY: Final = 1001
CLOSE_LOST: Final = 1006
CLOSE_BUG: Final = 1011
NO_CODE: Final = 1005
_CLOSE_S: Final = 2.0

Socket: TypeAlias = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """``headers`` are put into each request, instead of those of the same name; they are secret."""

    target: URL
    out: Path
    audio: bool = True
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A connection that is over."""

    path: Path
    frames: int
    outcome: str


class _CannotWrite(Exception):
    """The recording cannot go on."""


class Recorder:
    """The handler of one port; :func:`recording` runs it."""

    def __init__(self, options: RecordOptions, on_recorded: Callable[[Recorded], None]) -> None:
        self._options = options
        self._on_recorded = on_recorded
        self._stop = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if not web.WebSocketResponse().can_prepare(request):
            return web.Response(status=426, text="vivavoce record relays WebSocket connections only\n")
        self._open += 1
        self._idle.clear()
        try:
            return await self._record(request)
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def stop(self, grace_s: float) -> None:
        """Close what is open with 1001, and wait for it."""
        self._stop.set()
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("connections did not end in time: %d", self._open)

    async def _record(self, request: web.Request) -> web.StreamResponse:
        options = self._options
        offered = [
            name.strip()
            for line in request.headers.getall("Sec-WebSocket-Protocol", [])
            for name in line.split(",")
        ]
        url = join(options.target, request.rel_url.raw_path, request.rel_url.raw_query_string)
        headers = passed_on(tuple(request.headers.items()), options.headers)
        keys = [value for _, value in options.headers]
        keys += secrets_of(url.raw_query_string, headers, offered)
        scrub = Scrubber(keys, keep_audio=options.audio)
        hidden = {name.lower() for name, _ in options.headers}
        hidden |= {name.lower() for name, _ in headers if tells_a_secret(name)}
        try:
            writer = Writer.create(options.out)
        except OSError as fault:
            log.error("cannot write %s: %s", options.out, fault.strerror)
            return web.Response(status=500, text="vivavoce record: the recording cannot be written\n")
        outcome = "broken off"

        def write_header(answer: Answer) -> None:
            shown = [(name, HIDDEN if name.lower() in hidden else value) for name, value in headers]
            writer.header(
                Header(
                    vivavoce_recording=VERSION,
                    started=datetime.now(UTC).isoformat(timespec="milliseconds"),
                    url=scrub.text(redact_url(str(url))),
                    headers=_shown(shown, scrub),
                    subprotocols=redacted_subprotocols(offered),
                    audio=options.audio,
                    answer=Answer(
                        answer.status,
                        _shown(answer.headers, scrub),
                        answer.subprotocol,
                        None if answer.body is None else scrub.text(answer.body),
                    ),
                )
            )

        try:
            async with connected(url, headers, offered, tls=options.tls) as upstream:
                write_header(upstream.answer)
                client = _client_socket(upstream.answer)
                await client.prepare(request)
                relay = _Relay(client, lambda: _drop(request), upstream, writer, scrub, self._stop)
                outcome = await relay.run()
                return client
        except Refused as refused:
            write_header(refused.answer)
            outcome = f"refused with {refused.answer.status}"
            return web.Response(
                status=refused.answer.status, headers=CIMultiDict(refused.answer.headers), body=refused.body
            )
        except Unreachable as fault:
            outcome = f"the server cannot be reached: {fault}"
            body = f"vivavoce record: {outcome}\n"
            write_header(Answer(502, body=body))
            return web.Response(status=502, text=body)
        finally:
            writer.close()
            self._on_recorded(Recorded(writer.path, writer.frames, outcome))


def _shown(headers: Sequence[tuple[str, str]], scrub: Scrubber) -> Pairs:
    return tuple((name, scrub.text(value)) for name, value in redact_headers(headers))


def _client_socket(answer: Answer) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(
        timeout=_CLOSE_S,
        autoping=False,
        autoclose=False,
        protocols=(answer.subprotocol,) if answer.subprotocol else (),
        compress=False,
        max_msg_size=MAX_MESSAGE_BYTES,
    )
    for name, value in answer.headers:
        socket.headers.add(name, value)
    return socket


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


class _Relay:
    """One connection, while both sides are there."""

    def __init__(
        self,
        client: web.WebSocketResponse,
        drop_client: Callable[[], None],
        upstream: Upstream,
        writer: Writer,
        scrub: Scrubber,
        stop: asyncio.Event,
    ) -> None:
        self._client = client
        self._server = upstream.socket
        self._drops = {"client": drop_client, "server": upstream.drop}
        self._writer = writer
        self._scrub = scrub
        self._stop = stop
        self._started = time.monotonic()

    async def run(self) -> str:
        """Until one side ends it; what happened, in a few words."""
        end = await self._converse()
        try:
            self._writer.end(end, self._now())
        except OSError as fault:
            log.error("cannot write %s: %s", self._writer.path, fault.strerror)
        # The side that wants no more is answered after the other has agreed, or was told.
        for side in ("server", "client") if end.by == "client" else ("client", "server"):
            await self._close(side, end)
        return f"closed by the {end.by} with {end.code}"

    def _now(self) -> int:
        return round((time.monotonic() - self._started) * 1000)

    async def _converse(self) -> End:
        async with asyncio.TaskGroup() as group:
            pumps = [
                group.create_task(self._pump("client", self._client, self._server)),
                group.create_task(self._pump("server", self._server, self._client)),
            ]
            stopped = group.create_task(self._stop.wait())
            done, waiting = await asyncio.wait([*pumps, stopped], return_when=asyncio.FIRST_COMPLETED)
            if stopped not in done and waiting & set(pumps) and not _ends(pumps):
                # A message could not be passed on: the side that it was for is going, and says how.
                await asyncio.wait(waiting & set(pumps), timeout=_CLOSE_S)
            for task in (*pumps, stopped):
                task.cancel()
        ends = _ends(pumps)
        if ends:
            return min(ends, key=lambda end: end.code == CLOSE_LOST)
        return End(CLOSE_GOING_AWAY, "the recorder was stopped", "recorder")

    async def _pump(self, side: Side, source: Socket, sink: Socket) -> End | None:
        """Pass on what comes from ``side``; how it ended, None if the other side takes no more."""
        while True:
            message = await source.receive()
            try:
                match message.type:
                    case WSMsgType.TEXT:
                        self._write(side, message.data)
                        await sink.send_str(message.data)
                    case WSMsgType.BINARY:
                        self._write(side, bytes(message.data))
                        await sink.send_bytes(message.data)
                    case WSMsgType.PING:
                        await sink.ping(message.data)
                    case WSMsgType.PONG:
                        await sink.pong(message.data)
                    case WSMsgType.CLOSE:
                        return End(message.data or NO_CODE, self._scrub.text(message.extra or ""), side)
                    case WSMsgType.ERROR if isinstance(message.data, aiohttp.WebSocketError):
                        return End(int(message.data.code), "", side)
                    case _:
                        return End(CLOSE_LOST, "", side)
            except ConnectionError:
                return None
            except _CannotWrite:
                return End(CLOSE_BUG, "the recording cannot be written", "recorder")

    def _write(self, side: Side, data: str | bytes) -> None:
        try:
            self._writer.frame(frame_of(self._now(), side, data, self._scrub))
        except OSError as fault:
            log.error("cannot write %s: %s", self._writer.path, fault.strerror)
            raise _CannotWrite from fault

    async def _close(self, side: str, end: End) -> None:
        if end.code == CLOSE_LOST:
            if end.by != side:
                self._drops[side]()
            return
        socket: Socket = self._client if side == "client" else self._server
        # A close without a code cannot be sent with this library; 1000 says as little.
        code = 1000 if end.code == NO_CODE else end.code
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(2 * _CLOSE_S):
                await socket.close(code=code, message=end.reason.encode()[:123])


def _ends(pumps: Sequence[asyncio.Task[End | None]]) -> list[End]:
    return [end for task in pumps if task.done() and not task.cancelled() and (end := task.result()) is not None]


@asynccontextmanager
async def recording(
    options: RecordOptions, *, host: str, port: int, on_recorded: Callable[[Recorded], None] = lambda _: None
) -> AsyncIterator[int]:
    """Relay until the end of the block; yields the port. Raises OSError when the address cannot be listened on."""
    # aiohttp warns about subprotocols that it does not know, and a browser puts its key into one.
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
    recorder = Recorder(options, on_recorded)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", recorder.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2 * _CLOSE_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        try:
            yield runner.addresses[0][1]
        finally:
            await site.stop()
            await recorder.stop(4 * _CLOSE_S)
    finally:
        await runner.cleanup()


async def record(
    options: RecordOptions,
    *,
    host: str,
    port: int,
    on_ready: Callable[[int], None],
    on_recorded: Callable[[Recorded], None],
) -> int:
    """Relay until SIGTERM or SIGINT; the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    try:
        async with recording(options, host=host, port=port, on_recorded=on_recorded) as listening:
            on_ready(listening)
            await stop.wait()
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(name)
    return 0
