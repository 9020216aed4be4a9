"""The options of the relay: where it goes, in which dialect, with which key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from vivavoce.engines import base
from vivavoce.engines.base import EngineError, EngineOptionsError
from vivavoce.engines.upstream_realtime import VOICES, UpstreamRealtime, create
from vivavoce.engines.upstream_realtime_dialects import DIALECTS
from vivavoce.wire.session_config import VOICES as PROTOCOL_VOICES

AZURE = "https://r.openai.azure.com"


def relay(**options: Any) -> UpstreamRealtime:
    made = create(options)
    assert isinstance(made, UpstreamRealtime)
    return made


@pytest.mark.parametrize(
    ("options", "url", "assistant_text", "header"),
    [
        (
            {"endpoint": AZURE, "deployment": "d", "api_version": "2025-04-01-preview"},
            "wss://r.openai.azure.com/openai/realtime?api-version=2025-04-01-preview&deployment=d",
            "text", "api-key",
        ),
        (
            {"endpoint": f"{AZURE}/", "deployment": "d"},
            "wss://r.openai.azure.com/openai/v1/realtime?model=d", "output_text", "api-key",
        ),
        ({"model": "m"}, "wss://api.openai.com/v1/realtime?model=m", "output_text", "Authorization"),
        (
            {"url": "http://h:8089/v1/realtime", "model": "m", "dialect": "preview"},
            "ws://h:8089/v1/realtime?model=m", "text", "Authorization",
        ),
        (
            {"url": "ws://h/v1/realtime?model=m", "auth": "api-key"},
            "ws://h/v1/realtime?model=m", "output_text", "api-key",
        ),
    ],
)  # fmt: skip
async def test_it_knows_where_to_go(options: dict[str, Any], url: str, assistant_text: str, header: str) -> None:
    made = relay(**options, api_key="k")
    assert str(made.url) == url
    assert made._dialect.assistant_text == assistant_text
    headers = await made._headers()
    assert headers == {header: "k" if header == "api-key" else "Bearer k"}


@pytest.mark.parametrize(
    ("options", "path", "problem"),
    [
        ({}, "", "needs url, or endpoint and deployment, or model"),
        ({"url": "ftp://h/x"}, "url", "must look like wss://host, or ws, http or https"),
        ({"url": "ws://h:99999/x"}, "url", "must look like wss://host, or ws, http or https"),
        ({"url": "ws://h"}, "url", "needs its path, such as /v1/realtime"),
        ({"url": "ws://h/x", "deployment": "d"}, "url",
         "is whole: it does not go with endpoint, deployment or api_version"),
        ({"endpoint": AZURE}, "endpoint", "needs the name of a deployment, and no model"),
        ({"endpoint": "r.openai.azure.com", "deployment": "d"}, "endpoint",
         "must look like wss://host, or ws, http or https"),
        ({"deployment": "d"}, "endpoint", "is required with deployment and api_version"),
        ({"endpoint": AZURE, "deployment": "d", "dialect": "preview"}, "dialect", "this path speaks ga"),
        ({"model": "m", "dialect": "old"}, "dialect", "must be one of: ga, preview"),
        ({"model": "m", "colour": 1}, "colour", "unknown option"),
        ({"model": "m", "api_key": "k", "token_command": ["t"]}, "token_command",
         "takes the place of api_key: name one of them"),
        ({"model": "m", "api_key": "k\n"}, "api_key",
         "a key is one or more printable ASCII characters, without spaces"),
        ({"model": "m", "auth": "bearer"}, "auth", "says how api_key is sent, and there is none"),
        ({"model": "m", "headers": {"a b": "c"}}, "headers.a b", "is no header"),
        ({"model": "m", "headers": {"a": "c\r\nx: y"}}, "headers.a", "is no header"),
        ({"model": "m", "voices": {"anna": "x"}}, "voices.anna",
         f"is none of the protocol's voices: {', '.join(VOICES)}"),
        ({"model": "m", "ca_file": "/no/such.pem"}, "ca_file", "cannot be read as certificates (PEM)"),
        ({"endpoint": AZURE, "deployment": "d", "api_version": "v", "sees_images": True}, "sees_images",
         "the preview dialect has no images"),
        ({"model": "m", "dialect": "preview", "reasons": True}, "reasons", "the preview dialect has no reasoning"),
        ({"model": "m", "idle_timeout_s": 0}, "idle_timeout_s", "Expected `float` > 0.0"),
    ],
)  # fmt: skip
def test_wrong_options_are_named(options: dict[str, Any], path: str, problem: str) -> None:
    with pytest.raises(EngineOptionsError) as fault:
        create(options)
    assert (fault.value.path, fault.value.problem) == (path, problem)


def test_what_the_model_can_do_is_told_by_the_options() -> None:
    plain, able = relay(model="m").capabilities, relay(model="m", sees_images=True, reasons=True).capabilities
    assert (plain.sees_images, plain.reasons) == (False, False)
    assert (able.sees_images, able.reasons) == (True, True)


def test_it_has_the_voices_of_the_protocol() -> None:
    assert set(PROTOCOL_VOICES) <= relay(model="m").capabilities.voices
    assert relay(model="m", voices={"alloy": "marin"})._voices["alloy"] == "marin"


async def test_a_command_prints_the_token(tmp_path: Path) -> None:
    """It is run once for many connections."""
    program = f"import os; os.mkdir({str(tmp_path / 'once')!r}); print('to.ken')"
    made = relay(model="m", token_command=[sys.executable, "-c", program])
    for _ in range(2):
        assert await made._headers() == {"Authorization": "Bearer to.ken"}


@pytest.mark.parametrize("command", [["/no/such/command"], ["false"], ["true"]])
async def test_a_command_that_fails_is_told(command: list[str]) -> None:
    with pytest.raises(EngineError) as fault:
        await relay(model="m", token_command=command)._headers()
    assert fault.value.code == "upstream_unauthorized"


async def test_one_that_does_not_run_says_so() -> None:
    with pytest.raises(EngineError) as fault:
        await relay(model="m")._connect()
    assert fault.value.code == "engine_unavailable"


def test_what_ga_models_are_asked_for() -> None:
    def asked(dialect: Literal["ga", "preview"], **options: Any) -> set[str]:
        generation = base.GenerationRequest("", (), **options)
        return set(DIALECTS[dialect].response(base.SpeechRequest(generation, "alloy"), "alloy"))

    usual = asked("ga")
    assert asked("ga", parallel_tool_calls=False, reasoning="low") == {*usual, "parallel_tool_calls", "reasoning"}
    assert asked("preview", parallel_tool_calls=False, reasoning="low") == asked("preview")
