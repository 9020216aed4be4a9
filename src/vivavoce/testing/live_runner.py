"""Golden scripts against any server, by hand.

``python -m vivavoce.testing.script FILE... --url URL --api-key KEY``

Nobody can tell a real service what it hears and what its model says. So a script is played up to the line that
creates a response, and no further than to the first line for an engine (``~``), for the clock (``@``) or that
expects speech to be detected; effects (``!``) are passed over. Where a script is cut short, what comes after the
events of the last step is not looked at. "Nothing more came" means here: not within ``--quiet`` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import WSMsgType

from vivavoce.testing import script as s
from vivavoce.testing.ledger import Ledger, frames
from vivavoce.testing.matching import Actual, Closed, Judge, ScriptFailure

_PATIENCE_S: Final = 20.0
"""For an event that is expected."""
_CLOSING: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


@dataclass(frozen=True, slots=True)
class Target:
    """A server: a ``ws:``, ``wss:``, ``http:`` or ``https:`` URL with its query, and a key."""

    url: str
    api_key: str | None
    quiet_s: float

    def headers(self, *, ga: bool) -> dict[str, str]:
        """``ga``: the client speaks the GA dialect."""
        if self.api_key is None:
            return {}
        if urlsplit(self.url).path.startswith("/openai/"):
            return {"api-key": self.api_key}
        return {"Authorization": f"Bearer {self.api_key}"} | ({} if ga else {"OpenAI-Beta": "realtime=v1"})


def playable(script: s.Script) -> tuple[list[s.Step], bool]:
    """The steps that a real service can play, and whether that is all of them, to the last event."""
    steps: list[s.Step] = []
    for step in script.steps:
        kinds = {wanted.type for wanted in step.expected if isinstance(wanted, s.ExpectEvent)}
        if step.command is not None and not isinstance(step.command, s.ClientCommand):
            return steps, False
        if "input_audio_buffer.speech_started" in kinds:
            return steps, False
        steps.append(step)
        if "response.created" in kinds:
            return steps, False
    return steps, True


async def run_live(script: s.Script, target: Target) -> int:
    """Returns the number of steps played. Raises ScriptFailure, and aiohttp.ClientError when there is no server."""
    steps, whole = playable(script)
    judge, ledger = Judge(script), Ledger()
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(target.url, headers=target.headers(ga=script.settings.is_ga), max_msg_size=0) as socket,
    ):
        if not steps or steps[0].command is not None:
            steps.insert(0, s.Step(1, "the client connects", None))
        for step in steps:
            match step.command:
                case s.SendBinary(data):
                    await socket.send_bytes(data)
                case s.SendText() | s.SendEvent() | s.SendSound() | s.SendBytes() | s.SendCharacters():
                    for frame in frames(step.command, judge.names, ledger.input_format):
                        await socket.send_str(frame)
                case _:
                    pass
            cut = step is steps[-1] and not whole
            wanted = judge.expected(step)
            actual = await _listen(socket, ledger, len(wanted), 0.0 if cut else target.quiet_s)
            judge.check(step, actual, open_end=cut)
    return len(steps)


async def _listen(
    socket: aiohttp.ClientWebSocketResponse, ledger: Ledger, wanted: int, quiet_s: float
) -> list[Actual]:
    """``wanted`` events, and whatever comes within ``quiet_s`` seconds after the last."""
    actual: list[Actual] = []
    while len(actual) < wanted or quiet_s:
        try:
            message = await socket.receive(timeout=_PATIENCE_S if len(actual) < wanted else quiet_s)
        except TimeoutError:
            break
        if message.type in _CLOSING:
            reason = message.extra if isinstance(message.extra, str) else ""
            actual.append(Closed(socket.close_code or 1006, reason))
            break
        event = json.loads(message.data)
        ledger.note(event)
        actual.append(event)
    return actual


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; leaves with 1 when a script failed."""
    parser = argparse.ArgumentParser("vivavoce.testing.script", description="Play golden scripts against a server.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a script (.rts)")
    parser.add_argument(
        "--url", required=True, help="ws://HOST:PORT/openai/realtime?api-version=...&deployment=..."
    )
    parser.add_argument("--api-key", help="sent as the path demands; default: VIVAVOCE_API_KEY")
    parser.add_argument("--quiet", type=float, default=0.5, help="seconds of silence that mean 'nothing more'")
    options = parser.parse_args(arguments)
    key = options.api_key or os.environ.get("VIVAVOCE_API_KEY")
    target = Target(options.url, key, options.quiet)
    failed = [path for path in options.files if not _play(path, target)]
    if failed:
        sys.exit(1)


def _play(path: Path, target: Target) -> bool:
    try:
        script = s.load(path)
        played = asyncio.run(run_live(script, target))
    except (ScriptFailure, s.ScriptError, OSError, aiohttp.ClientError) as error:
        sys.stdout.write(f"FAILED {path}\n{error}\n")
        return False
    note = "whole" if playable(script)[1] else "cut short"
    sys.stdout.write(f"ok     {path}: {script.title}: {played} steps, {note}\n")
    return True
