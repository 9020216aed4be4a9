"""One connection: the handshake, the read loop, keep-alive, the end (protocol sections 1.2 - 1.4)."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import WSMessage, WSMsgType, web
from prometheus_client import Counter

from vivavoce.core.contract import ReserveQuota
from vivavoce.core.conversation import MESSAGE_LIMITS, MessageLimits
from vivavoce.core.identity import Identity
from vivavoce.core.session import CLOSE_GOING_AWAY, Session
from vivavoce.core.usage import Tokens
from vivavoce.core.window import Window
from vivavoce.gateway.admission import Admission, AdmissionPolicy, Located, admit, locate
from vivavoce.gateway.audit import ANONYMOUS, Audit, Details, actor_of
from vivavoce.gateway.deployments import Deployment, Deployments, Served
from vivavoce.gateway.principals import Principal, Unknown
from vivavoce.gateway.prompts import DeclaredPrompts
from vivavoce.gateway.quota import Asked, Denied, Limiter, Reserved
from vivavoce.gateway.roles import REALTIME
from vivavoce.gateway.sessions import SessionDirectory
from vivavoce.gateway.shared.base import Unavailable
from vivavoce.gateway.shared.memory import MemoryState
from vivavoce.gateway.usage import Settles, UsageLedger
from vivavoce.runtime.bugs import outline
from vivavoce.runtime.driver import CLOSE_BUG, Driver
from vivavoce.runtime.engines import Denial, Engines, Reservation
from vivavoce.server.client_secrets import granted_config
from vivavoce.server.handshake import CLOSE_TIMEOUT_S, Handshake, Socket
from vivavoce.server.identity import Doorkeeper
from vivavoce.server.metrics import Metrics, QuotaCounts
from vivavoce.server.outbox import CLOSE_S, SocketOutbox
from vivavoce.wire import refusals
from vivavoce.wire import server_events as se
from vivavoce.wire.codec import Codec, codec_of
from vivavoce.wire.dialects.profiles import session_seconds
from vivavoce.wire.errors import ClientFault
from vivavoce.wire.prompts import Prompts
from vivavoce.wire.refusals import RefusedHandshake, RefusedSession
from vivavoce.wire.session_config import SessionConfig

log = logging.getLogger(__name__)

CLOSE_KEEPALIVE: Final = 1011
_UNAUTHORIZED: Final = 401
_CLOSE_UNAUTHORIZED: Final = 3000
_BUSY_RETRY_S: Final = 1
_TURN_S: Final = 0.005
"""Seconds of work on one client's frames before the other sessions get a turn."""
_NOT_TEXT: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR})


class QuotaMeter:
    """What limits a deployment, as the runtime sees it."""

    def __init__(
        self,
        limiter: Limiter,
        counted: Callable[[Settles], Settles] = lambda reservation: reservation,
        counts: QuotaCounts | None = None,
    ) -> None:
        """``counted``: what stands for each reservation; ``counts``: who counts the answers."""
        self._limiter = limiter
        self._counted = counted
        self._counts = counts

    def reserve(self, asked: ReserveQuota) -> Reservation | Denial | Awaitable[Reservation | Denial]:
        answer = self._limiter.ask(Asked(asked.tokens, asked.reads, asked.max_output_tokens))
        return self._later(answer) if isinstance(answer, Awaitable) else self._answer(answer)

    async def _later(self, answer: Awaitable[Reserved | Denied]) -> Reservation | Denial:
        return self._answer(await answer)

    def rate_limits(self) -> tuple[se.RateLimit, ...]:
        return self._limiter.status()

    def _answer(self, answer: Reserved | Denied) -> Reservation | Denial:
        if self._counts is not None:
            self._counts.answered(answer)
        if isinstance(answer, Denied):
            return Denial(answer.name, answer.retry_after_s)
        return self._counted(answer)


class RealtimeEndpoint:
    """Serves the realtime paths. One per server; knows the sessions that are open."""

    def __init__(
        self,
        *,
        deployments: Deployments,
        engines: Callable[[Served], Engines],
        policy: AdmissionPolicy,
        doorkeeper: Doorkeeper,
        max_sessions: int,
        ping_interval_s: float,
        session_seconds: int | None,
        compression: bool,
        tokens: Tokens | None = None,
        reduces_noise: bool = False,
        prompts: Callable[[str], Prompts] | None = None,
        metrics: Metrics | None = None,
        audit: Audit | None = None,
        ledger: UsageLedger | None = None,
        sessions: SessionDirectory | None = None,
        message_limits: MessageLimits = MESSAGE_LIMITS,
    ) -> None:
        """``session_seconds``: how long a session lasts, None for as long as in its dialect; ``prompts``: those of
        an account, by its id, None where no account has any; ``metrics``: where sessions are counted; ``audit``:
        where it is written down who was refused; None for nowhere; ``sessions``: where sessions are counted, None
        for those of this process; ``message_limits``: what a message may hold.
        """
        self._deployments = deployments
        self._engines = engines
        self._policy = policy
        self._doorkeeper = doorkeeper
        self._max_sessions = max_sessions
        self._ping_interval_s = ping_interval_s
        self._session_seconds = session_seconds
        self._compression = compression
        self._tokens = tokens or Tokens()
        self._reduces_noise = reduces_noise
        self._prompts = prompts or DeclaredPrompts()
        self._codecs: dict[tuple[str, bool, bool], Codec] = {}
        self._open: set[SocketOutbox] = set()
        self._metrics = metrics
        self._ledger = ledger
        self._audit = audit
        self._message_limits = message_limits
        self._sessions = sessions or SessionDirectory(MemoryState())
        self._counted: dict[Driver, _Counted] = {}
        self.empty = asyncio.Event()
        """Set while no session is open."""
        self.empty.set()
        self.draining = False

    @property
    def open_sessions(self) -> int:
        return len(self._open)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request that is for no other handler."""
        handshake = Handshake(request)
        try:
            return await self._answer(handshake)
        finally:
            await self._sessions.leave(handshake.id)

    async def _answer(self, handshake: Handshake) -> web.StreamResponse:
        path = _printable(handshake.asked.path)
        who: Principal | Unknown | None = None
        try:
            located = locate(handshake.asked, self._policy)
            who = await self._identify(handshake, located)
            admission = admit(located, who, self._policy)
            served = self._deployments[admission.deployment.label]
            await self._find_room(handshake, served)
            if self.draining:
                raise _busy(handshake)
            if len(self._open) >= self._max_sessions:
                self._count_limit(served.deployment, "server")
                raise _busy(handshake)
            config = self._first_config(admission, served, handshake)
        except RefusedHandshake as refused:
            log.info("refused %s: %d %s, %s", path, refused.status, refused.code, handshake.ids)
            self._count_refusal(refused.status)
            if refused.status == _UNAUTHORIZED or refused.code == refusals.WRONG_TENANT:
                self._audit_refusal(handshake, who, refused.status, refused.code)
            return handshake.refuse(refused)
        except RefusedSession as refused:
            log.info("refused %s: %d %s, %s", path, refused.close_code, refused.reason, handshake.ids)
            self._count_refusal(refused.close_code)
            if refused.close_code == _CLOSE_UNAUTHORIZED:
                self._audit_refusal(handshake, who, refused.close_code, refused.error.code)
            return await handshake.tell(refused)
        return await self._serve(handshake, admission, served, config)

    def _first_config(self, admission: Admission, served: Served, handshake: Handshake) -> SessionConfig:
        """What the session begins with. Raises Refused."""
        try:
            return granted_config(
                admission.deployment,
                admission.grant,
                reduces_noise=self._reduces_noise,
                reasons=admission.grant is not None and self._engines(served).speaker.reasons,
                prompts=self._prompts(admission.deployment.account),
            )
        except ClientFault as fault:
            refused = refusals.secret_does_not_fit(fault.message)
            if handshake.is_azure:
                raise refusals.operation_not_supported(refused.error.message) from None
            raise refused from None

    async def _identify(self, handshake: Handshake, located: Located) -> Principal | Unknown:
        account = None if located.account is None else located.account.id
        address = self._doorkeeper.address_of(handshake.request)
        who = await self._doorkeeper.data.of(located.offered, account, address)
        if isinstance(who, Unknown) and who.why:
            log.info("a token is refused: %s, %s", who.why, handshake.ids)
        if isinstance(who, Unknown) and who.fault == "throttled":
            log.warning("too many wrong keys from %s; a proxy belongs into identity.trusted_proxies", address)
        return who

    async def _find_room(self, handshake: Handshake, served: Served) -> None:
        """Count a connection, and a session, of a deployment. Raises what refuses it."""
        deployment = served.deployment
        for name, limit in (("tokens", served.quota), ("connections", served.connections)):
            answer = None if limit is None else limit.connect()
            denied = await answer if isinstance(answer, Awaitable) else answer
            if denied is not None:
                self._count_limit(deployment, name)
                if handshake.is_azure:
                    raise refusals.too_many_calls(denied.retry_after_s)
                raise refusals.too_many_calls_session(deployment.model, denied.retry_after_s)
        try:
            room = await self._sessions.enter(handshake.id, deployment.label, deployment.max_sessions)
        except Unavailable:
            raise _busy(handshake) from None
        if not room:
            self._count_limit(deployment, "sessions")
            raise _busy(handshake)

    def _count_limit(self, deployment: Deployment, limit: str) -> None:
        if self._metrics is not None:
            self._metrics.limited.labels(deployment.label, limit).inc()

    def _count_refusal(self, status: int) -> None:
        if self._metrics is not None:
            self._metrics.refused.labels(str(status)).inc()

    def _audit_refusal(
        self, handshake: Handshake, who: Principal | Unknown | None, status: int, code: str | None
    ) -> None:
        if self._audit is None:
            return
        actor = actor_of(who) if isinstance(who, Principal) else ANONYMOUS
        reason = who.why or None if isinstance(who, Unknown) else None
        details = Details(status=status, code=code, reason=reason)
        self._audit.record(actor, REALTIME, handshake.asked.path, "refused", details, caller=handshake.caller)

    def count_events(self) -> None:
        """Add to the metrics what the open sessions have heard and said since the last time."""
        for driver, counted in list(self._counted.items()):
            counted.look(driver)

    @contextmanager
    def _counting(self, driver: Driver, deployment: str) -> Iterator[None]:
        """A session, for the metrics."""
        if self._metrics is None:
            yield
            return
        self._metrics.opened.labels(deployment).inc()
        sessions = self._metrics.sessions.labels(deployment)
        sessions.inc()
        counted = _Counted(self._metrics.received.labels(deployment), self._metrics.sent.labels(deployment))
        self._counted[driver] = counted
        try:
            yield
        finally:
            sessions.dec()
            del self._counted[driver]
            counted.look(driver)

    async def drain(self, grace_s: float) -> None:
        """Take no more sessions; tell those that are open to go (1001), and wait for them up to ``grace_s``."""
        self.draining = True
        for outbox in self._open:
            outbox.close(CLOSE_GOING_AWAY, "The server is shutting down.")
        try:
            async with asyncio.timeout(grace_s):
                await self.empty.wait()
        except TimeoutError:
            log.warning("%d sessions did not end in time and are cut off", len(self._open))
            for outbox in self._open:
                outbox.abort()

    # -------------------------------------------------------------------------------------------- a session

    async def _serve(
        self, handshake: Handshake, admission: Admission, served: Served, config: SessionConfig
    ) -> web.StreamResponse:
        """``served``: what the session keeps, whatever becomes of the deployment."""
        request = handshake.request
        outbox = SocketOutbox(
            stall_s=self._ping_interval_s, abort=lambda: _abort(request), unsent=lambda: _unsent(request)
        )
        self._open.add(outbox)
        self.empty.clear()
        socket = handshake.socket(admission.returned_headers, compress=self._compression)
        try:
            await socket.prepare(request)
            try:
                await self._converse(socket, outbox, admission, served, config, handshake.ids)
            except Exception as bug:
                log.error("a bug, a session is closed: %s", outline(bug))
                async with asyncio.timeout(CLOSE_S):
                    await socket.close(code=CLOSE_BUG, message=b"internal error")
        finally:
            self._open.discard(outbox)
            if not self._open:
                self.empty.set()
            _bury(request)
        return socket

    async def _converse(
        self,
        socket: Socket,
        outbox: SocketOutbox,
        admission: Admission,
        served: Served,
        config: SessionConfig,
        request_ids: str,
    ) -> None:
        deployment = served.deployment
        now = asyncio.get_running_loop().time()
        codec = self._codec(admission.profile, deployment)
        engines = self._engines(served)
        identity = Identity(
            tokens=self._tokens,
            model=deployment.reported_model,
            created_at=int(time.time()),
            lifetime_s=self._session_seconds or session_seconds(admission.profile),
            seed=secrets.token_bytes(32),
            model_aliases=frozenset({deployment.name, deployment.model}),
            kind=admission.kind,
            heard_text=deployment.heard_text,
            holds_outputs=codec.holds_outputs,
            sees_images=engines.speaker.sees_images,
            reasons=engines.speaker.reasons,
            window=Window(deployment.max_input, deployment.max_output),
            message_limits=self._message_limits,
            reduces_noise=self._reduces_noise,
            prompts=self._prompts(deployment.account),
            speculates=served.allowance is not None,
            keeps_audio=codec.gives_audio_back or engines.speaker.hears_audio,
        )
        session = Session(identity, config, now)
        driver = Driver(
            session,
            codec=codec,
            outbox=outbox,
            engines=engines,
            meter=self._meter(served),
            allowance=None if served.allowance is None else QuotaMeter(served.allowance),
        )
        log.info(
            "session %s: open, deployment %s, profile %s, %s, %s",
            session.id,
            deployment.label,
            admission.profile,
            admission.principal.id,
            request_ids,
        )
        started = time.monotonic()
        ending: tuple[int, str] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(outbox.run(socket), name=f"write {session.id}")
                with self._counting(driver, deployment.label):
                    async with driver.running():
                        await self._read(socket, driver, outbox)
                        ending = outbox.closing
                outbox.close(CLOSE_GOING_AWAY, "")
                await asyncio.wait([writer], timeout=CLOSE_TIMEOUT_S)
                writer.cancel()
        finally:
            who, code = ("the client", socket.close_code) if ending is None else ("the server", ending[0])
            log.info(
                "session %s: closed by %s with %s after %.1f s", session.id, who, code, time.monotonic() - started
            )

    def _meter(self, served: Served) -> QuotaMeter:
        counts = None if self._metrics is None else self._metrics.quota(served.deployment.label)
        if self._ledger is None:
            return QuotaMeter(served.quota, counts=counts)
        admitted = functools.partial(self._ledger.admitted, served.deployment.id)
        return QuotaMeter(served.quota, admitted, counts)

    def _codec(self, profile: str, deployment: Deployment) -> Codec:
        key = (profile, deployment.conversation_created, deployment.strict)
        if key not in self._codecs:
            self._codecs[key] = codec_of(
                profile, conversation_created=deployment.conversation_created, strict=deployment.strict
            )
        return self._codecs[key]

    async def _read(self, socket: Socket, driver: Driver, outbox: SocketOutbox) -> None:
        """Frames in, until the connection ends. A client that outruns the session meets TCP back-pressure.

        Nearly all of them are text that the session has time for: that is taken as it arrives, and never gets here.
        """
        keepalive = KeepAlive(socket, self._ping_interval_s, outbox.close)
        loop = asyncio.get_running_loop()
        turn = loop.time()
        tired = False
        worked = 0.0

        def take(text: str) -> bool:
            nonlocal tired, worked
            if tired or driver.busy:
                return False
            began = loop.time()
            driver.receive_text(text)
            worked += loop.time() - began
            if worked > _TURN_S:
                tired = True
                loop.call_soon(rest)
            return True

        def rest() -> None:
            nonlocal tired, worked
            tired, worked = False, 0.0

        socket.take_text(take)
        try:
            while True:
                message: WSMessage = await socket.receive()
                if driver.busy:
                    keepalive.pause()
                    await driver.ready()
                    keepalive.resume()
                match message.type:
                    case WSMsgType.TEXT:
                        driver.receive_text(message.data)
                    case WSMsgType.BINARY:
                        driver.receive_binary()
                    case WSMsgType.PING:
                        await socket.pong(message.data)
                    case WSMsgType.PONG:
                        keepalive.answered()
                    case kind if kind in _NOT_TEXT:
                        return
                # Frames that are here already come without a wait, and a flood of them is never at its end.
                if loop.time() - turn > _TURN_S:
                    await asyncio.sleep(0)
                    turn = loop.time()
        except ConnectionError:
            return
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # All who write to a socket wait for room on one future of aiohttp's: the outbox gave up, and cancelled
            # a pong of ours with it.
            return
        finally:
            socket.take_text(None)
            keepalive.stop()


def _busy(handshake: Handshake) -> RefusedHandshake | RefusedSession:
    return refusals.server_busy(_BUSY_RETRY_S) if handshake.is_azure else refusals.server_busy_session()


class _Counted:
    """How many events of a session the metrics know."""

    def __init__(self, received: Counter, sent: Counter) -> None:
        self._counters = (received, sent)
        self._known = (0, 0)

    def look(self, driver: Driver) -> None:
        now = (driver.received, driver.sent)
        for counter, before, count in zip(self._counters, self._known, now, strict=True):
            counter.inc(count - before)
        self._known = now


class KeepAlive:
    """Pings with a 4-byte payload; a peer that answers none within another interval is dropped (section 1.4)."""

    def __init__(self, socket: web.WebSocketResponse, interval_s: float, close: Callable[[int, str], None]) -> None:
        self._socket = socket
        self._close = close
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._waiting = False
        self._sending: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(interval_s, self._due)

    def answered(self) -> None:
        self._waiting = False

    def pause(self) -> None:
        """We do not read now, so we could not see an answer."""
        self._timer.cancel()

    def resume(self) -> None:
        self._waiting = False
        self._timer = self._loop.call_later(self._interval_s, self._due)

    def stop(self) -> None:
        self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()

    def _due(self) -> None:
        if self._waiting:
            self._close(CLOSE_KEEPALIVE, "keepalive ping timeout")
            return
        self._waiting = True
        self._sending = self._loop.create_task(self._ping())
        self._timer = self._loop.call_later(self._interval_s, self._due)

    async def _ping(self) -> None:
        try:
            await self._socket.ping(secrets.token_bytes(4))
        except ConnectionError:
            return


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _bury(request: web.Request) -> None:
    """The session is over. A peer that has vanished takes neither what is left nor our farewell, and the system
    would keep the connection for many minutes.
    """
    transport = request.transport
    if transport is not None and transport.get_write_buffer_size():
        asyncio.get_running_loop().call_later(CLOSE_S, transport.abort)


def _unsent(request: web.Request) -> int:
    return request.transport.get_write_buffer_size() if request.transport is not None else 0


def _printable(path: str) -> str:
    """A path of anybody's making, fit for a log line."""
    return ascii(path[:200])[1:-1]
