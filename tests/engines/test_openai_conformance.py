"""The engines of ``openai_compatible`` keep the promises of their kinds, with the strict server behind them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web
from openai_fake import DONE, KEY, MODEL, Asked, Fake, Stream, calls, chunk, says

from vivavoce.engines.registry import EngineKind
from vivavoce.testing import conformance

SOUND = bytes(4800)


def complete(asked: Asked) -> Stream:
    body = asked.body
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        return calls(choice["function"]["name"], "{}")
    if choice == "required":
        return calls(body["tools"][0]["function"]["name"], "{}")
    if "audio" not in body.get("modalities", ()):
        return says("Good ", "morning.")
    data = base64.b64encode(SOUND).decode()
    pieces: list[Any] = [chunk({"audio": {"transcript": "Good morning."}}), chunk({"audio": {"data": data}})]
    return Stream([*pieces, chunk({}, "stop"), DONE])


def speak(asked: Asked) -> Stream:
    length = int(len(asked.body["input"]) * 60 / asked.body.get("speed", 1))
    return Stream([SOUND[:960]] * length, "audio/pcm")


def transcribe(asked: Asked) -> web.Response:
    heard = any(asked.body["file"][44:])
    told = [{"token": "Hello", "logprob": -0.5}] if "include[]" in asked.body else None
    return web.json_response({"text": "Hello" if heard else "", "logprobs": told})


ALWAYS: dict[EngineKind, Callable[[Asked], Any]] = {
    "language_model": complete,
    "speech_model": complete,
    "synthesizer": speak,
    "transcriber": transcribe,
}


@pytest.fixture(scope="module")
def fakes() -> Iterator[dict[EngineKind, Fake]]:
    servers = {kind: Fake(always=always) for kind, always in ALWAYS.items()}
    with (
        servers["language_model"].in_a_thread(),
        servers["speech_model"].in_a_thread(),
        servers["synthesizer"].in_a_thread(),
        servers["transcriber"].in_a_thread(),
    ):
        yield servers


def subject(kind: EngineKind, url: str) -> conformance.Subject:
    options: dict[str, object] = {"base_url": url, "model": MODEL, "api_key": KEY, "check": "fail"}
    if kind == "transcriber":
        options |= {"logprobs": True, "languages": ["en"]}
    return conformance.Subject.installed(
        kind,
        "openai_compatible",
        options=options,
        bad_options={"base_url": "no url", "model": "", "max_retries": -1},
        unstartable=options | {"api_key": "wrong"},
    )


CHECKS = [
    (kind, str(check)) for kind in ALWAYS for check in conformance.checks(subject(kind, "http://127.0.0.1:1/v1"))
]


@pytest.mark.parametrize(("kind", "name"), CHECKS)
def test_conforms(kind: EngineKind, name: str, fakes: dict[EngineKind, Fake]) -> None:
    (check,) = (one for one in conformance.checks(subject(kind, fakes[kind].url)) if str(one) == name)
    check()
    assert fakes[kind].refused == []
