"""A relay: a speech model that is a real Realtime service, or another vivavoce, behind this server.

Clients meet our authentication, quotas, turn taking and recording; the service behind sees one session for each of
ours, under our key. Either dialect may be spoken on either side.

Each session of ours has one connection, which is opened for its first response and closed when the session ends.
The conversation is kept there, and brought in step before each response (``upstream_realtime_mirror``). A
connection that was lost is opened anew and the conversation rebuilt; a response that has no output yet is asked for
once more.

Options of its configuration table: see ``docs/how-to/relay-to-a-real-service.md``.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Annotated, Final, Literal

import aiohttp
import msgspec
from yarl import URL

from vivavoce.engines.base import (
    EngineError,
    EngineOptionsError,
    JsonObject,
    SpeechDelta,
    SpeechModel,
    SpeechModelCapabilities,
    SpeechRequest,
)
from vivavoce.engines.builtin.worker_options import convert_options
from vivavoce.engines.upstream_realtime_dialects import DIALECTS, RATE, DialectName
from vivavoce.engines.upstream_realtime_link import Deadlines, Link, LinkLost, connect

log = logging.getLogger(__name__)

PATH_OPTIONS = ("ca_file",)
VERSION: Final = "1"
OPENAI: Final = "wss://api.openai.com/v1/realtime"
VOICES: Final = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse")

_COMMAND_S: Final = 30.0
_TOKEN_S: Final = 300.0
"""Seconds for which a token of ``token_command`` is used again."""

_KEY: Final = re.compile(r"[\x21-\x7e]+")
_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As they stand in the configuration. ``repr`` leaves out what may be secret."""

    url: _Text | None = None
    endpoint: _Text | None = None
    deployment: _Text | None = None
    api_version: _Text | None = None
    model: _Text | None = None
    dialect: DialectName | None = None
    api_key: _Text | None = None
    auth: Literal["api-key", "bearer"] | None = None
    token_command: Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1)] | None = None
    headers: Mapping[str, str] = {}
    voices: Mapping[str, str] = {}
    sees_images: bool = False
    reasons: bool = False
    ca_file: _Text | None = None
    max_connections: Annotated[int, msgspec.Meta(ge=1)] = 100
    connect_timeout_s: _Seconds = 10.0
    first_output_timeout_s: _Seconds = 30.0
    idle_timeout_s: _Seconds = 30.0
    ping_interval_s: _Seconds = 20.0
    check_at_start: bool = True

    def __repr__(self) -> str:
        return f"Options(url={self.url!r}, endpoint={self.endpoint!r}, deployment={self.deployment!r}, ...)"


class _Seat:
    """The connection of one session of ours."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.link: Link | None = None


class UpstreamRealtime:
    """A :class:`~vivavoce.engines.base.SpeechModel`, and SessionAware."""

    name = "upstream_realtime"
    version = VERSION

    def __init__(self, url: URL, dialect: DialectName, options: Options, tls: ssl.SSLContext | None) -> None:
        self.url = url
        self._dialect = DIALECTS[dialect]
        self._options = options
        self._tls = tls
        self._voices = {voice: voice for voice in VOICES} | dict(options.voices)
        self._deadlines = Deadlines(
            connect=options.connect_timeout_s,
            first_output=options.first_output_timeout_s,
            idle=options.idle_timeout_s,
            ping=options.ping_interval_s,
        )
        self._alone = itertools.count()
        self._client: aiohttp.ClientSession | None = None
        self._seats: dict[str, _Seat] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._token: tuple[str, float] | None = None
        self._token_lock = asyncio.Lock()
        self.capabilities = SpeechModelCapabilities(
            sample_rate=RATE,
            hears_audio=True,
            voices=frozenset(self._voices),
            sees_images=options.sees_images,
            reasons=options.reasons,
            keeps_speech=True,
        )

    async def start(self) -> None:
        """Raises EngineError where the upstream service refuses us. One that is out of reach may be there later."""
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls if self._tls is not None else True)
        self._client = aiohttp.ClientSession(connector=connector)
        if not self._options.check_at_start:
            return
        try:
            link = await self._connect()
        except EngineError as fault:
            if fault.code in ("upstream_unauthorized", "upstream_not_found", "upstream_refused"):
                await self._client.close()
                raise
            log.warning("upstream %s: %s", self.url.host, fault.message)
        else:
            await link.close()

    async def close(self) -> None:
        """Close all connections."""
        for session in list(self._seats):
            await self.end_session(session)
        if self._closing:
            await asyncio.wait(self._closing)
        if self._client is not None:
            await self._client.close()

    async def end_session(self, session: str) -> None:
        """See :class:`~vivavoce.engines.base.SessionAware`."""
        seat = self._seats.pop(session, None)
        if seat is not None and seat.link is not None:
            self._leave(seat.link)

    async def respond(self, request: SpeechRequest) -> AsyncGenerator[SpeechDelta, None]:
        """Stream one response. Raises :class:`EngineError`."""
        kept = request.generation.session
        session = kept or f"alone {next(self._alone)}"
        told = False
        try:
            for last in (False, True):
                link = await self._link(session)
                try:
                    async with aclosing(link.respond(request, self._voices[request.voice])) as deltas:
                        async for delta in deltas:
                            told = True
                            yield delta
                    return
                except LinkLost as lost:
                    if told or last:
                        raise lost.fault from None
                    log.info("upstream session %s was lost; asking once more", link.session_id)
        finally:
            if not kept:
                await self.end_session(session)

    async def _link(self, session: str) -> Link:
        """The connection of the session, new where there is none to be had. Raises EngineError."""
        if session not in self._seats and len(self._seats) >= self._options.max_connections:
            raise EngineError("engine_overloaded", "All connections to the upstream service are taken.")
        seat = self._seats.setdefault(session, _Seat())
        async with seat.lock:
            if seat.link is not None and (seat.link.lost or seat.link.old):
                self._leave(seat.link)
                seat.link = None
            if seat.link is None:
                seat.link = await self._connect()
            return seat.link

    def _leave(self, link: Link) -> None:
        task = asyncio.create_task(link.close(), name="close upstream session")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _connect(self) -> Link:
        if self._client is None or self._client.closed:
            raise EngineError("engine_unavailable", "The relay to the upstream service does not run.")
        for last in (False, True):
            try:
                link = await connect(
                    self._client, str(self.url), await self._headers(), self._dialect, self._deadlines
                )
            except EngineError as fault:
                # A token may have been withdrawn before its time.
                if last or fault.code != "upstream_unauthorized" or self._token is None:
                    raise
                self._token = None
            else:
                log.info("upstream session %s is open", link.session_id)
                return link
        raise AssertionError("not reached")

    async def _headers(self) -> dict[str, str]:
        headers = dict(self._options.headers)
        key = self._options.api_key
        if self._options.token_command is not None:
            headers["Authorization"] = f"Bearer {await self._fresh_token(self._options.token_command)}"
        elif key is not None and _auth(self._options, self.url) == "api-key":
            headers["api-key"] = key
        elif key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return headers

    async def _fresh_token(self, command: tuple[str, ...]) -> str:
        now = asyncio.get_running_loop().time
        async with self._token_lock:
            if self._token is None or self._token[1] < now():
                self._token = (await _output_of(command), now() + _TOKEN_S)
            return self._token[0]


async def _output_of(command: tuple[str, ...]) -> str:
    """The last line that it prints. Raises EngineError."""
    fault = EngineError(
        "upstream_unauthorized", "The command that prints the token of the upstream service failed."
    )
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        raise fault from None
    try:
        async with asyncio.timeout(_COMMAND_S):
            output, _ = await process.communicate()
    except BaseException as stopped:
        process.kill()
        await process.wait()
        if isinstance(stopped, TimeoutError):
            raise fault from None
        raise
    lines = output.decode("ascii", "replace").split()
    if process.returncode or not lines:
        raise fault
    return lines[-1]


# ------------------------------------------------------------------------------------------------------ options


def create(options: JsonObject) -> SpeechModel:
    """The factory of the entry point. Raises :class:`EngineOptionsError`."""
    given = convert_options(options, Options)
    url = _url(given)
    if given.api_key is not None and given.token_command is not None:
        raise EngineOptionsError("token_command", "takes the place of api_key: name one of them")
    if given.api_key is not None and _KEY.fullmatch(given.api_key) is None:
        raise EngineOptionsError("api_key", "a key is one or more printable ASCII characters, without spaces")
    if given.auth is not None and given.api_key is None:
        raise EngineOptionsError("auth", "says how api_key is sent, and there is none")
    for name, value in given.headers.items():
        if not name or not (name + value).isascii() or not (name + value).isprintable() or " " in name:
            raise EngineOptionsError(f"headers.{name}", "is no header")
    for voice in given.voices:
        if voice not in VOICES:
            raise EngineOptionsError(f"voices.{voice}", f"is none of the protocol's voices: {', '.join(VOICES)}")
    dialect = _dialect(given, url)
    if dialect == "preview":
        for option, has, what in (
            ("sees_images", given.sees_images, "images"),
            ("reasons", given.reasons, "reasoning"),
        ):
            if has:
                raise EngineOptionsError(option, f"the preview dialect has no {what}")
    return UpstreamRealtime(url, dialect, given, _tls(given))


def _url(options: Options) -> URL:
    if options.url is not None:
        if options.endpoint is not None or options.deployment is not None or options.api_version is not None:
            raise EngineOptionsError("url", "is whole: it does not go with endpoint, deployment or api_version")
        url = _parsed(options.url, "url")
        if url.path in ("", "/"):
            raise EngineOptionsError("url", "needs its path, such as /v1/realtime")
        return url if options.model is None else url.update_query(model=options.model)
    if options.endpoint is not None:
        if options.deployment is None or options.model is not None:
            raise EngineOptionsError("endpoint", "needs the name of a deployment, and no model")
        base = _parsed(options.endpoint, "endpoint").origin()
        if options.api_version is None:
            return (base / "openai/v1/realtime").with_query(model=options.deployment)
        query = {"api-version": options.api_version, "deployment": options.deployment}
        return (base / "openai/realtime").with_query(query)
    if options.deployment is not None or options.api_version is not None:
        raise EngineOptionsError("endpoint", "is required with deployment and api_version")
    if options.model is None:
        raise EngineOptionsError("", "needs url, or endpoint and deployment, or model")
    return URL(OPENAI).with_query(model=options.model)


def _parsed(text: str, option: str) -> URL:
    try:
        url = URL(text)
        usable = url.scheme in ("ws", "wss", "http", "https") and url.host and url.port
    except ValueError:
        usable = False
    if not usable:
        raise EngineOptionsError(option, "must look like wss://host, or ws, http or https")
    url = URL(text)
    return url.with_scheme({"http": "ws", "https": "wss"}.get(url.scheme, url.scheme))


def _dialect(options: Options, url: URL) -> DialectName:
    by_path: DialectName | None = None
    if url.path.endswith("/openai/realtime"):
        by_path = "preview"
    elif url.path.endswith("/openai/v1/realtime"):
        by_path = "ga"
    if options.dialect is None:
        return by_path or "ga"
    if by_path is not None and options.dialect != by_path:
        raise EngineOptionsError("dialect", f"this path speaks {by_path}")
    return options.dialect


def _auth(options: Options, url: URL) -> Literal["api-key", "bearer"]:
    """Azure's paths want the one, others the other."""
    return options.auth or ("api-key" if "/openai/" in url.path else "bearer")


def _tls(options: Options) -> ssl.SSLContext | None:
    if options.ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError):
        raise EngineOptionsError("ca_file", "cannot be read as certificates (PEM)") from None
