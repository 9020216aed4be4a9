"""``vivavoce record`` and ``vivavoce replay`` as commands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import ClientSession, WSMsgType, web

from vivavoce import cli
from vivavoce.record.recording import Answer, End, Frame, Header, Recording, load, save
from vivavoce.record.replay import Replayed, ReplayOptions
from vivavoce.record.upstream import Unreachable

PATIENCE_S: Final = 30.0
HEADER: Final = Header(1, "2026-01-01", "ws://was/v1/realtime", (), (), True, Answer(101))
GREETING: Final = Frame(0, "server", {"type": "session.created", "session": {"id": "sess_1", "voice": "alloy"}})
RECORDED: Final = Recording(HEADER, (GREETING, Frame(1, "client", {"type": "x"})), End(1000, "", "client"), 2)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(save(RECORDED, tmp_path / "s.jsonl"))


class FakeReplay:
    """Stands for the session; keeps what it was asked for."""

    def __init__(self) -> None:
        self.result: Replayed | Exception = Replayed(RECORDED, ())
        self.options: list[ReplayOptions] = []

    async def replay(self, recorded: Recording, options: ReplayOptions) -> Replayed:
        assert recorded == RECORDED
        self.options.append(options)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeReplay:
    monkeypatch.delenv("VIVAVOCE_API_KEY", raising=False)
    one = FakeReplay()
    monkeypatch.setattr("vivavoce.record.replay.replay", one.replay)
    return one


def changed(**session: Any) -> Recording:
    frame = Frame(0, "server", {"type": "session.created", "session": {"id": "sess_2", **session}})
    return Recording(HEADER, (frame,), End(1000, "", "client"), 2)


def test_no_difference_is_0(fake: FakeReplay, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["replay", file, "--url", "ws://h"]) == 0
    assert capsys.readouterr() == ("no difference: 1 server messages were recorded, 1 came\n", "")
    (options,) = fake.options
    assert (str(options.target), options.headers, options.api_key) == ("ws://h", (), None)
    assert (options.pace, options.patience_s) == ("recorded", 10.0)


def test_differences_are_1_and_readable(fake: FakeReplay, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    fake.result = Replayed(changed(voice="ash", more=None), ("a note",))
    assert cli.main(["replay", file, "--url", "ws://h"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "note: a note",
        'line 2: session.created session.voice: was "alloy", is "ash"',
        "line 2: session.created session.more was not recorded, is null",
        "2 differences: 1 server messages were recorded, 1 came",
    ]


def test_differences_as_json(fake: FakeReplay, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    fake.result = Replayed(changed(voice="ash"), ("a note",))
    assert cli.main(["replay", file, "--url", "ws://h", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "differences": [
            {
                "kind": "value",
                "event": "session.created",
                "line": 2,
                "path": "session.voice",
                "recorded": "alloy",
                "now": "ash",
            }
        ],
        "notes": ["a note"],
        "recorded_messages": 1,
        "messages": 1,
    }


def test_every_option_of_replay_arrives(
    fake: FakeReplay, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIVAVOCE_API_KEY", "of-the-environment")
    fake.result = Replayed(changed(voice="ash"), ())
    out = tmp_path / "new.jsonl"
    line = f"replay {file} --url ws://h --pace fast --wait 2.5 --ignore session.created/*.voice --out {out}"
    assert cli.main([*line.split(), "--header", "x-a: b c"]) == 0
    assert cli.main(["replay", file, "--url", "ws://h", "--api-key", "k", "--ignore", "session.*"]) == 0
    first, second = fake.options
    assert (first.pace, first.patience_s, first.headers) == ("fast", 2.5, (("x-a", "b c"),))
    assert (first.api_key, second.api_key) == ("of-the-environment", "k")
    assert load(out) == fake.result.recording


@pytest.mark.parametrize(
    ("result", "code", "line"),
    [
        (Unreachable("the connection failed"), 3, "the server cannot be reached: the connection failed"),
        (
            Replayed(Recording(Header(1, "", "", (), (), True, Answer(401, body="no")), ()), ()),
            3,
            "the server refused the connection: HTTP 401 no",
        ),
    ],
)
def test_no_session_is_3(
    result: Any, code: int, line: str, fake: FakeReplay, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.result = result
    assert cli.main(["replay", file, "--url", "ws://h"]) == code
    assert capsys.readouterr() == ("", f"vivavoce: {line}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        "record",
        "record --url h",
        "record --url ws://h --listen 8090",
        "record --url ws://h --listen h:99999",
        "record --url ws://h --header x",
        "replay FILE",
        "replay nowhere --url ws://h",
        "replay FILE --url h",
        "replay FILE --url ws://h --pace slow",
        "replay FILE --url ws://h --wait 0",
        "replay FILE --url ws://h --ignore /",
        "replay FILE --url ws://h --header x",
        "replay SILENT --url ws://h",
        "replay EMPTY --url ws://h",
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr(
    arguments: str, fake: FakeReplay, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = Frame(0, "client", {"audio": {"bytes": 1}})
    names = {"FILE": file, "SILENT": str(save(Recording(HEADER, (silent,)), tmp_path / "n.jsonl"))}
    (tmp_path / "e.jsonl").touch()
    names["EMPTY"] = str(tmp_path / "e.jsonl")
    assert cli.main([names.get(word, word) for word in arguments.split()]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("vivavoce: ")
    assert shown.err.count("\n") == 1
    assert fake.options == []


def test_a_port_that_is_taken_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["record", "--url", "ws://h", "--listen", "192.0.2.1:1"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("vivavoce: cannot listen on 192.0.2.1:1: ")


async def test_record_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """The program itself, between a client and a server."""

    async def echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    application = web.Application()
    application.router.add_get("/v1/realtime", echo)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    target = f"ws://127.0.0.1:{runner.addresses[0][1]}"
    command = [sys.executable, "-m", "vivavoce", "record", "--url", target, "--listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(
        *command, "--out", "kept.jsonl", "--no-audio", cwd=tmp_path, stdout=subprocess.PIPE, env={**os.environ}
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            ready = (await process.stdout.readline()).decode()
            found = re.fullmatch(rf"vivavoce records (ws://127\.0\.0\.1:\d+) -> {target}\n", ready)
            assert found is not None, ready
            async with ClientSession() as session:
                for _ in range(2):
                    async with session.ws_connect(f"{found[1]}/v1/realtime") as socket:
                        await socket.send_str('{"type": "response.audio.delta", "delta": "AAAA"}')
                        assert (await socket.receive()).type is WSMsgType.TEXT
            told = [(await process.stdout.readline()).decode() for _ in range(2)]
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await runner.cleanup()
    outcome = "2 messages, closed by the client with 1000"
    assert told == [f"kept.jsonl: {outcome}\n", f"kept-2.jsonl: {outcome}\n"]
    kept = load(tmp_path / "kept-2.jsonl")
    assert [frame.sender for frame in kept.frames] == ["client", "server"]
    assert kept.frames[0].event == {"type": "response.audio.delta", "delta": {"bytes": 3}}
