"""The numbered differences of COMPATIBILITY.md (``page.toml``): each test shows what its number says."""
# ruff: noqa: N802  The names carry the numbers as the page writes them.

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any
from unittest.mock import ANY

import pytest
import pytest_asyncio
from aiohttp import ClientSession, WSServerHandshakeError
from compat_pages import ROOT
from msgspec.structs import replace
from preview_table import ORDER
from probes import Bench
from server_fakes import AZURE, BETA, CONFIG, KEY, OPENAI, PATIENCE_S, Fakes, Wire, config, serving, session
from websockets.asyncio.client import connect

from vivavoce.engines.registry import Registry
from vivavoce.server import tokenizer
from vivavoce.server.app import Server
from vivavoce.testing import script as s
from vivavoce.testing.matching import Actual

EVERY_PROFILE = pytest.mark.parametrize("profile", ORDER)
LATEST = ORDER[-1]
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def only(answers: list[Actual], kind: str) -> dict[str, Any]:
    """The one answer, of this type."""
    (answer,) = answers
    assert isinstance(answer, dict)
    assert answer["type"] == kind, answer
    return answer


def kinds(answers: list[Actual]) -> list[str]:
    return [answer["type"] for answer in answers if isinstance(answer, dict)]


def update(bench: Bench, **fields: Any) -> list[Actual]:
    return bench.send({"type": "session.update", "session": fields})


def error(answers: list[Actual]) -> dict[str, Any]:
    body = only(answers, "error")["error"]
    assert isinstance(body, dict)
    return body


def message(**fields: Any) -> dict[str, Any]:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}], **fields}
    return {"type": "conversation.item.create", "item": item}


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(Registry, "installed", Fakes)
    async with serving(config(max_sessions=1)) as server:
        yield server


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[ClientSession]:
    async with ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield client


async def refusal(
    client: ClientSession, path: str, key: str | None = KEY, **headers: str
) -> tuple[int, str | None]:
    """Status and code of the answer to an upgrade that is refused before it."""
    sent = {**UPGRADE, **({"api-key": key} if key else {}), **headers}
    async with client.get(path, headers=sent) as answer:
        return answer.status, (await answer.json())["error"]["code"]


@EVERY_PROFILE
def test_D01_name_in_arguments_done(profile: str) -> None:
    bench = Bench(profile, '> {"type": "response.create"}\n~ call look_up\n~ args "{}"')
    done = [
        event
        for event in bench.runner.perform(s.Finish("stop", None), bench.names)
        if isinstance(event, dict) and event["type"] == "response.function_call_arguments.done"
    ]
    assert [event["name"] for event in done] == ["look_up"]


@EVERY_PROFILE
def test_D02_eight_voices(profile: str) -> None:
    bench = Bench(profile)
    for voice in ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse"):
        assert only(update(bench, voice=voice), "session.updated")["session"]["voice"] == voice


@pytest.mark.parametrize(("name", "limit"), [("prefix_padding_ms", 5_000), ("silence_duration_ms", 1_800_000)])
def test_D03_limits_of_turn_detection(name: str, limit: int) -> None:
    bench = Bench(LATEST)
    vad = {"type": "server_vad"}
    shown = only(update(bench, turn_detection={**vad, name: limit}), "session.updated")["session"]
    assert shown["turn_detection"][name] == limit
    assert error(update(bench, turn_detection={**vad, name: limit + 1}))["code"] == "integer_above_max_value"


def test_D04_null_is_absence() -> None:
    bench = Bench(LATEST)
    tool = {"type": "function", "name": "f", "description": None, "parameters": None}
    assert only(update(bench, tools=[tool]), "session.updated")["session"]["tools"] == [
        {"type": "function", "name": "f"}
    ]
    added = only(bench.send(message(id=None)), "conversation.item.created")
    assert added["item"]["id"].startswith("item_")
    for response in (None, {"instructions": None}):
        fresh = Bench(LATEST)
        update(fresh, instructions="Be brief.")
        fresh.runner.take_effects()
        fresh.send({"type": "response.create", "response": response})
        plans = [fields["plan"] for name, fields in fresh.runner.take_effects() if name == "StartResponse"]
        assert [plan["instructions"] for plan in plans] == ["Be brief."]


def test_D05_thirty_minutes_of_audio() -> None:
    setup = """
> {"type": "session.update", "session": {"turn_detection": null, "input_audio_format": "g711_ulaw"}}
> append 14400000 bytes
"""
    bench = Bench(LATEST, setup)
    append = s.SendBytes(1)
    assert error(bench.runner.perform(append, bench.names))["code"] == "input_audio_buffer_full"
    # What was committed counts too.
    assert len(bench.send({"type": "input_audio_buffer.commit"})) == 2
    assert error(bench.runner.perform(append, bench.names))["code"] == "input_audio_buffer_full"


def test_D06_sixteen_responses_out_of_band() -> None:
    bench = Bench(LATEST)
    create = {"type": "response.create", "response": {"conversation": "none"}}
    for _ in range(16):
        assert kinds(bench.send(create))[0] == "response.created"
    assert error(bench.send(create))["code"] == "too_many_active_responses"


def test_D07_depth_of_a_schema() -> None:
    bench = Bench(LATEST)
    schema: dict[str, Any] = {}
    for _ in range(99):
        schema = {"items": schema}
    tool = {"type": "function", "name": "f", "parameters": schema}
    assert only(update(bench, tools=[tool]), "session.updated")["session"]["tools"] == [tool]
    fault = error(update(bench, tools=[{**tool, "parameters": {"items": {"items": schema}}}]))
    assert (fault["code"], fault["param"]) == ("invalid_value", "session.tools[0].parameters")


def test_D08_length_of_texts() -> None:
    bench = Bench(LATEST)
    longest = "x" * 1_048_576
    assert only(update(bench, instructions=longest), "session.updated")["session"]["instructions"] == longest
    fault = error(update(bench, instructions=longest + "x"))
    assert (fault["code"], fault["param"]) == ("string_above_max_length", "session.instructions")


def test_D09_errors_repeat_256_characters() -> None:
    bench = Bench(LATEST)
    fault = error(update(bench, voice="x" * 1000))
    assert f"'{'x' * 256}...'" in fault["message"]
    assert error(update(bench, **{"y" * 1000: 1}))["param"] == f"session.{'y' * 248}..."


TRANSCRIBED = "conversation.item.input_audio_transcription.completed"


def heard(bench: Bench, **session: Any) -> dict[str, Any]:
    """The transcript of a committed message, with these settings."""
    (update_,) = update(bench, turn_detection=None, **session)
    assert isinstance(update_, dict)
    assert update_["type"] == "session.updated"
    bench.runner.perform(s.SendBytes(4800), bench.names)
    bench.send({"type": "input_audio_buffer.commit"})
    answers = bench.runner.perform(s.Heard("hello"), bench.names)
    (completed,) = (one for one in answers if isinstance(one, dict) and one["type"] == TRANSCRIBED)
    return completed


@pytest.mark.parametrize(
    ("model", "unit"), [("whisper-1", "duration"), ("gpt-4o-mini-transcribe", "tokens"), ("my-own", "duration")]
)
def test_D10_any_transcription_model(model: str, unit: str) -> None:
    completed = heard(Bench(LATEST), input_audio_transcription={"model": model})
    assert (completed["transcript"], completed["usage"]["type"]) == ("hello", unit)


async def test_D11_client_secrets(client: ClientSession) -> None:
    async with client.post("/v1/realtime/sessions", json={}, headers={"api-key": KEY}) as answer:
        secret = (await answer.json())["client_secret"]["value"]
    for path in (f"{AZURE.replace('2024-10-01', '2025-04-01')}&api-key={secret}", AZURE):
        async with client.ws_connect(path, headers={"Authorization": f"Bearer {secret}"}) as socket:
            assert (await Wire(socket).next())["session"].get("client_secret") is None
    bearer = {"Authorization": f"Bearer {secret}"}
    async with client.ws_connect("/v1/realtime", headers=bearer) as socket:
        assert (await Wire(socket).next())["error"]["code"] == "api_version_mismatch"
    async with client.ws_connect("/v1/realtime?intent=transcription", headers=bearer | BETA) as socket:
        assert (await Wire(socket).next())["error"]["code"] == "session_type_mismatch"
    async with client.ws_connect("/v1/realtime", headers={"Authorization": "Bearer ek_ended"}) as socket:
        assert (await Wire(socket).next())["error"]["code"] == "invalid_api_key"


def test_D12_sound_of_the_assistant_is_not_kept() -> None:
    setup = """
> {"type": "response.create"}
~ text "Hi"
~ audio 500ms
~ finish stop
< response.output_item.done {"item": {"id": "$item"}}
"""
    bench = Bench(LATEST, setup)
    answer = only(
        bench.send({"type": "conversation.item.retrieve", "item_id": "$item"}), "conversation.item.retrieved"
    )
    assert answer["item"]["content"] == [{"type": "audio", "transcript": "Hi"}]


def test_D13_detail_of_invalid_json() -> None:
    bench = Bench(LATEST)
    fault = error(bench.runner.perform(s.SendText('{"type": "response.create",}'), bench.names))
    assert (fault["code"], fault["param"]) == ("invalid_json", None)
    assert fault["message"].startswith("Invalid event: failed to parse JSON value. ")
    assert "trailing comma" in fault["message"]


async def test_D14_key_in_the_subprotocol(client: ClientSession) -> None:
    protocols = ("realtime", f"openai-insecure-api-key.{KEY}")
    async with client.ws_connect(AZURE, protocols=protocols) as socket:
        assert (await Wire(socket).next())["type"] == "session.created"


async def test_D15_bearer_tokens_are_keys(client: ClientSession) -> None:
    async with client.ws_connect(AZURE, headers={"Authorization": f"Bearer {KEY}"}) as socket:
        assert (await Wire(socket).next())["type"] == "session.created"
    assert await refusal(client, AZURE, key=None, Authorization="Bearer of.another.kind") == (401, "401")


async def test_D16_both_shapes_on_the_openai_path(client: ClientSession) -> None:
    bearer = {"Authorization": f"Bearer {KEY}"}
    for headers, key in ((bearer, "output_modalities"), ({**bearer, "OpenAI-Beta": "realtime=v1"}, "modalities")):
        async with client.ws_connect(OPENAI, headers=headers) as socket:
            assert key in (await Wire(socket).next())["session"]


async def test_D17_a_full_server(client: ClientSession, server: Server) -> None:
    async with session(server):
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect(AZURE, headers={"api-key": KEY})
        assert refused.value.status == 429
        async with client.ws_connect(OPENAI, headers={**BETA, "Authorization": f"Bearer {KEY}"}) as socket:
            assert (await Wire(socket).next())["error"]["code"] == "server_busy"
            assert (await socket.receive()).data == 1013


def test_D18_codes_of_engines() -> None:
    bench = Bench(LATEST, '> {"type": "response.create"}')
    failure = s.Fail("engine_overloaded", "Too much to do.", "server_error", None)
    done = only(bench.runner.perform(failure, bench.names), "response.done")
    assert done["response"]["status_details"]["error"] == {
        "type": "server_error",
        "code": "engine_overloaded",
        "message": "Too much to do.",
    }


def test_D19_a_failing_detector() -> None:
    bench = Bench(LATEST, "~ vad-fault")
    fault = error(bench.runner.perform(s.SendSound(40, 0.0), bench.names))
    assert (fault["type"], fault["code"]) == ("server_error", None)
    assert kinds(bench.runner.perform(s.SendSound(320, 0.9), bench.names)) == ["input_audio_buffer.speech_started"]


def test_D20_empty_and_odd_names() -> None:
    bench = Bench(LATEST)
    assert error(bench.send(message(id="")))["code"] == "string_below_min_length"
    assert error(update(bench, tools=[{"type": "function", "name": ""}]))["code"] == "string_below_min_length"
    assert error(update(bench, tools=[{"type": "function", "name": "look up"}]))["code"] == "invalid_value"


def test_D21_texts_of_our_own() -> None:
    bench = Bench(LATEST)
    found = [
        error(update(bench, model="another")),
        error(update(bench, tool_choice={"type": "function", "name": "f"})),
        error(
            bench.send({"type": "response.create", "response": {"input": [{"type": "item_reference", "id": "x"}]}})
        ),
        error(bench.runner.perform(s.SendBytes(15 * 1024 * 1024 + 2), bench.names)),
        error(bench.runner.perform(s.SendText("[]"), bench.names)),
    ]
    assert [(fault["code"], fault["message"]) for fault in found] == [
        ("invalid_value", "Cannot update a session's model after it was created."),
        ("invalid_value", "Tool choice 'f' not found in 'tools' parameter."),
        ("invalid_value", "Item with id 'x' not found in conversation."),
        (
            "invalid_value",
            "Invalid 'audio': audio too large. Expected at most 15728640 bytes, but got 15728642 bytes instead.",
        ),
        ("invalid_event", "Invalid event: expected an object, but got an array instead."),
    ]


async def test_D22_bodies_of_426_and_431(client: ClientSession) -> None:
    async with client.get(AZURE, headers={"api-key": KEY}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (426, "UpgradeRequired")
    custom = {f"custom-{i}": "x" for i in range(11)}
    assert await refusal(client, AZURE, **custom) == (431, "431")


def test_D23_log_probabilities_that_nobody_knows() -> None:
    include = ["item.input_audio_transcription.logprobs"]
    completed = heard(Bench(LATEST), input_audio_transcription={}, include=include)
    assert completed["logprobs"] is None


async def test_D24_a_transcription_session_without_a_deployment(client: ClientSession) -> None:
    path = "/openai/realtime?api-version=2025-04-01-preview&intent=transcription"
    async with client.ws_connect(path, headers={"api-key": KEY}) as socket:
        assert (await Wire(socket).next())["type"] == "transcription_session.created"


@pytest.mark.parametrize("tracing", ["auto", {"workflow_name": "shop", "group_id": "g", "metadata": {"table": 7}}])
def test_D25_tracing_is_shown_and_nothing_traced(tracing: Any) -> None:
    bench = Bench(LATEST)
    assert only(update(bench, tracing=tracing), "session.updated")["session"]["tracing"] == tracing
    assert bench.runner.take_effects() == [("Emit", ANY)]


def test_D26_sound_of_the_user_in_whole() -> None:
    setup = """
> {"type": "session.update", "session": {"turn_detection": null}}
> append 4800 bytes
> {"type": "input_audio_buffer.commit"}
< conversation.item.created {"item": {"id": "$item"}}
"""
    bench = Bench(LATEST, setup)
    retrieve = {"type": "conversation.item.retrieve", "item_id": "$item"}
    for audio_format, size in (("pcm16", 4800), ("g711_alaw", 800)):
        update(bench, input_audio_format=audio_format)
        item = only(bench.send(retrieve), "conversation.item.retrieved")["item"]
        assert len(base64.b64decode(item["content"][0]["audio"])) == size


@pytest.mark.parametrize(
    ("profile", "code", "message"),
    [
        ("azure-2024-10-01", None, "Conversation already has an active response"),
        ("azure-2024-12-17", None, "Conversation already has an active response"),
        (
            "azure-2025-04",
            "conversation_already_has_active_response",
            "Conversation already has an active response in progress: resp_",
        ),
    ],
)
def test_D27_text_about_an_active_response(profile: str, code: str | None, message: str) -> None:
    bench = Bench(profile, '> {"type": "response.create"}')
    fault = error(bench.send({"type": "response.create"}))
    assert fault["code"] == code
    assert fault["message"].startswith(message)
    assert (code is None) == (fault["message"] == message)


@EVERY_PROFILE
def test_D28_fields_from_before_the_preview(profile: str) -> None:
    item = message()["item"]
    respond = {"type": "response.create"}
    taken = kinds(Bench(profile).send({**respond, "response": {"input_items": [item]}}))
    assert taken[0] == "response.created"
    assert "conversation.item.created" not in taken
    joined = kinds(Bench(profile).send({**respond, "response": {"append_input_items": [item]}}))
    assert joined[:2] == ["conversation.item.created", "response.created"]
    apart = kinds(Bench(profile).send({**respond, "response": {"append_input_items": [item], "commit": False}}))
    assert apart == taken
    fault = error(Bench(profile).send({**respond, "response": {"input_items": [], "append_input_items": []}}))
    assert (fault["code"], fault["param"]) == ("invalid_value", "response.append_input_items")


@EVERY_PROFILE
def test_D29_keys_without_a_known_type(profile: str) -> None:
    bench = Bench(profile)
    found = [
        error(bench.send({"type": "conversation.item.create", "item": item}))
        for item in ({"type": "nope", "oddity": 1}, {"role": "user", "oddity": 1}, {"role": "user", "output": "x"})
    ]
    assert [(fault["code"], fault["param"]) for fault in found] == [
        ("invalid_value", "item.type"),
        ("unknown_parameter", "item.oddity"),
        ("missing_required_parameter", "item.type"),
    ]


@EVERY_PROFILE
def test_D30_output_of_a_function_while_a_response_runs(profile: str) -> None:
    setup = """
> {"type": "response.create"}
~ call look_up
< response.output_item.added {"item": {"call_id": "$call"}}
~ text "Meanwhile"
"""
    bench = Bench(profile, setup)
    item = {"type": "function_call_output", "call_id": "$call", "output": "a cat"}
    only(bench.send({"type": "conversation.item.create", "item": item}), "conversation.item.created")
    assert "response.done" in kinds(bench.runner.perform(s.Finish("stop", None), bench.names))


async def test_D31_api_versions_are_compared_exactly(client: ClientSession) -> None:
    for version in ("2024-10-01-preview", "2024-12-17", "2025-04-01-preview"):
        path = AZURE.replace("2024-10-01-preview", version)
        async with client.ws_connect(path, headers={"api-key": KEY}) as socket:
            assert (await Wire(socket).next())["type"] == "session.created"
    for version in ("2024-12-17-preview", "2024-10-01-Preview", "2024-10-01", "2025-05-01-preview"):
        assert await refusal(client, AZURE.replace("2024-10-01-preview", version)) == (404, "404")


async def test_D32_one_id_and_no_cluster(client: ClientSession) -> None:
    async with client.ws_connect(AZURE, headers={"api-key": KEY}) as socket:
        upgraded = socket._response.headers
    async with client.get(AZURE, headers=UPGRADE) as answer:
        assert answer.status == 401
        refused = answer.headers
    for headers in (upgraded, refused):
        assert headers["apim-request-id"] == headers["x-request-id"]
        assert "azureml-served-by-cluster" not in headers
    assert upgraded["x-request-id"] != refused["x-request-id"]


async def test_D33_custom_headers_that_come_back(client: ClientSession) -> None:
    back = {"X-Tenant": "7", "N" * 64: "v" * 256}
    kept = {"X-Session-Token": "s", "Set-Cookie": "a=b", "N" * 65: "v", "Long": "v" * 257, "Odd": "h\xe4"}
    async with client.ws_connect(AZURE, headers={"api-key": KEY, **back, **kept}) as socket:
        headers = socket._response.headers
    assert {name: headers.get(name) for name in back} == back
    assert [name for name in kept if name in headers] == []
    async with client.ws_connect(OPENAI, headers={**BETA, "Authorization": f"Bearer {KEY}", **back}) as socket:
        assert "X-Tenant" not in socket._response.headers
    async with client.get(AZURE, headers={**UPGRADE, **back}) as answer:
        assert (answer.status, "X-Tenant" in answer.headers) == (401, False)


@pytest.mark.parametrize("path", [AZURE, OPENAI])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
async def test_D34_other_methods_and_origins(client: ClientSession, method: str, path: str) -> None:
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
    if method != "GET":
        asked |= UPGRADE
    async with client.request(method, path, headers={"api-key": KEY, **asked}) as answer:
        assert answer.status == 426
        assert [name for name in answer.headers if name.lower().startswith("access-control-")] == []


async def test_D35_operation_not_supported(client: ClientSession) -> None:
    of_2024 = f"{AZURE}&intent=transcription"
    assert await refusal(client, of_2024) == (400, "OpperationNotSupported")
    of_2025 = of_2024.replace("2024-10-01-preview", "2025-04-01-preview")
    async with client.ws_connect(of_2025, headers={"api-key": KEY}) as socket:
        assert (await Wire(socket).next())["type"] == "transcription_session.created"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"My-Header": "x" * 8_100}, 101),
        ({"My-Header": "x" * 8_200}, 400),
        ({f"My-{i}": "x" for i in range(120)}, 431),
        ({f"My-{i}": "x" for i in range(130)}, 400),
    ],
    ids=["8 KB", "more than 8 KB", "120 headers", "130 headers"],
)
async def test_D36_requests_that_http_refuses(server: Server, headers: dict[str, str], status: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    lines = [f"{name}: {value}" for name, value in {"Host": "x", "api-key": KEY, **UPGRADE, **headers}.items()]
    writer.write("\r\n".join([f"GET {AZURE} HTTP/1.1", *lines, "", ""]).encode())
    async with asyncio.timeout(PATIENCE_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    writer.transport.abort()
    assert head.split()[1] == str(status)
    kind = re.search("^content-type: ([a-z/]+)", head, re.IGNORECASE | re.MULTILINE)
    assert (kind and kind[1]) == {101: None, 400: "text/plain", 431: "application/json"}[status]


def test_D37_tokens_of_text_are_estimated() -> None:
    text = (ROOT / "tests/server/data/tokens/german.txt").read_text(encoding="utf-8").strip()
    exact = tokenizer.load("o200k").text(text)
    bench = Bench(LATEST)
    used = []
    for _ in range(2):
        bench.send({"type": "response.create"})
        answers = bench.runner.perform(s.Finish("stop", None), bench.names)
        used.append(only(answers, "response.done")["response"]["usage"]["input_tokens"])
        bench.send(message(content=[{"type": "input_text", "text": text}]))
    framing = 4
    counted = used[1] - used[0] - framing
    assert counted != exact
    assert abs(counted - exact) <= 0.12 * exact


async def test_D38_names_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "installed", Fakes)
    reported = "gpt-4o-realtime-preview-2024-12-17"
    deployment = replace(CONFIG.deployments[0], name="voice", model="gpt-4o-realtime-preview")
    url = "/v1/realtime?model=voice"
    async with (
        serving(replace(CONFIG, deployments=(deployment,))) as server,
        ClientSession(f"http://127.0.0.1:{server.port}") as client,
        client.ws_connect(url, headers={**BETA, "Authorization": f"Bearer {KEY}"}) as socket,
    ):
        wire = Wire(socket)
        await wire.until("conversation.created")
        for name in ("voice", "gpt-4o-realtime-preview", reported):
            await wire.send("session.update", session={"model": name})
            answer = await wire.next()
            assert (answer["type"], answer["session"]["model"]) == ("session.updated", reported)


@pytest.mark.parametrize(
    ("eagerness", "probability", "silence_ms"),
    [
        ("low", None, 8000),
        ("medium", None, 4000),
        ("auto", None, 4000),
        ("high", None, 2016),
        ("low", 0.5, 2144),
        ("medium", 0.5, 1152),
        ("auto", 0.5, 1152),
        ("high", 0.5, 672),
        ("auto", 0.95, 224),
    ],
)
def test_D39_the_wait_of_semantic_vad(eagerness: str, probability: float | None, silence_ms: int) -> None:
    bench = Bench(LATEST)
    update(bench, turn_detection={"type": "semantic_vad", "eagerness": eagerness})
    bench.runner.perform(s.SendSound(320, 0.9), bench.names)
    silent = 192
    assert bench.runner.perform(s.SendSound(silent, 0.0), bench.names) == []
    if probability is not None:
        bench.runner.perform(s.Judged(probability), bench.names)
    stopped: list[str] = []
    while not stopped:
        stopped = kinds(bench.runner.perform(s.SendSound(32, 0.0), bench.names))
        silent += 32
    assert (silent, stopped[0]) == (silence_ms, "input_audio_buffer.speech_stopped")


def test_D40_semantic_vad_tells_that_speech_started() -> None:
    bench = Bench(LATEST)
    update(bench, turn_detection={"type": "semantic_vad"})
    assert kinds(bench.runner.perform(s.SendSound(320, 0.9), bench.names)) == ["input_audio_buffer.speech_started"]


@pytest.mark.parametrize("installed", [True, False])
async def test_D41_noise_reduction_is_an_extra(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "installed", Fakes)
    monkeypatch.setitem(sys.modules, "webrtc_noise_gain", ModuleType("webrtc_noise_gain") if installed else None)
    path = "/openai/realtime?api-version=2025-04-01-preview&intent=transcription"
    async with (
        serving(config()) as server,
        ClientSession(f"http://127.0.0.1:{server.port}") as client,
        client.ws_connect(path, headers={"api-key": KEY}) as socket,
    ):
        wire = Wire(socket)
        assert (await wire.next())["session"]["input_audio_noise_reduction"] is None
        for wanted in ({"type": "near_field"}, {"type": "far_field"}, None):
            await wire.send("transcription_session.update", session={"input_audio_noise_reduction": wanted})
            answer = await wire.next()
            if installed or wanted is None:
                assert answer["session"]["input_audio_noise_reduction"] == wanted
            else:
                assert answer["error"]["code"] == "invalid_value"
                assert answer["error"]["param"] == "session.input_audio_noise_reduction"


async def test_D42_compression_is_not_taken_up(server: Server) -> None:
    url = f"ws://127.0.0.1:{server.port}{AZURE}"
    async with connect(url, additional_headers={"api-key": KEY}, compression="deflate") as socket:
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
        assert json.loads(await socket.recv())["type"] == "session.created"


def test_D43_the_text_of_a_conversation() -> None:
    bench = Bench(LATEST)
    for _ in range(8):
        created = bench.runner.perform(s.SendCharacters(1_048_576), bench.names)
        assert kinds(created) == ["conversation.item.created"]
    assert error(bench.runner.perform(s.SendCharacters(1), bench.names))["code"] == "conversation_full"


@pytest.mark.parametrize("truncation", ["auto", "disabled"])
def test_D44_a_context_that_is_too_long(truncation: str) -> None:
    bench = Bench("openai-ga", "context_window 100\n")
    bench.send({"type": "session.update", "session": {"type": "realtime", "truncation": truncation}})
    bench.runner.perform(s.SendCharacters(200), bench.names)
    for characters, fits in ((700, truncation == "auto"), (2000, False)):
        bench.runner.perform(s.SendCharacters(characters), bench.names)
        answers = bench.send({"type": "response.create"})
        if fits:
            assert kinds(answers) == ["response.created"]
            bench.send({"type": "response.cancel"})
        else:
            assert kinds(answers) == ["response.created", "response.done"]
            assert isinstance(answers[1], dict)
            assert answers[1]["response"]["status_details"]["error"]["code"] == "context_length_exceeded"
