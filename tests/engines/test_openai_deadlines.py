"""How long the engines of ``openai_compatible`` wait, and what they try again: on a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from openai_fake import DONE, chunk

from vivavoce.engines import base
from vivavoce.engines.openai_compatible.language_model import LanguageModelOptions, OpenAICompatibleModel
from vivavoce.engines.openai_compatible.upstream import Upstream
from vivavoce.testing import virtual_time

HELLO = base.GenerationRequest("", (base.Message("user", (base.TextInput("Hi"),)),))
YES = [chunk({"content": "Yes"}), chunk({}, "stop"), DONE]


class Body(httpx.AsyncByteStream):
    """Pieces to give, numbers of seconds to wait, and faults to raise."""

    def __init__(self, *pieces: Any) -> None:
        self._pieces = pieces
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            elif isinstance(piece, Exception):
                raise piece
            else:
                await asyncio.sleep(piece)

    async def aclose(self) -> None:
        self.closed = True


class Server(httpx.AsyncBaseTransport):
    """Gives one answer after the other: a body, a response, a fault, or a time to wait and then one of them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.at: list[float] = []
        """When it was asked."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.at.append(virtual_time.now())
        answer = self.answers.pop(0)
        if isinstance(answer, tuple):
            await asyncio.sleep(answer[0])
            answer = answer[1]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, stream=answer)


async def outcome(server: Server, **options: Any) -> str:
    """What comes of one request, and when, the clock going on by tenths of seconds."""
    read = LanguageModelOptions(base_url="http://h/v1", model="m", **options)
    model = OpenAICompatibleModel(read, Upstream(read, "language model", chance=lambda: 1.0, transport=server))
    work = asyncio.ensure_future(_words(model))
    while not work.done():
        for _ in range(50):
            await asyncio.sleep(0)
        if not work.done():
            virtual_time.advance(0.125)
    working = model.working
    await model.close()
    return f"{await work} at {virtual_time.now():g}" + ("" if working else ", down")


async def _words(model: OpenAICompatibleModel) -> str:
    words = ""
    try:
        async with aclosing(model.generate(HELLO)) as deltas:
            async for delta in deltas:
                words += delta.text if isinstance(delta, base.TextDelta) else ""
    except base.EngineError as fault:
        return f"{words}/{fault.code}"
    return words


def busy(status: int = 503, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={key.replace("_", "-"): value for key, value in headers.items()})


REFUSED = httpx.ConnectError("refused")
CUT = httpx.ReadError("cut")


@pytest.mark.parametrize(
    ("answers", "options", "wanted", "asked_at"),
    [
        # Tried again, after times that double.
        ([REFUSED, Body(*YES)], {}, "Yes at 0.25", [0, 0.25]),
        ([busy(500), busy(502), Body(*YES)], {}, "Yes at 0.75", [0, 0.25, 0.75]),
        ([busy(409), busy(408), Body(*YES)], {}, "Yes at 0.75", [0, 0.25, 0.75]),
        ([httpx.RemoteProtocolError("gone"), Body(*YES)], {}, "Yes at 0.25", [0, 0.25]),
        ([Body(chunk({"role": "assistant"}), CUT), Body(*YES)], {}, "Yes at 0.25", [0, 0.25]),
        ([busy(429)] * 3, {}, "/engine_rate_limited at 0.75", [0, 0.25, 0.75]),
        ([REFUSED] * 4, {"max_retries": 3}, "/engine_unavailable at 1.75, down", [0, 0.25, 0.75, 1.75]),
        ([REFUSED], {"max_retries": 0}, "/engine_unavailable at 0, down", [0]),
        # As the server asks for, where that is in time.
        ([busy(429, retry_after="3"), Body(*YES)], {}, "Yes at 3", [0, 3]),
        ([busy(429, retry_after_ms="500", retry_after="3"), Body(*YES)], {}, "Yes at 0.5", [0, 0.5]),
        ([busy(503, retry_after="soon"), Body(*YES)], {}, "Yes at 0.25", [0, 0.25]),
        ([busy(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT"), Body(*YES)], {}, "Yes at 0", [0, 0]),
        ([busy(429, retry_after="31")], {}, "/engine_rate_limited at 0", [0]),
        ([busy(429, retry_after="inf")], {}, "/engine_rate_limited at 0", [0]),
        # Not tried again: it would be refused again, or something has been said.
        ([busy(400)], {}, "/engine_rejected at 0", [0]),
        ([busy(401, retry_after="1")], {}, "/engine_rejected at 0", [0]),
        ([Body(*YES[:1], CUT)], {}, "Yes/engine_unavailable at 0", [0]),
        ([Body(chunk({"reasoning_content": "Hm"}), CUT)], {}, "/engine_unavailable at 0", [0]),
        # The first of the answer.
        ([(31, Body(*YES))], {}, "/engine_timeout at 30", [0]),
        ([(29.0, Body(*YES))], {}, "Yes at 29", [0]),
        ([Body(b": wait\n\n", 20, chunk({"role": "assistant"}), 11, *YES)], {}, "/engine_timeout at 30", [0]),
        ([(29.0, busy(503)), (2, Body(*YES))], {}, "/engine_timeout at 30, down", [0, 29.25]),
        ([(29.875, busy(500))], {}, "/engine_unavailable at 29.875", [0]),
        ([Body(40, *YES)], {"first_token_timeout_s": 60}, "Yes at 40", [0]),
        # Between two of it: thinking is a sign of life.
        ([Body(*YES[:1], 14, chunk({"content": "!"}), 14, *YES[1:])], {}, "Yes! at 28", [0]),
        ([Body(*YES[:1], 16, *YES[1:])], {}, "Yes/engine_timeout at 15", [0]),
        ([Body(chunk({"reasoning": "Hm"}), 14, chunk({"reasoning": "Hm"}), 14, *YES)], {}, "Yes at 28", [0]),
        ([Body(*YES[:1], 1, *YES[:1], 1)], {"total_timeout_s": 1.5}, "YesYes/engine_timeout at 1.5", [0]),
        # The end of a stream that the server does not end.
        ([Body(*YES, 1000)], {}, "Yes at 0.25", [0]),
    ],
)  # fmt: skip
def test_patience(answers: list[Any], options: dict[str, Any], wanted: str, asked_at: list[float]) -> None:
    server = Server(*answers)
    assert virtual_time.run(outcome(server, **options)) == wanted
    assert server.at == asked_at
    assert server.answers == []
    assert all(answer.closed for answer in answers if isinstance(answer, Body))


def in_virtual_time(scene: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await scene()

    virtual_time.run(run())


async def until_idle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


def test_a_server_that_was_away_is_looked_after_until_it_is_back() -> None:
    async def scene() -> None:
        server = Server(REFUSED, REFUSED, busy(503), busy(404), Body(*YES))
        read = LanguageModelOptions(base_url="http://h/v1", model="m", max_retries=0)
        model = OpenAICompatibleModel(read, Upstream(read, "language model", transport=server))
        seen = [model.working]
        assert await _words(model) == "/engine_unavailable"
        for _ in range(3):
            await until_idle()
            seen.append(model.working)
            virtual_time.advance(5)
        await until_idle()
        assert [*seen, model.working] == [True, False, False, False, True]
        assert server.at == [0, 5, 10, 15]
        assert await _words(model) == "Yes"
        await model.close()

    in_virtual_time(scene)


def test_closing_ends_the_look_out() -> None:
    async def scene() -> None:
        read = LanguageModelOptions(base_url="http://h/v1", model="m")
        model = OpenAICompatibleModel(read, Upstream(read, "language model", transport=Server(REFUSED)))
        await model.start()
        assert not model.working
        await model.close()
        assert len(asyncio.all_tasks()) == 1

    in_virtual_time(scene)


def test_work_that_fails_while_it_closes_begins_no_look_out() -> None:
    class Stuck(Server):
        stuck: asyncio.Future[httpx.Response]

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if self.answers:
                return await super().handle_async_request(request)
            return await self.stuck

    async def scene() -> None:
        server = Stuck(REFUSED)
        server.stuck = asyncio.get_running_loop().create_future()
        read = LanguageModelOptions(base_url="http://h/v1", model="m", max_retries=0)
        model = OpenAICompatibleModel(read, Upstream(read, "language model", transport=server))
        await model.start()
        work = asyncio.create_task(_words(model))
        await until_idle()
        server.stuck.set_exception(REFUSED)
        await model.close()
        assert await work == "/engine_unavailable"
        assert len(asyncio.all_tasks()) == 1

    in_virtual_time(scene)


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_those_who_failed_together_come_back_apart(chance: float) -> None:
    read = LanguageModelOptions(base_url="http://h/v1", model="m")
    upstream = Upstream(read, "language model", chance=lambda: chance)
    waits = [upstream._backoff_s(attempt) for attempt in range(8)]
    assert waits == [(0.5 + chance / 2) * full for full in (0.25, 0.5, 1, 2, 4, 8, 8, 8)]
