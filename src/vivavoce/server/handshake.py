"""The HTTP half of a connection: what is asked for, and what the answer carries (protocol sections 1.1 - 1.3)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
import struct
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
from aiohttp import ClientConnectionResetError, WSCloseCode, WSMessage, WSMsgType, web
from aiohttp._websocket.models import WSMessageTextBytes
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp._websocket.writer import WebSocketWriter
from multidict import CIMultiDict

from vivavoce.gateway.admission import AZURE_PREFIX, UpgradeRequest, chosen_subprotocol, client_request_id
from vivavoce.gateway.audit import Caller
from vivavoce.wire.codec import MAX_FRAME_BYTES
from vivavoce.wire.refusals import RefusedHandshake, RefusedSession

CLOSE_TIMEOUT_S: Final = 2.0
"""Seconds that a client gets to answer a close frame."""

_READ_AHEAD: Final = 64 * 1024
"""Bytes of frames that may wait for the reader; twice as many, and the connection is read no further."""
_TEXT: Final = WSMsgType.TEXT
"""Asked for each frame, and a member of an enumeration is slow to find by its name."""
_WHOLE_TEXT: Final = 0x80 | WSMsgType.TEXT.value
_SHORT: Final = struct.Struct("!BB").pack
_MEDIUM: Final = struct.Struct("!BBH").pack
_LONG: Final = struct.Struct("!BBQ").pack
_OPENAI_VERSION: Final = "2020-10-01"
_CLOSE_REASONS: Final = {1002: b"protocol error", 1007: b"invalid UTF-8", 1009: b"message too big"}


class Handshake:
    """One request, and what its answer tells about it.

    Azure paths tell ``apim-request-id`` (which is ``x-request-id`` too), ``openai-processing-ms`` (the time since
    the request was read) and ``openai-version``, on refusals and upgrades; others tell ``x-request-id`` on HTTP
    answers and nothing on upgrades. ``x-ms-client-request-id`` comes back everywhere.
    """

    def __init__(self, request: web.Request) -> None:
        self._began = time.perf_counter()
        self.request = request
        self.asked = _asked(request)
        self.id = str(uuid.uuid4())
        """Of this request, in the answer and in the log."""
        self.client_id = client_request_id(self.asked)

    @property
    def is_azure(self) -> bool:
        return self.asked.path.startswith(AZURE_PREFIX)

    @property
    def ids(self) -> str:
        """For a log line."""
        return f"request {self.id}" + (f" ({self.client_id})" if self.client_id else "")

    @property
    def caller(self) -> Caller:
        """For the audit."""
        return Caller(request_id=self.id, client_request_id=self.client_id, address=self.request.remote)

    def answer_headers(self, more: Iterable[tuple[str, str]] = (), *, upgrade: bool) -> CIMultiDict[str]:
        """Those of the answer to this request, after ``more`` of the caller's own, which they win over."""
        headers = CIMultiDict(more)
        if self.is_azure:
            headers["apim-request-id"] = self.id
            headers["openai-processing-ms"] = str(round((time.perf_counter() - self._began) * 1000))
            headers["openai-version"] = _OPENAI_VERSION
        if self.is_azure or not upgrade:
            headers["x-request-id"] = self.id
        if self.client_id:
            headers["x-ms-client-request-id"] = self.client_id
        return headers

    def socket(self, returned: Iterable[tuple[str, str]] = (), *, compress: bool) -> Socket:
        """The upgrade, not sent yet. ``returned``: headers of the request that it repeats."""
        subprotocol = chosen_subprotocol(self.asked.subprotocols)
        socket = Socket(
            timeout=CLOSE_TIMEOUT_S,
            autoping=False,
            protocols=(subprotocol,) if subprotocol else (),
            compress=compress,
            max_msg_size=MAX_FRAME_BYTES,
        )
        socket.headers.extend(self.answer_headers(returned, upgrade=True))
        return socket

    def refuse(self, refused: RefusedHandshake) -> web.Response:
        """Azure's way: no upgrade."""
        return web.Response(
            status=refused.status,
            body=msgspec.json.encode({"error": {"code": refused.code, "message": refused.message}}),
            content_type="application/json",
            headers=self.answer_headers(refused.headers.items(), upgrade=False),
        )

    async def tell(self, refused: RefusedSession) -> web.StreamResponse:
        """OpenAI's way: the upgrade, an ``error`` event, a close frame."""
        socket = self.socket(compress=False)
        try:
            await socket.prepare(self.request)
            event = {"type": "error", "event_id": f"event_{secrets.token_hex(10)}0", "error": refused.error}
            await socket.send_frame(msgspec.json.encode(event), WSMsgType.TEXT)
            await socket.close(code=refused.close_code, message=refused.reason.encode()[:123])
        except ConnectionError:
            pass
        return socket


class _Inbox(WebSocketDataQueue):
    """aiohttp's queue between the parser of frames and whoever reads them, which text may pass by while the reader
    waits for something and nothing has come for it.

    To look whether it is empty would not do: of a queue that was too full, what follows is parsed while its last
    frame is handed over.
    """

    take: Callable[[str], bool] | None = None
    _idle = False
    """Its reader has done with all that came."""

    def feed_data(self, data: WSMessage | WSMessageTextBytes, size: int) -> None:
        if self._idle and self.take is not None and data[0] is _TEXT and self.take(data[1]):
            return
        self._idle = False
        super().feed_data(data, size)

    async def read(self) -> WSMessage | WSMessageTextBytes:
        self._idle = not self._buffer
        return await super().read()


class Socket(web.WebSocketResponse):
    """aiohttp's WebSocket, but for three things.

    Where it closes by itself because of a broken frame, it gives no reason, and if it cannot inflate one no code:
    we do. Text need not wait for its reader to be woken, which costs an eighth of all that a session costs; see
    :meth:`take_text`. And frames that wait together leave together; see :meth:`send_texts`. It has no public way to
    these, so this leans on parts of 3.14 that may change in 3.15.
    """

    async def send_texts(self, frames: Sequence[bytes]) -> None:
        """Frames of text, each of UTF-8, in one call of the system, which costs more than all else of a frame.

        They are copied once, so several should not be large. Waits, as :meth:`send_frame` does, while more is under
        way than the transport holds.
        """
        writer = self._writer
        assert writer is not None
        if writer.compress or len(frames) == 1:
            for frame in frames:
                await writer.send_frame(frame, WSMsgType.TEXT)
            return
        if writer._closing or writer.transport.is_closing():
            raise ClientConnectionResetError("Cannot write to closing transport")
        # Not in lines, each of which would be a record of its own over TLS.
        writer.transport.write(b"".join([piece for frame in frames for piece in (_head(len(frame)), frame)]))
        if writer.protocol.writing_paused:
            await writer.protocol._drain_helper()

    def take_text(self, take: Callable[[str], bool] | None) -> None:
        """``take`` gets text as it arrives, while somebody awaits :meth:`receive` and has got nothing yet; what it
        answers False to comes there, and so does all that comes after, up to the next wait. None: all of it does.
        """
        assert isinstance(self._reader, _Inbox)
        self._reader.take = take

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: WebSocketWriter) -> None:
        self._ws_protocol = protocol
        self._writer = writer
        self._reader = _Inbox(request.protocol, _READ_AHEAD, loop=asyncio.get_running_loop())
        self._parser = WebSocketReader(
            self._reader, self._max_msg_size, compress=bool(self._compress), decode_text=True
        )
        request.protocol.set_parser(self._parser)
        request.protocol.keep_alive(False)

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        if code == WSCloseCode.OK and self.exception() is not None:
            code = WSCloseCode.PROTOCOL_ERROR
        if self._reader is not None:
            self.take_text(None)
            if self._waiting and not self.closed:
                # aiohttp's own word to whoever reads would end the connection before the client has answered, and
                # over TLS its answer would meet a closed door.
                self._reader.feed_data(WSMessage(WSMsgType.ERROR, None, None), 0)
        return await super().close(code=code, message=message or _CLOSE_REASONS.get(code, b""), drain=drain)


def _head(size: int) -> bytes:
    """What goes before so many bytes of text (RFC 6455, section 5.2): whole, not masked."""
    if size < 126:
        return _SHORT(_WHOLE_TEXT, size)
    return _MEDIUM(_WHOLE_TEXT, 126, size) if size < 1 << 16 else _LONG(_WHOLE_TEXT, 127, size)


def _asked(request: web.Request) -> UpgradeRequest:
    offered = request.headers.getall("Sec-WebSocket-Protocol", [])
    return UpgradeRequest(
        path=request.path,
        query=tuple(request.query.items()),
        headers=tuple(request.headers.items()),
        subprotocols=tuple(name.strip() for line in offered for name in line.split(",")),
        is_upgrade=_is_upgrade(request),
    )


def _is_upgrade(request: web.Request) -> bool:
    """A WebSocket handshake as RFC 6455 section 4.2.1 demands it: aiohttp finds nothing left to refuse, which it
    would do in words of its own.
    """
    headers = request.headers
    connection = ",".join(headers.getall("Connection", []))
    return (
        request.method == "GET"
        and headers.get("Upgrade", "").strip().lower() == "websocket"
        and "upgrade" in (token.strip().lower() for token in connection.split(","))
        and headers.get("Sec-WebSocket-Version") == "13"
        and _is_nonce(headers.get("Sec-WebSocket-Key", ""))
    )


def _is_nonce(key: str) -> bool:
    try:
        return len(base64.b64decode(key)) == 16
    except (binascii.Error, ValueError):
        return False
