"""One connection to an upstream Realtime server: the conversation of one session of ours, kept there.

Laws
----
1. A link belongs to the engine, under the name of a session. It reads as long as it lives, so that pings are
   answered and a cancelled response can end in its own time; :meth:`Link.close` ends that.
2. Responses of the conversation come one after the other: the next waits until the upstream server has ended the
   one before. Those out of band run beside.
3. After any doubt about what the upstream server holds the link is :attr:`~Link.lost`: another one builds the
   conversation anew. A response that has lost its link raises :class:`LinkLost`.
4. What the upstream server says of a fault is logged and told by its code: its messages may quote keys or speech.
"""

from __future__ import annotations

import asyncio
import binascii
import itertools
import logging
import re
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

import aiohttp
import msgspec
import pybase64

from vivavoce.engines import base
from vivavoce.engines.base import EngineError
from vivavoce.engines.upstream_realtime_dialects import (
    SOUND,
    WORDS,
    Answer,
    Dialect,
    Error,
    Event,
    Nonsense,
    Output,
    Response,
    read,
    usage_of,
)
from vivavoce.engines.upstream_realtime_mirror import Mirror

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
CANCEL_S: Final = 5.0
"""Seconds that a cancelled response may take to end before the connection is given up."""
RENEW_S: Final = 90.0
"""Seconds before the end of an upstream session, at most a quarter of it, in which no more responses begin."""
_CLOSE_S: Final = 1.0
_AHEAD: Final = 4096
"""Deltas that may wait for whoever takes a response; the upstream server is not read further then."""
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_AGAIN: Final = re.compile(r"again in (\d+(?:\.\d+)?) ?(ms|s)\b")


class LinkLost(Exception):
    """The connection is gone, or not to be trusted. ``fault``: what the client is told where nothing helps."""

    def __init__(self, fault: EngineError) -> None:
        super().__init__(fault.code)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds."""

    connect: float
    """Until the upstream session exists."""
    first_output: float
    """From the request of a response to its first output."""
    idle: float
    """Between two pieces of output."""
    ping: float
    """Between two pings, and the wait for a pong."""


_Told: TypeAlias = "base.SpeechDelta | EngineError | LinkLost"


class _Run:
    """A response that was asked for."""

    def __init__(self, event_id: str, *, in_band: bool) -> None:
        self.event_id = event_id
        self.in_band = in_band
        self.id: str | None = None
        self.output = Output()
        self.told: asyncio.Queue[_Told] = asyncio.Queue(_AHEAD)
        self.over = asyncio.Event()
        """It has ended upstream, or never began."""
        self._wanted = True

    @property
    def wanted(self) -> bool:
        return self._wanted

    def forget(self) -> None:
        """Nobody takes what comes any more. Whoever waits to tell it goes on."""
        self._wanted = False
        while not self.told.empty():
            self.told.get_nowait()

    async def tell(self, *told: _Told) -> None:
        for one in told:
            if self._wanted:
                await self.told.put(one)


class Link:
    """Made by :func:`connect`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, dialect: Dialect, deadlines: Deadlines) -> None:
        self._socket = socket
        self._dialect = dialect
        self._deadlines = deadlines
        self._mirror = Mirror(dialect)
        self._turnstile = asyncio.Lock()
        self._default: _Run | None = None
        """The last response of the conversation, which may still be ending."""
        self._asked: deque[_Run] = deque()
        """Responses that the upstream server has not created yet, in the order in which they were asked for."""
        self._runs: dict[str, _Run] = {}
        """Those that it has, by its ids."""
        self._numbers = itertools.count(1)
        self._speed = 1.0
        self._fault: EngineError | None = None
        self._renew_at: float | None = None
        self._reading: asyncio.Task[None] | None = None
        self.session_id = ""

    @property
    def lost(self) -> bool:
        return self._fault is not None

    @property
    def old(self) -> bool:
        """Its upstream session ends soon, and nothing runs in it."""
        late = self._renew_at is not None and asyncio.get_running_loop().time() > self._renew_at
        return late and not self._runs and not self._asked

    async def open(self) -> None:
        """Wait for the upstream session; from then on it takes turns when it is told to. Raises EngineError."""
        message = await self._socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise _refused(None)
        try:
            greeting = read(message.data)
        except Nonsense:
            raise _nonsense() from None
        if greeting.error is not None:
            if greeting.error.code in (None, "invalid_api_key"):
                raise unauthorized()
            raise _refused(greeting.error)
        if greeting.type != "session.created" or greeting.session is None:
            raise _nonsense()
        self.session_id = _code(greeting.session.id)
        left = (greeting.session.expires_at or 0) - time.time()
        # Where our clock is past it the two do not agree, and only the end of the session tells.
        if left > 0:
            self._renew_at = asyncio.get_running_loop().time() + left - min(RENEW_S, left / 4)
        await self._send({"type": "session.update", "session": self._dialect.session()})
        self._reading = asyncio.create_task(self._read(), name=f"upstream {self.session_id}")

    async def close(self) -> None:
        """Leave; the upstream server ends what runs."""
        self._break(EngineError("engine_unavailable", "The session has ended."))
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        with suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
            async with asyncio.timeout(_CLOSE_S):
                await self._socket.close()

    # ------------------------------------------------------------------------------------------ one response

    async def respond(self, request: base.SpeechRequest, voice: str) -> AsyncGenerator[base.SpeechDelta, None]:
        """Stream one response. Raises EngineError and :class:`LinkLost`. Closing it cancels the response."""
        async with self._turnstile:
            run = await self._ask(request, voice)
        deadline = self._deadlines.first_output
        try:
            while True:
                try:
                    async with asyncio.timeout(deadline):
                        told = await run.told.get()
                except TimeoutError:
                    self._break(EngineError("upstream_timeout", "The upstream service did not answer in time."))
                    raise self._gone().fault from None
                if isinstance(told, EngineError | LinkLost):
                    raise told
                deadline = self._deadlines.idle
                yield told
                if isinstance(told, base.Finish):
                    return
        finally:
            run.forget()
            if not run.over.is_set():
                await self._cancel(run)

    async def _ask(self, request: base.SpeechRequest, voice: str) -> _Run:
        generation = request.generation
        run = _Run(self._event_id("response"), in_band=not generation.out_of_band)
        if run.in_band:
            await self._default_over()
        elif self._fault is not None:
            raise self._gone()
        response = self._dialect.response(request, voice)
        try:
            if run.in_band:
                for event in self._mirror.catch_up(generation.turns):
                    await self._send(event)
                self._default = run
            else:
                response |= {"conversation": "none", "input": self._mirror.quote(generation.turns)}
            if request.speed != self._speed:
                await self._send({"type": "session.update", "session": self._dialect.speed(request.speed)})
                self._speed = request.speed
            self._asked.append(run)
            await self._send({"type": "response.create", "event_id": run.event_id, "response": response})
        except BaseException:
            # How much of it has been said, nobody knows.
            self._break(_lost())
            raise
        return run

    async def _default_over(self) -> None:
        """Wait until the response before has ended upstream too. Raises :class:`LinkLost`."""
        if self._default is not None and not self._default.over.is_set():
            try:
                async with asyncio.timeout(CANCEL_S):
                    await self._default.over.wait()
            except TimeoutError:
                self._break(EngineError("upstream_timeout", "The upstream service did not end a response in time."))
        if self._fault is not None:
            raise self._gone()

    async def _cancel(self, run: _Run) -> None:
        """One out of band has no name before it is created; :meth:`_created` sees to it then."""
        if self._fault is not None:
            return
        with suppress(LinkLost):
            if run.in_band:
                await self._send({"type": "response.cancel"})
            elif run.id is not None:
                await self._send({"type": "response.cancel", "response_id": run.id})

    async def _send(self, event: Event) -> None:
        """Raises :class:`LinkLost`."""
        kind = event["type"].rpartition(".")[2]
        frame = msgspec.json.encode({"event_id": self._event_id(kind)} | event)
        try:
            async with asyncio.timeout(self._deadlines.idle):
                await self._socket.send_frame(frame, aiohttp.WSMsgType.TEXT)
        except (ConnectionError, TimeoutError, aiohttp.ClientError):
            self._break(_lost())
            raise self._gone() from None

    def _event_id(self, kind: str) -> str:
        return f"{kind}_{next(self._numbers)}"

    def _gone(self) -> LinkLost:
        assert self._fault is not None
        return LinkLost(self._fault)

    def _break(self, fault: EngineError) -> None:
        """Trust it no more; all that waits for it is told."""
        if self._fault is not None:
            return
        self._fault = fault
        for run in (*self._asked, *self._runs.values()):
            run.over.set()
            if run.told.full():
                run.told.get_nowait()
            run.told.put_nowait(LinkLost(fault))
        self._asked.clear()
        self._runs.clear()

    # --------------------------------------------------------------------------------------------- reading

    async def _read(self) -> None:
        try:
            async for message in self._socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    raise Nonsense("a binary message")
                await self._take(read(message.data))
                if self._fault is not None:
                    break
        except Nonsense as nonsense:
            log.warning("upstream session %s: given up: %s", self.session_id, nonsense)
            self._break(_nonsense())
        except Exception as bug:
            log.error("upstream session %s: given up: %s", self.session_id, type(bug).__name__)
            raise
        finally:
            if self._fault is None:
                log.info("upstream session %s: closed with %s", self.session_id, self._socket.close_code)
            self._break(_lost())

    async def _take(self, answer: Answer) -> None:
        kind = answer.type
        if kind == "error":
            await self._refusal(answer.error or Error())
        elif kind == "response.created":
            await self._created(answer.response)
        elif kind == "response.done":
            await self._done(answer.response)
        else:
            run = self._runs.get(answer.response_id or "")
            if run is not None:
                await run.tell(*_product(run.output, answer))

    async def _created(self, response: Response | None) -> None:
        if response is None or not response.id or not self._asked or response.id in self._runs:
            raise Nonsense("a response that nobody asked for")
        run = self._asked.popleft()
        run.id = response.id
        self._runs[response.id] = run
        if not run.wanted and not run.in_band:
            with suppress(LinkLost):
                await self._send({"type": "response.cancel", "response_id": run.id})

    async def _done(self, response: Response | None) -> None:
        run = self._runs.get(response.id or "") if response is not None else None
        if run is None or response is None or run.id is None:
            raise Nonsense("the end of a response that does not run")
        if run.in_band:
            self._mirror.said(run.output.said)
        run.over.set()
        await run.tell(*run.output.rest(), _end(response))
        self._runs.pop(run.id, None)

    async def _refusal(self, error: Error) -> None:
        """Events of ours are answered by their ids; some services forget the id."""
        kind = (error.event_id or "").rpartition("_")[0]
        if kind == "cancel":
            return  # It had ended already.
        code = _code(error.code)
        log.warning("upstream session %s: error %s in answer to %s", self.session_id, code, kind or "nothing")
        refused = next((run for run in self._asked if run.event_id == error.event_id), None)
        if refused is None and not kind and self._asked and error.code != "session_expired":
            refused = self._asked[0]
        if refused is not None and error.code != "conversation_already_has_active_response":
            self._asked.remove(refused)
            refused.over.set()
            await refused.tell(_failure(error))
        elif kind or error.code == "session_expired":
            self._break(_refused(error))


def _product(output: Output, answer: Answer) -> list[base.SpeechDelta]:
    kind = answer.type
    if kind in SOUND:
        try:
            pcm = pybase64.b64decode(answer.delta or "", validate=True)
        except binascii.Error:
            raise Nonsense("sound that is no base64") from None
        return output.sound(answer.item_id, pcm)
    if kind in WORDS:
        return output.words(answer.item_id, answer.delta, of_call=False)
    if kind == "response.function_call_arguments.delta":
        return output.words(answer.item_id, answer.delta, of_call=True)
    if kind == "response.output_item.added":
        return output.added(answer.item)
    if kind == "response.output_item.done":
        return output.ended(answer.item.id if answer.item is not None else None)
    return []


def _end(response: Response) -> base.Finish | EngineError:
    usage = usage_of(response.usage)
    details = response.status_details
    reason = details.reason if details is not None else None
    if response.status == "completed":
        return base.Finish(usage=usage)
    if response.status == "incomplete" and reason == "max_output_tokens":
        return base.Finish("max_output_tokens", usage)
    if response.status == "incomplete" and reason == "content_filter":
        return base.Finish("content_filter", usage)
    if response.status == "cancelled":
        return EngineError("upstream_cancelled", "The upstream service cancelled the response.")
    return _failure((details.error if details is not None else None) or Error())


# ---------------------------------------------------------------------------------------------- what went wrong


def _code(text: str | None) -> str:
    """``text`` where it looks like a code or an id: anything else might quote somebody."""
    return text if text is not None and _CODE.fullmatch(text) else "unknown"


def _failure(error: Error) -> EngineError:
    """A response that the upstream server did not make."""
    code = _code(error.code or error.type)
    if "rate_limit" in code or code in ("429", "too_many_requests"):
        return rate_limited(error.message or "")
    if code in ("insufficient_quota", "content_filter"):
        text = {
            "insufficient_quota": "The upstream service has no quota left for this server.",
            "content_filter": "The upstream service's content filter stopped the response.",
        }
        return EngineError(code, text[code])
    return EngineError("upstream_failed", f"The upstream service failed the response: {code}.")


def rate_limited(message: str) -> EngineError:
    """``message``: the upstream server's own, of which the time to wait is taken."""
    found = _AGAIN.search(message)
    wait = f" Please try again in {found[1]}{found[2]}." if found is not None else " Please try again later."
    return EngineError(
        "rate_limit_exceeded",
        f"The rate limit of the upstream service is reached.{wait}",
        type="rate_limit_exceeded",
    )


def _refused(error: Error | None) -> EngineError:
    """A session, or a part of its conversation, that the upstream server does not take."""
    code = _code(error.code or error.type) if error is not None else "closed"
    if error is not None and "rate_limit" in code:
        return rate_limited(error.message or "")
    if code == "session_expired":
        return EngineError("upstream_session_expired", "The session at the upstream service has expired.")
    return EngineError("upstream_refused", f"The upstream service refused the session: {code}.")


def unauthorized() -> EngineError:
    return EngineError("upstream_unauthorized", "The upstream service does not accept the key of this server.")


def _nonsense() -> EngineError:
    return EngineError("upstream_invalid", "The upstream service sent what no Realtime service sends.")


def _lost() -> EngineError:
    return EngineError("upstream_lost", "The connection to the upstream service was lost.")


async def connect(
    client: aiohttp.ClientSession,
    url: str,
    headers: dict[str, str],
    dialect: Dialect,
    deadlines: Deadlines,
) -> Link:
    """A link to a new upstream session. Raises EngineError."""
    try:
        async with asyncio.timeout(deadlines.connect):
            socket = await client.ws_connect(
                url,
                headers={**dialect.headers, **headers},
                heartbeat=deadlines.ping,
                max_msg_size=MAX_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
            )
            link = Link(socket, dialect, deadlines)
            try:
                await link.open()
            except BaseException:
                await link.close()
                raise
    except aiohttp.WSServerHandshakeError as refusal:
        raise _handshake(refusal) from None
    except TimeoutError:
        raise EngineError("upstream_timeout", "The upstream service did not open a session in time.") from None
    except LinkLost as lost:
        raise lost.fault from None
    except (aiohttp.ClientError, OSError):
        raise EngineError("upstream_unreachable", "The upstream service cannot be reached.") from None
    except AssertionError:
        # In this way aiohttp finds that its session was closed meanwhile.
        if not client.closed:
            raise
        raise EngineError("engine_unavailable", "The engine has ended.") from None
    return link


def _handshake(refusal: aiohttp.WSServerHandshakeError) -> EngineError:
    if refusal.status in (401, 403):
        return unauthorized()
    if refusal.status == 404:
        return EngineError(
            "upstream_not_found", "The upstream service does not have this deployment, or this path."
        )
    if refusal.status == 429:
        retry = refusal.headers.get("retry-after", "") if refusal.headers is not None else ""
        return rate_limited(f"again in {retry}s" if retry.isdecimal() else "")
    return EngineError("upstream_refused", f"The upstream service refused the session: HTTP {refusal.status}.")
