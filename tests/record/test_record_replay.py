"""Replaying against a server that does as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiohttp import WSMsgType, web

from vivavoce.record.compare import compare
from vivavoce.record.recording import Answer, End, Frame, Header, Recording, RecordingError, Size
from vivavoce.record.replay import Replayed, ReplayOptions, replay
from vivavoce.record.show import told
from vivavoce.record.upstream import Unreachable, target_of

PATIENCE_S: Final = 30.0
"""When a test hangs, not when it is slow."""
HEADER: Final = Header(1, "2026-01-01", "ws://was/v1/realtime?model=m", (), (), True, Answer(101))
KEY: Final = "the-new-key"

Event = dict[str, Any]
Talk = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The server's end."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send_str(json.dumps({"type": kind, **fields}))

    async def get(self) -> Any:
        message = await self.socket.receive(PATIENCE_S)
        return json.loads(message.data) if message.type is WSMsgType.TEXT else (message.type, message.data)

    async def until_closed(self) -> tuple[int | None, str]:
        message = await self.socket.receive(PATIENCE_S)
        assert message.type is WSMsgType.CLOSE, message
        return message.data, message.extra or ""


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[tuple[str, list[web.Request]]]:
    requests: list[web.Request] = []
    faults: list[BaseException] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        socket = web.WebSocketResponse(protocols=("realtime",), autoclose=False)
        await socket.prepare(request)
        try:
            await talk(Peer(socket))
        except (Exception, asyncio.CancelledError) as fault:
            faults.append(fault)
        await socket.close()
        return socket

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}", requests
    finally:
        await runner.cleanup()
        if faults:
            raise faults[0]


def s(kind: str, t_ms: int = 0, **fields: Any) -> Frame:
    return Frame(t_ms, "server", {"type": kind, **fields})


def c(kind: str, t_ms: int = 0, **fields: Any) -> Frame:
    return Frame(t_ms, "client", {"type": kind, **fields})


def recorded(*frames: Frame, end: End | None = None, end_ms: int = 0, header: Header = HEADER) -> Recording:
    return Recording(header, frames, end or End(1000, "", "client"), end_ms)


async def replayed(recording: Recording, url: str, **options: Any) -> Replayed:
    options = {"pace": "fast", "patience_s": 0.2, **options}
    async with asyncio.timeout(PATIENCE_S):
        return await replay(recording, ReplayOptions(target_of(url), **options))


# ---------------------------------------------------------------------------------------------------------- order


async def test_a_message_waits_for_what_the_server_had_said_before_it() -> None:
    order: list[str] = []

    async def talk(peer: Peer) -> None:
        for text in ("on", "ce "):
            await peer.send("response.text.delta", delta=text)
        for _ in range(50):
            await asyncio.sleep(0)
        order.append("said")
        await peer.send("response.text.delta", delta="upon")
        order.append((await peer.get())["type"])
        await peer.send("response.done")
        order.append((await peer.get())["type"])
        await peer.until_closed()

    recording = recorded(
        s("response.text.delta", delta="once"),
        s("response.text.delta", delta=" upon"),
        c("response.cancel"),
        s("response.done"),
        c("session.update"),
    )
    async with server(talk) as (url, _):
        result = await replayed(recording, url, patience_s=PATIENCE_S)
    assert order == ["said", "response.cancel", "session.update"]
    assert result.notes == ()
    assert compare(recording, result.recording).differences == ()


async def test_a_stream_that_ends_sooner_is_not_waited_for() -> None:
    async def talk(peer: Peer) -> None:
        await peer.send("response.text.delta", delta="o")
        await peer.send("response.text.done", text="o")
        assert (await peer.get())["type"] == "response.cancel"
        await peer.until_closed()

    recording = recorded(
        s("response.text.delta", delta="once"), c("response.cancel"), s("response.text.done", text="once")
    )
    async with server(talk) as (url, _):
        result = await replayed(recording, url, patience_s=PATIENCE_S)
    assert result.notes == ()
    assert len(compare(recording, result.recording).differences) == 2


async def test_what_never_comes_is_waited_for_once() -> None:
    async def talk(peer: Peer) -> None:
        await peer.send("a")
        for kind in ("one", "two"):
            assert (await peer.get())["type"] == kind
        # It comes late, and is not taken for the second.
        await peer.send("b")
        await peer.send("b")
        assert (await peer.get())["type"] == "three"
        await peer.until_closed()

    recording = recorded(s("a"), s("b"), c("one"), c("two"), s("b"), c("three"), end_ms=0)
    async with server(talk) as (url, _):
        result = await replayed(recording, url)
    assert result.notes == ("line 4: b did not come before it",)
    assert compare(recording, result.recording).differences == ()


async def test_the_recorded_pace_keeps_the_time_between_messages() -> None:
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def talk(peer: Peer) -> None:
        await peer.send("a")
        for _ in range(3):
            await peer.get()
            times.append(loop.time())
        await peer.until_closed()

    recording = recorded(s("a", 0), c("x", 50), c("y", 150), c("z", 152), end_ms=152)
    async with server(talk) as (url, _):
        began = loop.time()
        await replayed(recording, url, pace="recorded", patience_s=PATIENCE_S)
    assert times[0] - began >= 0.05
    assert times[1] - times[0] >= 0.09
    assert times[2] - times[0] >= 0.09


async def test_the_client_stays_as_long_as_it_did() -> None:
    async def talk(peer: Peer) -> None:
        await peer.send("a")
        await peer.get()
        await peer.send("extra")
        await peer.until_closed()

    gone, stayed = (recorded(s("a"), c("x"), end_ms=ms) for ms in (0, 100))
    async with server(talk) as (url, _):
        assert compare(gone, (await replayed(gone, url)).recording).differences == ()
        found = compare(stayed, (await replayed(stayed, url)).recording).differences
    assert [told(difference) for difference in found] == ["extra was not recorded (now after a)"]


# ------------------------------------------------------------------------------------------------- ids and forms


async def test_ids_of_the_server_are_translated_and_others_are_not() -> None:
    got: list[Event] = []

    async def talk(peer: Peer) -> None:
        await peer.send(
            "response.output_item.added",
            response_id="resp_new_one",
            item={"id": "i-new", "call_id": "call_new_one"},
        )
        got.append(await peer.get())
        await peer.until_closed()

    item = {
        "id": "mine",
        "call_id": "call_old_one",
        "output": "of call_old_one in it_is_mine",
        "other_id": "it_is_mine",
    }
    recording = recorded(
        s("response.output_item.added", response_id="resp_old_one", item={"id": "i", "call_id": "call_old_one"}),
        c("conversation.item.create", event_id="e1", previous_item_id="i", item=item, text="i"),
    )
    async with server(talk) as (url, _):
        result = await replayed(recording, url)
    assert result.notes == ()
    translated = {
        "id": "mine",
        "call_id": "call_new_one",
        "output": "of call_new_one in it_is_mine",
        "other_id": "it_is_mine",
    }
    assert got == [
        {
            "type": "conversation.item.create",
            "event_id": "e1",
            "previous_item_id": "i-new",
            "item": translated,
            "text": "i",
        }
    ]


async def test_an_id_that_nothing_stands_for_is_told() -> None:
    async def talk(peer: Peer) -> None:
        assert (await peer.get())["item_id"] == "item_old"
        await peer.until_closed()

    recording = recorded(s("a", item={"id": "item_old"}), c("conversation.item.delete", item_id="item_old"))
    async with server(talk) as (url, _):
        result = await replayed(recording, url)
    assert result.notes == (
        "line 3: a did not come before it",
        "line 3: nothing stands for the id item_old now; it was sent as it is",
    )


async def test_every_form_of_a_message_is_sent_as_it_was() -> None:
    got: list[Any] = []

    async def talk(peer: Peer) -> None:
        got.append((await peer.socket.receive(PATIENCE_S)).data)
        got.append((await peer.socket.receive(PATIENCE_S)).data)
        got.append((await peer.socket.receive(PATIENCE_S)).data)
        await peer.until_closed()

    recording = recorded(
        Frame(0, "client", text="{not json"),
        Frame(0, "client", binary="AP8="),
        c("x", n=1.0, text="\ud800", hidden="***"),
    )
    async with server(talk) as (url, _):
        result = await replayed(recording, url)
    assert got[:2] == ["{not json", b"\x00\xff"]
    assert json.loads(got[2]) == {"type": "x", "n": 1.0, "text": "\ud800", "hidden": "***"}
    assert result.notes == ("line 4: a secret was taken out of this event, so it was sent without",)
    assert [frame.text or frame.binary or frame.event for frame in result.recording.frames] == [
        frame.text or frame.binary or frame.event for frame in recording.frames
    ]


@pytest.mark.parametrize(
    "frame",
    [
        c("input_audio_buffer.append", audio={"bytes": 5}),
        c("conversation.item.create", item={"content": [{"type": "input_audio", "audio": {"bytes": 5}}]}),
        Frame(0, "client", binary=Size(5)),
        Frame(0, "client", text=Size(5)),
    ],
)
async def test_audio_that_was_left_out_cannot_be_sent(frame: Frame) -> None:
    with pytest.raises(RecordingError, match="line 2: it was recorded without its audio"):
        await replayed(recorded(frame), "ws://127.0.0.1:1")


# ------------------------------------------------------------------------------------------------------- the ends


@pytest.mark.parametrize(
    ("end", "sent"),
    [(End(4001, "enough", "client"), (4001, "enough")), (End(1006, "", "client"), (1000, "")), (None, (1000, ""))],
)
async def test_the_client_closes_as_it_did(end: End | None, sent: tuple[int, str]) -> None:
    closed: list[tuple[int | None, str]] = []

    async def talk(peer: Peer) -> None:
        closed.append(await peer.until_closed())

    async with server(talk) as (url, _):
        await replayed(Recording(HEADER, (), end), url)
    assert closed == [sent]


async def test_the_server_closes_as_it_did_or_not() -> None:
    async def leave(peer: Peer) -> None:
        await peer.send("error")
        await peer.socket.close(code=4004, message=b"no")

    async def stay(peer: Peer) -> None:
        await peer.send("error")
        await peer.until_closed()

    recording = recorded(s("error"), end=End(4004, "no", "server"))
    async with server(leave) as (url, _):
        result = await replayed(recording, url, patience_s=PATIENCE_S)
        assert compare(recording, result.recording).differences == ()
        early = recorded(s("error"), s("a"), c("x"), c("y"), end=End(4004, "no", "server"))
        result = await replayed(early, url, patience_s=PATIENCE_S)
        assert result.notes == ("line 4: the connection ended before this was sent; 2 were not sent",)
    async with server(stay) as (url, _):
        result = await replayed(recording, url)
    (difference,) = compare(recording, result.recording).differences
    assert (difference.kind, difference.event) == ("missing", "(close)")


# -------------------------------------------------------------------------------------------------- the handshake


async def nothing(peer: Peer) -> None:
    await peer.until_closed()


HIDDEN_KEYS: Final = Header(
    1,
    "2026-01-01",
    "wss://was/openai/realtime?deployment=d&api-key=***&Authorization=***",
    (
        ("api-key", "***"),
        ("Authorization", "***"),
        ("Cookie", "***"),
        ("X-Mine", "1"),
        ("OpenAI-Beta", "realtime=v1"),
    ),
    ("realtime", "openai-insecure-api-key.***"),
    True,
    Answer(101, subprotocol="realtime"),
)


async def test_the_recorded_request_is_made_with_another_key() -> None:
    async with server(nothing) as (url, requests):
        result = await replayed(recorded(header=HIDDEN_KEYS), url, api_key=KEY, headers=(("x-mine", "2-of-mine"),))
    (request,) = requests
    assert request.rel_url.raw_path_qs == (
        f"/openai/realtime?deployment=d&api-key={KEY}&Authorization=Bearer%20{KEY}"
    )
    assert request.headers["api-key"] == KEY
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["X-Mine"] == "2-of-mine"
    assert request.headers["OpenAI-Beta"] == "realtime=v1"
    assert "Cookie" not in request.headers
    assert request.headers["Sec-WebSocket-Protocol"] == f"realtime,openai-insecure-api-key.{KEY}"
    assert result.recording.header.answer.subprotocol == "realtime"
    assert KEY not in repr(result)
    assert "2-of-mine" not in repr(result)


async def test_without_a_key_nothing_hidden_is_sent() -> None:
    async with server(nothing) as (url, requests):
        await replayed(recorded(header=HIDDEN_KEYS), f"{url}/other?deployment=e")
    (request,) = requests
    assert request.rel_url.raw_path_qs == "/other?deployment=e"
    assert not {"api-key", "Authorization", "Cookie"} & set(request.headers)
    assert request.headers["Sec-WebSocket-Protocol"] == "realtime"


async def test_a_refusal_is_a_result() -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response({"error": {"code": "401", "message": f"Not {KEY}"}}, status=401)

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        result = await replayed(recorded(), f"ws://127.0.0.1:{runner.addresses[0][1]}", api_key=KEY)
    finally:
        await runner.cleanup()
    answer = result.recording.header.answer
    assert (answer.status, result.recording.frames) == (401, ())
    assert json.loads(answer.body or "")["error"]["message"] == "Not ***"


async def test_a_server_that_is_not_there() -> None:
    async with server(nothing) as (url, _):
        pass
    with pytest.raises(Unreachable, match="the connection failed"):
        await replayed(recorded(), url)
