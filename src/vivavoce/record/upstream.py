"""Connecting to a Realtime server on behalf of somebody: which URL, which headers, and what a refusal says.

A refusal is data here and no failure, for it is to be passed on, or compared. Redirects are refusals too: the key
must not go to another host.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final
from urllib.parse import unquote_plus

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from vivavoce.gateway.auth import KEY_SUBPROTOCOL, credentials, redact_headers, redact_url, tells_a_secret
from vivavoce.record.recording import Answer, Pairs

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_MAX_BODY_BYTES: Final = 64 * 1024

_OF_ONE_CONNECTION: Final = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class BadTarget(ValueError):
    """A URL or a header that cannot be used; the text says why, without repeating it."""


class Unreachable(Exception):
    """There is no server to talk to, or it does not speak WebSocket."""


class Refused(Exception):
    """The server did not upgrade the connection."""

    def __init__(self, answer: Answer, body: bytes) -> None:
        super().__init__(f"HTTP {answer.status}")
        self.answer = answer
        self.body = body


@dataclass(frozen=True, slots=True)
class Upstream:
    """A connection to a server."""

    socket: aiohttp.ClientWebSocketResponse
    answer: Answer
    """As it came: its headers may hold secrets."""
    drop: Callable[[], None]
    """Ends the connection without a word."""


def target_of(url: str) -> URL:
    """The server that ``--url`` names; ``http`` means ``ws``, ``https`` ``wss``. Raises :class:`BadTarget`."""
    try:
        target = URL(url.strip(), encoded=True)
        scheme = {"http": "ws", "https": "wss"}.get(target.scheme, target.scheme)
        usable = scheme in ("ws", "wss") and target.host and target.port
    except ValueError as fault:
        raise BadTarget("the URL is malformed") from fault
    if not usable:
        raise BadTarget("the URL must look like wss://host, or ws, http or https, with or without path and query")
    # Another scheme has another port if none is given.
    return URL(f"{scheme}{str(target)[len(target.scheme) :]}", encoded=True).with_fragment(None)


def join(target: URL, raw_path: str, raw_query: str) -> URL:
    """The URL of a connection that was asked for with ``raw_path`` and ``raw_query``.

    A path of the target replaces that path; parameters of the target replace those of the same name, and the others
    are kept as they are written.
    """
    ours = target.raw_query_string
    names = {_name(pair) for pair in ours.split("&")}
    kept = [pair for pair in raw_query.split("&") if pair and _name(pair) not in names]
    query = "&".join(([ours] if ours else []) + kept)
    path = raw_path if target.raw_path in ("", "/") else target.raw_path
    base = str(target.origin()) if target.user is None else f"{target.scheme}://{target.raw_authority}"
    return URL(f"{base}{path}{'?' if query else ''}{query}", encoded=True)


def _name(pair: str) -> str:
    return unquote_plus(pair.partition("=")[0]).lower()


def header_of(text: str) -> tuple[str, str]:
    """``Name: value`` of the command line. Raises :class:`BadTarget`."""
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not name or not (name + value).isascii() or not (name + value).isprintable() or " " in name:
        raise BadTarget('a header must look like "name: value"')
    if name.lower() in _OF_ONE_CONNECTION:
        raise BadTarget(f"the header {name} belongs to one connection and cannot be given")
    return name, value


def passed_on(headers: Sequence[tuple[str, str]], extra: Sequence[tuple[str, str]] = ()) -> Pairs:
    """Headers for the next hop; each of ``extra`` replaces all of its name."""
    replaced = {name.lower() for name, _ in extra} | _OF_ONE_CONNECTION
    # aiohttp's names are strings of another class, which nobody else knows.
    return (*((str(name), value) for name, value in headers if name.lower() not in replaced), *extra)


def secrets_of(query: str, headers: Sequence[tuple[str, str]], subprotocols: Sequence[str]) -> tuple[str, ...]:
    """The keys of a request, to be kept out of what is recorded."""
    pairs = tuple((name, unquote_plus(value)) for name, _, value in (p.partition("=") for p in query.split("&")))
    found = [credential.value for credential in credentials(pairs, headers, subprotocols)]
    # Whatever is hidden is secret, be it a key in our sense or a cookie.
    shown = redact_headers(headers)
    found += [
        value
        for (name, value), (_, text) in zip(headers, shown, strict=True)
        if value != text or tells_a_secret(name)
    ]
    hidden = redact_url(f"?{query}")[1:].split("&")
    found += [value for (_, value), pair in zip(pairs, hidden, strict=True) if pair.endswith("=***")]
    return tuple(found)


def redacted_subprotocols(subprotocols: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{KEY_SUBPROTOCOL}***" if name.startswith(KEY_SUBPROTOCOL) else name for name in subprotocols)


@asynccontextmanager
async def connected(
    url: URL,
    headers: Sequence[tuple[str, str]],
    subprotocols: Sequence[str],
    *,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Upstream]:
    """A connection; what is left of it at the end of the block is dropped.

    ``tls`` None: the certificates that this machine trusts. Neither pings nor closes are answered here: that is for
    whoever reads. Raises :class:`Refused` and :class:`Unreachable`.
    """
    refusal: list[Refused] = []

    async def keep(_: aiohttp.ClientSession, __: SimpleNamespace, end: aiohttp.TraceRequestEndParams) -> None:
        if end.response.status != 101:
            refusal.append(_refused(end.response, await _body(end.response)))

    async def no_redirect(
        _: aiohttp.ClientSession, __: SimpleNamespace, end: aiohttp.TraceRequestRedirectParams
    ) -> None:
        end.response.close()
        raise _refused(end.response, b"")

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(keep)
    trace.on_request_redirect.append(no_redirect)
    quiet = ("Accept", "Accept-Encoding", "User-Agent")
    async with aiohttp.ClientSession(trace_configs=[trace], skip_auto_headers=quiet) as session:
        try:
            socket = await session.ws_connect(
                url,
                headers=CIMultiDict(headers),
                protocols=tuple(subprotocols),
                max_msg_size=MAX_MESSAGE_BYTES,
                autoping=False,
                autoclose=False,
                ssl=True if tls is None else tls,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
            )
        except aiohttp.WSServerHandshakeError as fault:
            if refusal:
                raise refusal[0] from None
            raise Unreachable("the answer of the server is not a WebSocket handshake") from fault
        except (aiohttp.ClientError, OSError, ValueError) as fault:
            raise Unreachable(_why(fault)) from None

        def drop() -> None:
            connection = socket._response.connection
            if connection is not None and connection.transport is not None:
                connection.transport.abort()

        answer = Answer(101, passed_on(tuple(socket._response.headers.items())), socket.protocol)
        try:
            yield Upstream(socket, answer, drop)
        finally:
            drop()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """What there is of it, up to a bound."""
    body = b""
    with suppress(aiohttp.ClientError):
        while len(body) < _MAX_BODY_BYTES and (piece := await response.content.read(_MAX_BODY_BYTES - len(body))):
            body += piece
    return body


def _refused(response: aiohttp.ClientResponse, body: bytes) -> Refused:
    # The body is not compressed any more.
    headers = [pair for pair in response.headers.items() if pair[0].lower() != "content-encoding"]
    return Refused(Answer(response.status, passed_on(headers), None, body.decode("utf-8", "replace")), body)


def _why(fault: Exception) -> str:
    match fault:
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted ({fault.certificate_error})"
        case aiohttp.ClientConnectorDNSError():
            return "the host name is not known"
        case aiohttp.ClientConnectorError():
            return "the connection failed"
        case aiohttp.ServerDisconnectedError():
            return "it hung up during the handshake"
        case _:
            return f"the connection failed ({type(fault).__name__})"
