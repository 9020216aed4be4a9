"""``vivavoce serve`` as people run it: a process of its own with the built-in engines, ended by a signal."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import socket as sockets
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import pytest
from aiohttp import ClientSession, WSMsgType
from server_fakes import AZURE, BETA, OPENAI, PATIENCE_S, Wire, eventually

from vivavoce.demo.sound import parse_wav

KEY = "a-key-for-one-process"
PROC = Path("/proc")

pytestmark = pytest.mark.skipif(not (PROC / "self/stat").exists(), reason="looks for processes in /proc")


def family(pid: int) -> set[tuple[int, str]]:
    """The descendants of a process, each with its start time, since numbers are used again."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in PROC.glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.parent.name)] = (int(fields[1]), fields[19])
    found: set[tuple[int, str]] = set()
    seek = {pid}
    while seek:
        children = {child for child, (parent, _) in parents.items() if parent in seek}
        found |= {(child, parents[child][1]) for child in children}
        seek = children
    return found


def alive(process: tuple[int, str]) -> bool:
    pid, started = process
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[19] == started and fields[0] != "Z"


@asynccontextmanager
async def serve(*options: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process, and where it listens."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vivavoce", "serve", "--port", "0", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode()
        ready = re.fullmatch(
            r"vivavoce is ready: ws(s?)://(127\.0\.0\.1:\d+)/openai/realtime\?.* \(OpenAI\)\n", line
        )
        assert ready is not None, line
        yield process, f"http{ready[1]}://{ready[2]}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_order(name: signal.Signals) -> None:
    question = parse_wav(resources.files("vivavoce.demo").joinpath("data/question.wav").read_bytes())
    async with serve("--api-key", KEY) as (process, url), ClientSession(url) as client:
        async with client.get("/readyz") as answer:
            assert await answer.json() == {"status": "ready", "sessions": 0}
        workers = family(process.pid)
        assert workers
        async with (
            client.ws_connect(AZURE, headers={"api-key": KEY}) as speaking,
            client.ws_connect(OPENAI, headers={**BETA, "Authorization": f"Bearer {KEY}"}) as hearing,
        ):
            # Both kinds of workers have something to do when the end comes.
            words = " ".join(["and so on, and so forth,"] * 200)
            one, other = Wire(speaking), Wire(hearing)
            await one.send("response.create", response={"instructions": f'Say "{words}"'})
            await one.until("response.audio.delta")
            await other.send("input_audio_buffer.append", audio=base64.b64encode(question.tobytes()).decode())
            await other.until("input_audio_buffer.speech_started")
            workers |= family(process.pid)
            process.send_signal(name)
            for socket in (speaking, hearing):
                while (message := await socket.receive(PATIENCE_S)).type is WSMsgType.TEXT:
                    pass
                assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
            async with asyncio.timeout(PATIENCE_S):
                out, err = await process.communicate()
        assert process.returncode == 0
        assert out == b""
        assert b"Traceback" not in err
        assert KEY.encode() not in err
        await eventually(lambda: not any(alive(worker) for worker in workers))


async def test_it_serves_tls() -> None:
    """On the event loop of production, which has a TLS of its own."""
    data = Path(__file__).parent / "data"
    trust = ssl.create_default_context(cafile=str(data / "server.cert.pem"))
    files = ("--tls-cert", str(data / "server.cert.pem"), "--tls-key", str(data / "server.key.pem"))
    async with serve("--api-key", KEY, *files) as (process, url), ClientSession(url) as client:
        assert url.startswith("https://")
        async with client.get("/readyz", ssl=trust) as answer:
            assert answer.status == 200
        async with client.ws_connect(AZURE, headers={"api-key": KEY}, ssl=trust) as socket:
            await Wire(socket).until("conversation.created")
            await Wire(socket).silence()
            process.send_signal(signal.SIGTERM)
            assert await Wire(socket).closed() == 1001
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 0


async def test_a_certificate_that_is_not_there() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vivavoce", "serve", "--tls-cert", "gone.pem"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert err == b"vivavoce: --tls-cert: gone.pem cannot be read: No such file or directory\n"


async def test_a_port_that_is_taken() -> None:
    with sockets.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vivavoce", "serve", "--api-key", KEY, "--port", str(port)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert f"cannot serve on 127.0.0.1:{port}: ".encode() in err
    assert b"Traceback" not in err
