"""One server and the way to it: connections, deadlines, retries, and faults by our own names.

How a fault is named:

========================= ==========================================================================================
``engine_unavailable``    the server cannot be reached, breaks off, or answers 5xx
``engine_timeout``        a deadline has passed, or 408
``engine_rate_limited``   429
``engine_rejected``       any other 4xx: a wrong key, an unknown model, a request that it does not take
``invalid_engine_output`` the answer is not what this API answers
========================= ==========================================================================================
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import random
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from vivavoce.engines.base import EngineError, EngineOptionsError
from vivavoce.engines.openai_compatible.event_stream import EventReader, EventTooLong
from vivavoce.engines.openai_compatible.options import ConnectionOptions

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

T = TypeVar("T")

PROBE_S: Final = 5.0
"""Seconds between two looks at a server that could not be reached."""
FIRST_BACKOFF_S: Final = 0.25
LONGEST_BACKOFF_S: Final = 8.0
_DRAIN_S: Final = 0.25
"""The end of a stream should follow its last event at once; then its connection can be used again."""
_KEPT_CONNECTIONS: Final = 100
_KEPT_S: Final = 60.0
_ERROR_BYTES: Final = 65_536
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_RETRIED: Final = frozenset({408, 409, 425, 429})
_DONE: Final = b"[DONE]"
_NOTHING_LISTED: Final = frozenset({404, 405, 501})
_DOWN: Final = frozenset({502, 503, 504})


class Refusal(EngineError):
    """The server answered with an error; ``reason`` is its own code, or empty."""

    def __init__(self, code: str, message: str, reason: str) -> None:
        super().__init__(code, message)
        self.reason = reason


class _Trouble(Exception):
    """An attempt has failed. ``again``: another may do better, after ``wait_s`` where the server says so."""

    def __init__(self, fault: EngineError, *, again: bool, wait_s: float | None = None) -> None:
        self.fault = fault
        self.again = again
        self.wait_s = wait_s


class Upstream:
    """``what`` names the engine in messages: ``language model``. ``chance`` gives 0..1, for the back-off;
    ``transport`` takes the place of sockets."""

    def __init__(
        self,
        options: ConnectionOptions,
        what: str,
        *,
        chance: Callable[[], float] = random.random,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Raises EngineError where ``httpx`` is not installed, and EngineOptionsError."""
        try:
            import httpx
        except ImportError:
            raise EngineError(
                "engine_unavailable", "needs httpx: pip install 'vivavoce[openai-compatible]'"
            ) from None
        self._httpx = httpx
        self._options = options
        self._what = what
        self._chance = chance
        self._transport = transport
        self._open: httpx.AsyncClient | None = None
        self._trusted = _trusted(options.ca_file)
        self._closed = False
        self._probing: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------------ life

    @property
    def version(self) -> str:
        return version("httpx")

    @property
    def working(self) -> bool:
        """False since the server could not be reached, until it answers again, and after the end."""
        if self._closed:
            return False
        return self._probing is None or self._probing.done() or self._probing.cancelling() > 0

    async def start(self, small: Callable[[], AsyncGenerator[object, None]]) -> None:
        """``small``: a piece of work for the option ``warm_up``. Raises EngineError where the option ``check`` is
        ``fail`` and there is something to complain of; nothing is left then."""
        for library in ("httpx", "httpcore"):
            # They log the URL of each request, and in debug mode headers of answers.
            logging.getLogger(library).setLevel(logging.WARNING)
        try:
            problem = None if self._options.check == "off" else await self._problem()
            if problem is None and self._options.warm_up:
                problem = await self._warmed_up(small)
            if problem is not None and self._options.check == "fail":
                raise problem
        except BaseException:
            await self.close()
            raise
        if problem is not None and self._options.check == "warn":
            log.warning("%s", problem.message)

    async def _warmed_up(self, small: Callable[[], AsyncGenerator[object, None]]) -> EngineError | None:
        try:
            async with aclosing(small()) as products:
                await anext(products, None)
        except EngineError as fault:
            return fault
        return None

    async def close(self) -> None:
        # First of all, or work that fails meanwhile would look out for a server that nobody asks any more.
        self._closed = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        if self._open is not None:
            await self._open.aclose()

    @property
    def _client(self) -> httpx.AsyncClient:
        if self._open is None:
            httpx, options = self._httpx, self._options
            limits = httpx.Limits(
                max_connections=options.max_connections,
                max_keepalive_connections=_KEPT_CONNECTIONS,
                keepalive_expiry=_KEPT_S,
            )
            self._open = httpx.AsyncClient(
                headers={"user-agent": f"vivavoce/{version('vivavoce')}"} | options.all_headers(),
                timeout=httpx.Timeout(None, connect=options.connect_timeout_s),
                limits=limits,
                transport=self._transport,
                proxy=options.proxy,
                verify=self._trusted,
                # The environment is for the configuration to read.
                trust_env=False,
            )
        return self._open

    async def _problem(self) -> EngineError | None:
        """What is wrong with the server, as far as its list of models tells."""
        try:
            status, body = await self._get_models(self._options.first_token_timeout_s)
        except EngineError as fault:
            return fault
        if status in _NOTHING_LISTED:
            return None
        if status != 200:
            return self._refusal(status, body)
        model = self._options.model
        listed = _model_names(body)
        if self._options.api_version is not None or not listed or listed & {model, f"{model}:latest"}:
            # Azure lists models, and not the deployments of them.
            return None
        return EngineError("engine_rejected", f"The server of the {self._what} does not list the model {model}.")

    async def _get_models(self, patience_s: float) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(patience_s):
                response = await self._client.get(self._options.url("models"))
        except TimeoutError:
            raise self._timeout("answer") from None
        except self._httpx.HTTPError:
            self._went_down()
            raise self._unreachable() from None
        return response.status_code, response.content

    def _went_down(self) -> None:
        if self.working:
            self._probing = asyncio.create_task(self._look_out(), name=f"look out for the {self._what}")

    def _is_back(self) -> None:
        if self._probing is not None:
            self._probing.cancel()

    async def _look_out(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            with suppress(TimeoutError, self._httpx.HTTPError):
                async with asyncio.timeout(self._options.first_token_timeout_s):
                    response = await self._client.get(self._options.url("models"))
                if response.status_code not in _DOWN:
                    return

    # -------------------------------------------------------------------------------------------- requests

    async def events(
        self,
        path: str,
        *,
        decode: Callable[[bytes], T],
        begins: Callable[[T], bool] = lambda _: True,
        complete: Callable[[], bool] = lambda: False,
        **content: Any,
    ) -> AsyncGenerator[T, None]:
        """POST ``content`` (``json``, or ``data`` and ``files``) -> the events of the answer, decoded.

        ``decode`` raises ValueError for what is none, and EngineError. ``begins`` tells the first one that counts
        as an answer. ``complete`` says whether a stream that ends without ``[DONE]`` is whole. Raises EngineError.
        """

        async def read(response: httpx.Response) -> AsyncGenerator[T, None]:
            events = EventReader()
            pieces = response.aiter_bytes()
            async for piece in pieces:
                for data in events.feed(piece):
                    if data == _DONE:
                        with suppress(TimeoutError, self._httpx.HTTPError):
                            async with asyncio.timeout(_DRAIN_S):
                                async for _ in pieces:
                                    pass
                        return
                    yield self._decoded(data, decode)
            for data in events.end():
                if data == _DONE:
                    return
                yield self._decoded(data, decode)
            if not complete():
                raise _Trouble(self._broken_off(), again=True)

        async with aclosing(self._ask(path, read, begins, content)) as answers:
            async for answer in answers:
                yield answer

    async def sound(self, path: str, **content: Any) -> AsyncGenerator[bytes, None]:
        """POST ``content`` -> the bytes of the answer as they come. Raises EngineError."""

        async def read(response: httpx.Response) -> AsyncGenerator[bytes, None]:
            kind = response.headers.get("content-type", "")
            if kind.startswith(("application/json", "text/")):
                raise _Trouble(self.nonsense(), again=False)
            async for piece in response.aiter_bytes():
                if piece:
                    yield piece

        async with aclosing(self._ask(path, read, lambda _: True, content)) as answers:
            async for answer in answers:
                yield answer

    async def whole(self, path: str, *, decode: Callable[[bytes], T], **content: Any) -> T:
        """POST ``content`` -> the whole answer, decoded. Raises EngineError."""

        async def read(response: httpx.Response) -> AsyncGenerator[T, None]:
            yield self._decoded(await response.aread(), decode)

        async with aclosing(self._ask(path, read, lambda _: True, content)) as answers:
            return await anext(answers)

    def nonsense(self) -> EngineError:
        return EngineError("invalid_engine_output", f"The {self._what} sent what cannot be understood.")

    def reported(self, error: Any) -> _Trouble:
        """An error in the middle of a stream that began well."""
        status = error.get("code") if isinstance(error, dict) else None
        if not isinstance(status, int) or not 400 <= status < 600:
            status = 500
        refusal = self._refusal(status, json.dumps({"error": error}).encode())
        return _Trouble(refusal, again=status in _RETRIED or status >= 500)

    async def _ask(
        self,
        path: str,
        read: Callable[[httpx.Response], AsyncGenerator[T, None]],
        begins: Callable[[T], bool],
        content: dict[str, Any],
    ) -> AsyncGenerator[T, None]:
        """One request, tried again while nothing was given out. Raises EngineError."""
        if self._closed:
            raise EngineError("engine_unavailable", f"The {self._what} has been closed.")
        clock, options = asyncio.get_running_loop().time, self._options
        total = clock() + options.total_timeout_s
        first = min(total, clock() + options.first_token_timeout_s)
        for attempt in range(options.max_retries + 1):
            begun = False
            try:
                async with aclosing(self._attempt(path, read, begins, content, first, total)) as answers:
                    async for answer in answers:
                        begun = True
                        yield answer
                return
            except _Trouble as trouble:
                wait_s = self._backoff_s(attempt) if trouble.wait_s is None else trouble.wait_s
                late = clock() + wait_s >= first
                if begun or not trouble.again or attempt == options.max_retries or late:
                    raise trouble.fault from None
            await asyncio.sleep(wait_s)

    async def _attempt(
        self,
        path: str,
        read: Callable[[httpx.Response], AsyncGenerator[T, None]],
        begins: Callable[[T], bool],
        content: dict[str, Any],
        first: float,
        total: float,
    ) -> AsyncGenerator[T, None]:
        """Raises _Trouble. What comes before the answer begins is held back, so that it can be tried again."""
        clock = asyncio.get_running_loop().time
        httpx = self._httpx
        held: list[T] | None = []
        over = object()
        try:
            async with self._limited(first, "first of its answer"):
                response = await self._client.send(
                    self._client.build_request("POST", self._options.url(path), **_sendable(content)), stream=True
                )
            try:
                if response.status_code >= 400:
                    async with self._limited(first, "answer"):
                        body = await _some(response)
                    raise self._refused(response, body)
                self._is_back()
                async with aclosing(read(response)) as answers:
                    while True:
                        limit, what = first, "first of its answer"
                        if held is None:
                            pause = clock() + self._options.between_tokens_timeout_s
                            limit, what = min(pause, total), "next of its answer" if pause < total else "answer"
                        async with self._limited(limit, what):
                            answer = await anext(answers, over)
                        if answer is over:
                            break
                        if held is None:
                            yield cast(T, answer)
                            continue
                        held.append(cast(T, answer))
                        if begins(held[-1]):
                            ready, held = held, None
                            for earlier in ready:
                                yield earlier
                for earlier in held or ():
                    yield earlier
            finally:
                await response.aclose()
        except httpx.LocalProtocolError:
            raise _Trouble(
                EngineError("engine_rejected", f"The request to the {self._what} cannot be sent."), again=False
            ) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol):
            self._went_down()
            raise _Trouble(self._unreachable(), again=True) from None
        except (httpx.HTTPError, httpx.StreamError):
            raise _Trouble(self._broken_off(), again=not self._closed) from None
        except EventTooLong:
            raise _Trouble(self.nonsense(), again=False) from None

    def _decoded(self, data: bytes, decode: Callable[[bytes], T]) -> T:
        try:
            return decode(data)
        except ValueError:
            raise _Trouble(self.nonsense(), again=False) from None
        except EngineError as fault:
            raise _Trouble(fault, again=False) from None

    def _backoff_s(self, attempt: int) -> float:
        """Between half of a time that doubles, and all of it: those who failed together come back apart."""
        return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * float(2**attempt)) * (0.5 + self._chance() / 2)

    # ---------------------------------------------------------------------------------------------- faults

    def _limited(self, deadline: float, what: str) -> _Limit:
        return _Limit(deadline, self._timeout(what))

    def _timeout(self, what: str) -> EngineError:
        return EngineError("engine_timeout", f"The {self._what} took too long: the {what} did not come in time.")

    def _unreachable(self) -> EngineError:
        return EngineError("engine_unavailable", f"The server of the {self._what} cannot be reached.")

    def _broken_off(self) -> EngineError:
        return EngineError("engine_unavailable", f"The server of the {self._what} broke off its answer.")

    def _refused(self, response: httpx.Response, body: bytes) -> _Trouble:
        status = response.status_code
        if status in _DOWN:
            self._went_down()
        again = status in _RETRIED or status >= 500
        return _Trouble(
            self._refusal(status, body), again=again, wait_s=_retry_after_s(response) if again else None
        )

    def _refusal(self, status: int, body: bytes) -> Refusal:
        reason = _reason(body)
        if self._options.quotes(reason):
            reason = ""
        code = {408: "engine_timeout", 429: "engine_rate_limited"}.get(
            status, "engine_unavailable" if status >= 500 else "engine_rejected"
        )
        told = f"HTTP {status}, {reason}" if reason else f"HTTP {status}"
        return Refusal(code, f"The server of the {self._what} refused the request: {told}.", reason)


class _Limit:
    """``asyncio.timeout_at`` whose end is a :class:`_Trouble`."""

    def __init__(self, deadline: float, fault: EngineError) -> None:
        self._timeout = asyncio.timeout_at(deadline)
        self._fault = fault

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, value: Any, trace: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, value, trace)
        except TimeoutError:
            raise _Trouble(self._fault, again=False) from None


def _trusted(ca_file: str | None) -> ssl.SSLContext | bool:
    """Raises EngineOptionsError."""
    try:
        return True if ca_file is None else ssl.create_default_context(cafile=ca_file)
    except OSError as fault:
        raise EngineOptionsError("ca_file", f"cannot be read: {fault.strerror or fault}") from None


def _sendable(content: dict[str, Any]) -> dict[str, Any]:
    """``json`` as bytes: half characters, which clients can send and UTF-8 does not know, become question marks."""
    if "json" not in content:
        return content
    text = json.dumps(content["json"], ensure_ascii=False, separators=(",", ":"))
    return {"content": text.encode("utf-8", "replace"), "headers": {"content-type": "application/json"}}


async def _some(response: httpx.Response) -> bytes:
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > _ERROR_BYTES:
            break
    return body


def _reason(body: bytes) -> str:
    """The code of an error, or its type, where that is a mere name."""
    with suppress(ValueError, TypeError, KeyError):
        error = json.loads(body)["error"] if body else None
        for name in (error.get("code"), error.get("type")) if isinstance(error, dict) else ():
            if isinstance(name, str) and _NAME.fullmatch(name):
                return name
    return ""


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds, from a number or a date."""
    for header, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        said = response.headers.get(header)
        if said is None:
            continue
        with suppress(ValueError):
            return min(max(0.0, float(said) * unit_s), 1e9)
        with suppress(ValueError, TypeError):
            date = email.utils.parsedate_to_datetime(said)
            return max(0.0, date.timestamp() - time.time())
    return None


def _model_names(body: bytes) -> set[str]:
    with suppress(ValueError, TypeError, KeyError):
        return {entry["id"] for entry in json.loads(body)["data"]}
    return set()


async def collected(audio: AsyncIterator[bytes]) -> bytes:
    """All of an utterance."""
    return b"".join([piece async for piece in audio])
