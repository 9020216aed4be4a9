"""The benchmarks still run, with one caller. What they measure is not looked at."""

from __future__ import annotations

import aiohttp

from bench import micro, startup
from bench.__main__ import CASES
from bench.server import KEY, SYNTHESIZERS, settings
from bench.stubs import registry
from vivavoce.server.app import running

AZURE = "/openai/realtime?api-version=2024-10-01-preview&deployment="


async def test_the_server_with_stand_ins_answers_aloud() -> None:
    async with running(settings(10), registry=registry()) as server, aiohttp.ClientSession() as http:
        for name in SYNTHESIZERS:
            url = f"http://127.0.0.1:{server.port}{AZURE}{name}"
            async with http.ws_connect(url, headers={"api-key": KEY}) as socket:
                await socket.send_json({"type": "response.create"})
                while (event := await socket.receive_json())["type"] != "response.audio.delta":
                    assert event["type"] != "error"


def test_the_stages_can_be_measured() -> None:
    assert all(value > 0 for value in {**micro.core(), **micro.vad()}.values())


def test_the_installation_is_more_than_the_package_itself() -> None:
    assert startup.install_size()["packages"] > 5


def test_every_case_has_a_name_and_a_title() -> None:
    assert all(name and case.title for name, case in CASES.items())
