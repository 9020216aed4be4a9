"""A minimal client of the Realtime API: connect, send events, iterate over the server's events.

Laws
----
1. The key goes into one header and nowhere else: not into messages, not into ``repr``, and not to another
   host (redirects are refused).
2. A refused handshake is told with its HTTP status and the reason from its body.
3. Every way a connection ends is one of the exceptions of this module.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import aiohttp

API_VERSION: Final = "2024-10-01-preview"
AZURE_PATH: Final = "/openai/realtime"
OPENAI_PATH: Final = "/v1/realtime"
_OPENAI_HOST: Final = "api.openai.com"

# The longest event: no limit in the protocol for what a server sends; this stops a runaway peer.
_MAX_EVENT_BYTES: Final = 64 * 1024 * 1024
_MAX_BODY_BYTES: Final = 64 * 1024
_CLOSE_TIMEOUT_S: Final = 2.0

Event: TypeAlias = dict[str, Any]
"""An event of the server: a JSON object whose ``type`` is a string."""


class ClientError(Exception):
    """The conversation cannot begin or go on; the message is one line."""


class BadUrl(ClientError):
    """The URL given cannot be used."""


class ConnectError(ClientError):
    """The connection was refused or failed; ``status`` is the HTTP status where there is one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ConnectionLost(ClientError):
    """The connection ended while it was needed."""


class ProtocolFault(ClientError):
    """The server sent something that is not an event of the protocol."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect and as whom."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    shown: str
    """The URL without what must not be seen."""
    secrets: tuple[str, ...] = field(repr=False)
    """What must never be printed."""


def resolve(url: str, *, deployment: str, api_key: str | None) -> Target:
    """The connection that ``url`` means.

    A URL without a path (or with ``/openai``) gets the path and parameters of the Azure preview; the host
    ``api.openai.com``, or the path ``/v1``, those of OpenAI. A known path without parameters gets its
    parameters; anything else is taken as it is. ``http`` means ``ws``, ``https`` means ``wss``.
    The key travels as ``api-key``, on ``/v1/realtime`` as a Bearer token. Raises :class:`BadUrl`.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as fault:
        raise BadUrl("the URL is malformed") from fault
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not host:
        raise BadUrl("the URL must look like ws://host:port, or wss, http or https")
    path, query = _place(parts, host, deployment)
    headers: dict[str, str] = {}
    openai = path.endswith(OPENAI_PATH)
    if openai:
        headers["OpenAI-Beta"] = "realtime=v1"
    if api_key is not None:
        _check_key(api_key)
        headers.update({"Authorization": f"Bearer {api_key}"} if openai else {"api-key": api_key})
    shown_host = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    hidden = {"api-key", "api_key", "authorization", "token", "key"}
    pairs = parse_qsl(query, keep_blank_values=True)
    shown_query = "&".join(f"{k}=***" if k.lower() in hidden else urlencode({k: v}) for k, v in pairs)
    found = [api_key, parts.password, *(v for k, v in pairs if k.lower() in hidden)]
    return Target(
        url=parts._replace(scheme=scheme, path=path, query=query, fragment="").geturl(),
        headers=headers,
        shown=f"{scheme}://{shown_host}{path}" + (f"?{shown_query}" if shown_query else ""),
        secrets=tuple(secret for secret in found if secret),
    )


def _place(parts: SplitResult, host: str, deployment: str) -> tuple[str, str]:
    path = parts.path.rstrip("/")
    if path in ("", "/openai", "/v1"):
        path = OPENAI_PATH if path == "/v1" or (not path and host == _OPENAI_HOST) else AZURE_PATH
    elif path not in (AZURE_PATH, OPENAI_PATH):
        return parts.path, parts.query
    if parts.query:
        return path, parts.query
    if path == OPENAI_PATH:
        return path, urlencode({"model": deployment})
    return path, urlencode({"api-version": API_VERSION, "deployment": deployment})


def _check_key(api_key: str) -> None:
    if not api_key or not api_key.isascii() or not api_key.isprintable():
        raise BadUrl("the API key is empty or holds characters that a header cannot carry")


class RealtimeClient:
    """One open connection. Made by :func:`connect`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, event: Mapping[str, Any]) -> None:
        """Send one event; waits while the server does not read. Raises :class:`ConnectionLost`."""
        try:
            await self._socket.send_str(json.dumps(event))
        except (ConnectionError, aiohttp.ClientError) as fault:
            raise ConnectionLost("the connection to the server is gone") from fault

    async def events(self) -> AsyncIterator[Event]:
        """The server's events in the order sent.

        Never ends by itself: raises :class:`ConnectionLost` when the connection closes, and
        :class:`ProtocolFault` for a frame that is not an event.
        """
        while True:
            message = await self._socket.receive()
            match message.type:
                case aiohttp.WSMsgType.TEXT:
                    yield _event_of(message.data)
                case aiohttp.WSMsgType.BINARY:
                    raise ProtocolFault("the server sent a binary frame")
                case aiohttp.WSMsgType.CLOSE:
                    reason = f": {message.extra}" if message.extra else ""
                    raise ConnectionLost(f"the server closed the connection (code {message.data}{reason})")
                case _:
                    raise ConnectionLost("the connection to the server broke")


def _event_of(frame: str) -> Event:
    try:
        value = json.loads(frame)
    except ValueError as fault:
        raise ProtocolFault("the server sent a frame that is not JSON") from fault
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise ProtocolFault("the server sent a frame that is not an event")
    return value


@asynccontextmanager
async def connect(target: Target) -> AsyncIterator[RealtimeClient]:
    """A connection to ``target``, closed in an orderly way (code 1000) at the end of the block.

    Sets no time limit of its own. Raises :class:`ConnectError`.
    """
    trace = aiohttp.TraceConfig()
    refusal: dict[str, bytes] = {}

    async def keep_body(
        _session: aiohttp.ClientSession, _context: SimpleNamespace, end: aiohttp.TraceRequestEndParams
    ) -> None:
        if end.response.status != 101:
            refusal["body"] = await end.response.content.read(_MAX_BODY_BYTES)

    async def refuse_redirect(
        _session: aiohttp.ClientSession, _context: SimpleNamespace, end: aiohttp.TraceRequestRedirectParams
    ) -> None:
        # aiohttp would carry the api-key header along to whatever host the answer names.
        end.response.close()
        raise ConnectError(
            f"the server refused the connection: HTTP {end.response.status} (a redirect)", end.response.status
        )

    trace.on_request_end.append(keep_body)
    trace.on_request_redirect.append(refuse_redirect)
    async with aiohttp.ClientSession(trace_configs=[trace]) as session:
        try:
            socket = await session.ws_connect(
                target.url,
                headers=dict(target.headers),
                max_msg_size=_MAX_EVENT_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT_S),
            )
        except aiohttp.WSServerHandshakeError as fault:
            raise _refused(fault, refusal.get("body", b"")) from fault
        except (aiohttp.ClientError, OSError, ssl.SSLError, ValueError) as fault:
            raise ConnectError(f"cannot connect to {target.shown}: {_cause(fault)}") from fault
        try:
            yield RealtimeClient(socket)
        finally:
            await socket.close()


def _refused(fault: aiohttp.WSServerHandshakeError, body: bytes) -> ConnectError:
    if fault.status == 101:
        return ConnectError("the server's answer is not a WebSocket handshake", fault.status)
    text = _reason_in(body)
    return ConnectError(
        f"the server refused the connection: HTTP {fault.status}" + (f": {text}" if text else ""), fault.status
    )


def _reason_in(body: bytes) -> str:
    """The reason in the body of a refusal: ``error.message`` of a JSON object, or a short text."""
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except ValueError:
        first = text.strip().splitlines()
        return "" if not first or first[0].lstrip().startswith("<") else first[0][:300]
    error = value.get("error") if isinstance(value, dict) else None
    source = error if isinstance(error, dict) else value if isinstance(value, dict) else {}
    message, code = source.get("message"), source.get("code")
    if not isinstance(message, str) or not message:
        return str(error if isinstance(error, str) else code or "")[:300]
    return f"{message} (code {code})" if isinstance(code, str) and code else message


def _cause(fault: BaseException) -> str:
    match fault:
        case aiohttp.ClientConnectorCertificateError():
            inner = fault.certificate_error
            why = inner.verify_message if isinstance(inner, ssl.SSLCertVerificationError) else str(inner)
            return f"the server's certificate is not trusted ({why})"
        case aiohttp.ClientConnectorSSLError():
            return "the server does not speak TLS as expected"
        case aiohttp.ClientConnectorDNSError():
            return "the host name is not known"
        case aiohttp.ClientConnectorError():
            # asyncio puts its own words into strerror; with several addresses there is no number at all.
            number = fault.os_error.errno
            return os.strerror(number).lower() if number and number > 0 else "connection failed"
        case aiohttp.ServerDisconnectedError():
            return "the server hung up during the handshake"
        case aiohttp.InvalidURL():
            return "the URL is malformed"
        case _:
            return f"{type(fault).__name__}: {fault}"
