"""Client secrets over real sockets: minted at every door, used at every place, refused (protocol section 1.5)."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import pytest_asyncio
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError
from dev_tokens import STRANGER, dev_token, token_of_an_unreachable_issuer, with_tokens
from server_fakes import BETA, KEY, NAME, Fakes, Wire, config, impatient, no_sessions, serving

from vivavoce.config import AuditSettings
from vivavoce.engines.registry import Registry
from vivavoce.gateway import client_secrets
from vivavoce.gateway.principals import Principal
from vivavoce.gateway.shared.base import Unavailable
from vivavoce.server import app
from vivavoce.server import client_secrets as endpoint
from vivavoce.server.app import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = f"{NAME}-2024-12-17"
PREVIEW_AZURE = "/openai/realtimeapi/sessions?api-version=2025-04-01-preview"
PREVIEW_AZURE_TRANSCRIPTION = "/openai/realtimeapi/transcription_sessions?api-version=2025-04-01-preview"
GA_DOORS = ("/v1/realtime/client_secrets", "/openai/v1/realtime/client_secrets")
BEARER = {"Authorization": f"Bearer {KEY}"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(clock: Clock) -> AsyncIterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "installed", Fakes)
        patch.setattr(app, "ClientSecrets", functools.partial(client_secrets.ClientSecrets, clock=clock))
        async with serving(config()) as server:
            yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: Server) -> AsyncIterator[ClientSession]:
    async with ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield client


async def post(client: ClientSession, path: str, body: object, **headers: str) -> dict[str, Any]:
    async with client.post(path, json=body, headers=headers or {"api-key": KEY}) as answer:
        told: dict[str, Any] = await answer.json()
        assert answer.status == 200, told
        assert answer.content_type == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "x-request-id" in answer.headers
        assert ("apim-request-id" in answer.headers) is path.startswith("/openai/")
    return told


async def ga_secret(client: ClientSession, path: str = GA_DOORS[0], **session: Any) -> str:
    told = await post(client, path, {"session": {"type": "realtime", "model": NAME, **session}})
    value: str = told["value"]
    return value


async def preview_secret(client: ClientSession, path: str = PREVIEW_AZURE, **session: Any) -> str:
    told = await post(client, path, {"model": NAME, **session})
    value: str = told["client_secret"]["value"]
    return value


# -------------------------------------------------------------------------------------------------------- minting

VAD = {"type": "semantic_vad", "eagerness": "low", "create_response": True, "interrupt_response": False}
GA_SESSION: dict[str, Any] = {
    "type": "realtime",
    "model": NAME,
    "instructions": "Speak like a pirate.",
    "output_modalities": ["text"],
    "max_output_tokens": 99,
    "tools": [{"type": "function", "name": "sail"}],
    "tool_choice": {"type": "function", "name": "sail"},
    "audio": {
        "input": {"format": {"type": "audio/pcmu"}, "transcription": {"model": "whisper-1"}, "turn_detection": VAD},
        "output": {"voice": "cedar", "speed": 1.25},
    },
}
PREVIEW_SESSION: dict[str, Any] = {
    "model": NAME,
    "voice": "verse",
    "instructions": "Speak like a pirate.",
    "modalities": ["text"],
    "temperature": 0.7,
    "max_response_output_tokens": 99,
    "input_audio_format": "g711_ulaw",
    "input_audio_transcription": {"model": "whisper-1"},
    "turn_detection": VAD,
    "tools": [{"type": "function", "name": "sail"}],
}


@pytest.mark.parametrize("path", GA_DOORS)
async def test_ga_mints_and_the_session_begins_as_asked(client: ClientSession, clock: Clock, path: str) -> None:
    body = {"expires_after": {"anchor": "created_at", "seconds": 30}, "session": GA_SESSION}
    told = await post(client, path, body)
    assert list(told) == ["value", "expires_at", "session"]
    assert told["expires_at"] == int(clock.now) + 30
    shown = told["session"]
    assert (shown["object"], shown["model"], shown["expires_at"]) == ("realtime.session", MODEL, 0)
    assert shown["id"].startswith("sess_")
    assert (shown["instructions"], shown["output_modalities"]) == ("Speak like a pirate.", ["text"])
    assert shown["audio"]["input"]["turn_detection"] == VAD
    assert (shown["audio"]["output"]["voice"], shown["audio"]["output"]["speed"]) == ("cedar", 1.25)
    headers = {"Authorization": f"Bearer {told['value']}"}
    async with client.ws_connect(f"/v1/realtime?model={NAME}", headers=headers) as socket:
        created = (await Wire(socket).next())["session"]
    changed = {"id", "expires_at"}
    assert {name: value for name, value in created.items() if name not in changed} == {
        name: value for name, value in shown.items() if name not in changed
    }
    assert created["id"] != shown["id"]


@pytest.mark.parametrize("path", ["/v1/realtime/sessions", PREVIEW_AZURE])
async def test_the_preview_mints_and_the_session_begins_as_asked(
    client: ClientSession, clock: Clock, path: str
) -> None:
    told = await post(client, path, PREVIEW_SESSION)
    assert told["client_secret"]["expires_at"] == int(clock.now) + 60
    assert (told["object"], told["model"], told["expires_at"]) == ("realtime.session", MODEL, 0)
    assert (told["voice"], told["temperature"], told["turn_detection"]) == ("verse", 0.7, VAD)
    azure = f"/openai/realtime?api-version=2025-04-01-preview&deployment={NAME}"
    async with client.ws_connect(azure, headers={"api-key": told["client_secret"]["value"]}) as socket:
        created = (await Wire(socket).next())["session"]
    changed = {"id": "", "expires_at": 0, "client_secret": None}
    assert {**created, **changed} == {**told, **changed}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (GA_DOORS[0], {"session": {"type": "transcription", "audio": {"input": {"turn_detection": None}}}}),
        (GA_DOORS[1], {"session": {"type": "transcription", "audio": {"input": {"turn_detection": None}}}}),
        ("/v1/realtime/transcription_sessions", {"turn_detection": None}),
        (PREVIEW_AZURE_TRANSCRIPTION, {"turn_detection": None}),
    ],
)
async def test_secrets_of_transcription_sessions(client: ClientSession, path: str, body: dict[str, Any]) -> None:
    told = await post(client, path, body)
    ga = "value" in told
    shown = told["session"] if ga else told
    assert shown["object"] == "realtime.transcription_session"
    value = told["value"] if ga else told["client_secret"]["value"]
    headers = {"Authorization": f"Bearer {value}", **({} if ga else BETA)}
    async with client.ws_connect("/v1/realtime?intent=transcription", headers=headers) as socket:
        event = await Wire(socket).next()
        assert event["type"] == ("session.created" if ga else "transcription_session.created")
        created = event["session"]
        assert (created["audio"]["input"] if ga else created)["turn_detection"] is None


async def test_who_names_no_model_gets_the_first_but_on_azure(client: ClientSession) -> None:
    assert (await post(client, GA_DOORS[0], {}))["session"]["model"] == MODEL
    assert (await post(client, "/v1/realtime/sessions", {}))["model"] == MODEL
    async with client.post(GA_DOORS[1], json={}, headers={"api-key": KEY}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (404, "DeploymentNotFound")


async def test_a_session_may_change_what_it_began_with(client: ClientSession) -> None:
    secret = await ga_secret(client, instructions="First.")
    async with client.ws_connect("/v1/realtime", headers={"Authorization": f"Bearer {secret}"}) as socket:
        wire = Wire(socket)
        await wire.next()
        await wire.send("session.update", session={"type": "realtime", "instructions": "Second."})
        assert (await wire.next())["session"]["instructions"] == "Second."
        await wire.send("session.update", session={"type": "realtime", "instructions": ""})
        assert (await wire.next())["session"]["instructions"] == "First."


# ------------------------------------------------------------------------------------------------------------ use

AZURE = f"/openai/realtime?api-version=2025-04-01-preview&deployment={NAME}"
PLACES = {
    "GA, bearer header": ("ga", f"/v1/realtime?model={NAME}", {"Authorization": "Bearer EK"}, ()),
    "GA, bearer query": ("ga", f"/v1/realtime?model={NAME}&Authorization=Bearer%20EK", {}, ()),
    "GA, subprotocol": ("ga", f"/v1/realtime?model={NAME}", {}, ("realtime", "openai-insecure-api-key.EK")),
    "GA, api-key header": ("ga", f"/v1/realtime?model={NAME}", {"api-key": "EK"}, ()),
    "GA, api-key query": ("ga", f"/v1/realtime?model={NAME}&api-key=EK", {}, ()),
    "azure GA, bearer header": ("ga", f"/openai/v1/realtime?model={NAME}", {"Authorization": "Bearer EK"}, ()),
    "azure GA, api-key header": ("ga", f"/openai/v1/realtime?model={NAME}", {"api-key": "EK"}, ()),
    "azure GA, api-key query": ("ga", f"/openai/v1/realtime?model={NAME}&api-key=EK", {}, ()),
    "azure GA, subprotocol": (
        "ga", f"/openai/v1/realtime?model={NAME}", {}, ("realtime", "openai-insecure-api-key.EK"),
    ),
    "preview, bearer header": ("preview", f"/v1/realtime?model={NAME}", {"Authorization": "Bearer EK", **BETA}, ()),
    "preview, subprotocol": (
        "preview", f"/v1/realtime?model={NAME}", {},
        ("realtime", "openai-insecure-api-key.EK", "openai-beta.realtime-v1"),
    ),
    "azure, api-key header": ("preview", AZURE, {"api-key": "EK"}, ()),
    "azure, api-key query": ("preview", f"{AZURE}&api-key=EK", {}, ()),
    "azure, bearer header": ("preview", AZURE, {"Authorization": "Bearer EK"}, ()),
    "beside a placeholder": (
        "ga", f"/v1/realtime?model={NAME}", {"api-key": "x", "Authorization": "Bearer EK"}, (),
    ),
}  # fmt: skip


async def minted(client: ClientSession, dialect: str) -> str:
    return await (ga_secret if dialect == "ga" else preview_secret)(client, instructions="Of the secret.")


@pytest.mark.parametrize("case", PLACES)
async def test_a_secret_works_wherever_a_client_can_put_it(
    client: ClientSession,
    server: Server,
    case: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    dialect, path, headers, protocols = PLACES[case]
    with caplog.at_level(logging.DEBUG):
        secret = await minted(client, dialect)
        placed = {name: value.replace("EK", secret) for name, value in headers.items()}
        for _ in range(2):
            async with client.ws_connect(
                path.replace("EK", secret), headers=placed, protocols=[p.replace("EK", secret) for p in protocols]
            ) as socket:
                created = await Wire(socket).next()
                assert (created["type"], created["session"]["instructions"]) == (
                    "session.created",
                    "Of the secret.",
                )
        await no_sessions(server)
    assert f"{client_secrets.principal_id(secret)}: deployment {NAME}" in caplog.text
    # When it is minted, in the log and in the audit, and at each session.
    assert caplog.text.count(client_secrets.principal_id(secret)) == 4
    for told in (caplog.text, "".join(capfd.readouterr())):
        assert secret not in told
        assert secret.removeprefix("ek_") not in told
        assert "Of the secret." not in told


async def refused_with(client: ClientSession, path: str, secret: str) -> tuple[int, str | None]:
    """HTTP status, or close code, and error code."""
    headers = {"Authorization": f"Bearer {secret}"}
    try:
        async with client.ws_connect(path, headers=headers) as socket:
            error = (await Wire(socket).next())["error"]
            close = await socket.receive()
            assert close.type is WSMsgType.CLOSE
            return close.data, error["code"]
    except WSServerHandshakeError as refusal:
        return refusal.status, None


@pytest.mark.parametrize(
    ("dialect", "path", "told"),
    [
        ("ga", f"/v1/realtime?model={NAME}", (3000, "invalid_api_key")),
        ("ga", f"/openai/v1/realtime?model={NAME}", (401, None)),
        ("preview", AZURE, (401, None)),
    ],
)
async def test_it_ends(
    client: ClientSession, clock: Clock, dialect: str, path: str, told: tuple[int, str | None]
) -> None:
    secret = await minted(client, dialect)
    seconds = 600 if dialect == "ga" else 60
    clock.now += seconds - 1
    async with client.ws_connect(path, headers={"Authorization": f"Bearer {secret}"}) as socket:
        wire = Wire(socket)
        assert (await wire.next())["type"] == "session.created"
        clock.now += 1
        assert await refused_with(client, path, secret) == told
        # A session that it opened outlives it.
        await wire.send("input_audio_buffer.clear")
        await wire.until("input_audio_buffer.cleared")


@pytest.mark.parametrize(
    ("dialect", "path", "told"),
    [
        ("preview", f"/v1/realtime?model={NAME}", (4000, "api_version_mismatch")),
        ("ga", AZURE, (400, None)),
        ("ga", "/v1/realtime?model=other", (4000, "invalid_model")),
        ("ga", "/v1/realtime?intent=transcription", (4000, "session_type_mismatch")),
        ("ga", "/openai/v1/realtime?model=other", (404, None)),
    ],
)
async def test_it_opens_no_other_session(
    client: ClientSession, dialect: str, path: str, told: tuple[int, str | None]
) -> None:
    assert await refused_with(client, path, await minted(client, dialect)) == told


async def test_a_secret_that_does_not_fit_any_more(
    client: ClientSession, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart without noise reduction, with the state in Redis."""
    monkeypatch.setattr(server.endpoint, "_reduces_noise", True)
    grant = client_secrets.Grant(
        account="a", deployment=NAME, dialect="ga", kind="realtime", expires_at=0, minted_by="",
        body=b'{"session":{"type":"realtime","audio":{"input":{"noise_reduction":{"type":"near_field"}}}}}',
    )  # fmt: skip
    deployment = server.endpoint._deployments[NAME].deployment
    config = endpoint.granted_config(deployment, grant, reduces_noise=True)
    assert config.input_audio_noise_reduction == "near_field"
    secret = await ga_secret(client)

    async def fits_not(self: object, credential: object, account: str | None) -> object:
        return Principal(kind="ephemeral", id="ephemeral:1", grant=grant)

    monkeypatch.setattr(client_secrets.ClientSecrets, "identify", fits_not)
    monkeypatch.setattr(server.endpoint, "_reduces_noise", False)
    assert await refused_with(client, "/v1/realtime", secret) == (4000, "invalid_client_secret")
    assert await refused_with(client, "/openai/v1/realtime", secret) == (400, None)


# -------------------------------------------------------------------------------------------------------- refusals

GA, AZURE_GA, PREVIEW = GA_DOORS[0], GA_DOORS[1], "/v1/realtime/sessions"
JSON = {"Content-Type": "application/json"}
NO_KEY = "Missing bearer or basic authentication in header"
DENIED = "Access denied due to invalid subscription key"
REFUSALS: dict[str, tuple[str, str, dict[str, str], bytes, int, str | None, str | None, str]] = {
    "GET": ("GET", GA, BEARER, b"", 405, None, None, f"Invalid method for URL (GET {GA})"),
    "GET, azure": ("GET", AZURE_GA, BEARER, b"", 405, "405", None, f"Invalid method for URL (GET {AZURE_GA})"),
    "no key": ("POST", GA, JSON, b"{}", 401, None, None, NO_KEY),
    "no key, azure": ("POST", AZURE_GA, JSON, b"{}", 401, "401", None, DENIED),
    "a wrong key": (
        "POST", GA, {**JSON, "Authorization": "Bearer sk-wrong"}, b"{}", 401, "invalid_api_key", None,
        "Incorrect API key provided: ********.",
    ),
    "a wrong key, azure": ("POST", PREVIEW_AZURE, {**JSON, "api-key": "wrong"}, b"{}", 401, "401", None, DENIED),
    "no api-version": (
        "POST", "/openai/realtimeapi/sessions", {**JSON, **BEARER}, b"{}", 404, "404", None, "Resource not found",
    ),
    "an api-version that has none": (
        "POST", PREVIEW_AZURE.replace("2025-04-01", "2024-10-01"), {**JSON, **BEARER}, b"{}", 404, "404", None,
        "Resource not found",
    ),
    "no content type": (
        "POST", GA, {**BEARER, "Content-Type": ""}, b"{}", 415, "unsupported_content_type", None,
        "Unsupported content type: 'application/octet-stream'.",
    ),
    "a form": (
        "POST", GA, {**BEARER, "Content-Type": "application/x-www-form-urlencoded"}, b"{}", 415,
        "unsupported_content_type", None, "Unsupported content type: 'application/x-www-form-urlencoded'.",
    ),
    "a form, azure": (
        "POST", AZURE_GA, {**BEARER, "Content-Type": "text/plain"}, b"{}", 415, "unsupported_content_type", None,
        "Unsupported content type: 'text/plain'.",
    ),
    "too large": (
        "POST", GA, {**JSON, **BEARER}, b" " * 262145, 413, "request_too_large", None,
        "The body of your request is larger than 262144 bytes.",
    ),
    "no JSON": (
        "POST", GA, {**JSON, **BEARER}, b"{", 400, None, None, "We could not parse the JSON body of your request.",
    ),
    "no UTF-8": (
        "POST", GA, {**JSON, **BEARER}, b'{"session": "\xff"}', 400, None, None,
        "We could not parse the JSON body of your request.",
    ),
    "deep": (
        "POST", GA, {**JSON, **BEARER}, b"[" * 100_000, 400, None, None,
        "We could not parse the JSON body of your request.",
    ),
    "no object": (
        "POST", GA, {**JSON, **BEARER}, b"[]", 400, "invalid_type", None,
        "Invalid body: expected an object, but got an array instead.",
    ),
    "an unknown field": (
        "POST", GA, {**JSON, **BEARER}, b'{"session":{"type":"realtime","audio":{"x":1}}}', 400,
        "unknown_parameter", "session.audio.x", "Unknown parameter: 'session.audio.x'.",
    ),
    "an unknown field, azure": (
        "POST", AZURE_GA, {**JSON, **BEARER}, b'{"model":"m"}', 400, "unknown_parameter", "model",
        "Unknown parameter: 'model'.",
    ),
    "an unknown field, preview": (
        "POST", PREVIEW, {**JSON, **BEARER}, b'{"session":{}}', 400, "unknown_parameter", "session",
        "Unknown parameter: 'session'.",
    ),
    "what contradicts itself": (
        "POST", GA, {**JSON, **BEARER},
        b'{"session":{"type":"realtime","tool_choice":{"type":"function","name":"f"}}}', 400, "invalid_value",
        "session.tool_choice", "Tool choice 'f' not found in 'tools' parameter.",
    ),
    "what contradicts itself, preview": (
        "POST", PREVIEW_AZURE, {**JSON, **BEARER},
        f'{{"model":"{NAME}","tool_choice":{{"type":"function","name":"f"}}}}'.encode(), 400, "invalid_value",
        "tool_choice", "Tool choice 'f' not found in 'tools' parameter.",
    ),
    "an unknown model": (
        "POST", GA, {**JSON, **BEARER}, b'{"session":{"type":"realtime","model":"whisper-1"}}', 400,
        "invalid_model", None, 'Model "whisper-1" is not supported in realtime mode.',
    ),
    "an unknown model, azure": (
        "POST", PREVIEW_AZURE, {**JSON, **BEARER}, b'{"model":"whisper-1"}', 404, "DeploymentNotFound", None,
        "The API deployment for this resource does not exist.",
    ),
    "too many headers, azure": (
        "POST", AZURE_GA, {**JSON, **BEARER, **{f"my-{n}": "x" for n in range(11)}}, b"{}", 431, "431", None,
        "Request header fields too large",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
async def test_refusals(client: ClientSession, case: str) -> None:
    method, path, headers, body, status, code, param, message = REFUSALS[case]
    async with client.request(method, path, headers=headers, data=body) as answer:
        assert answer.status == status
        assert answer.content_type == "application/json"
        error = (await answer.json())["error"]
        assert answer.headers.get("Allow") == ("POST" if status == 405 else None)
    assert error["message"].startswith(message)
    told = {name: value for name, value in error.items() if name != "message"}
    if path.startswith("/openai/") and status != 400:
        assert told == {"code": code}
    else:
        assert told == {"type": "invalid_request_error", "code": code, "param": param}


async def test_a_secret_mints_no_other_but_may_stand_beside_a_key(client: ClientSession) -> None:
    secret = await ga_secret(client)
    for path, code in ((GA, "invalid_api_key"), (AZURE_GA, "401")):
        async with client.post(path, json={}, headers={"Authorization": f"Bearer {secret}"}) as answer:
            told = await answer.text()
            assert (answer.status, json.loads(told)["error"]["code"]) == (401, code)
            assert secret not in told
    headers = {"api-key": secret, "Authorization": f"Bearer {KEY}"}
    assert (await post(client, GA, {}, **headers))["value"] != secret


async def test_a_key_in_the_query_mints(client: ClientSession) -> None:
    async with client.post(f"{GA}?api-key={quote(KEY)}", json={}) as answer:
        assert answer.status == 200


async def test_a_body_in_pieces_is_bounded_too(client: ClientSession) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b" " * 1024

    async with client.post(GA, data=pieces(), headers={**BEARER, **JSON}) as answer:
        assert answer.status == 413


async def test_a_body_that_does_not_come(client: ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    never = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    async with client.post(GA, data=pieces(), headers={**BEARER, **JSON}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (408, "request_timeout")


async def test_as_many_as_may_be_are_alive(client: ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_secrets, "MAX_SECRETS", 0)
    for path, error_type in ((GA, "rate_limit_exceeded"), (AZURE_GA, None)):
        body = {"session": {"type": "realtime", "model": NAME}}
        async with client.post(path, json=body, headers=BEARER) as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["code"], error.get("type")) == (429, "rate_limit_exceeded", error_type)
            assert answer.headers["retry-after"] == "10"


async def test_the_shared_state_is_away(client: ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(self: object, **_: object) -> object:
        raise Unavailable

    monkeypatch.setattr(client_secrets.ClientSecrets, "mint", away)
    async with client.post(GA, json={}, headers=BEARER) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (503, "service_unavailable")


async def test_they_are_counted(client: ClientSession) -> None:
    async def count(line: str) -> float:
        async with client.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next((float(one.rpartition(" ")[2]) for one in lines if one.startswith(line)), 0.0)

    minted_line = f'vivavoce_client_secrets_minted_total{{deployment="{NAME}"}}'
    refused_line = 'vivavoce_client_secrets_refused_total{status="401"}'
    before = await count(minted_line), await count(refused_line)
    await ga_secret(client)
    async with client.post(GA, json={}) as answer:
        assert answer.status == 401
    assert (await count(minted_line), await count(refused_line)) == (before[0] + 1, before[1] + 1)


# --------------------------------------------------------------------------------------------------- who may mint


@pytest.fixture
async def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ClientSession]:
    """A server that takes tokens, bears two failures (for which no time passes), and writes down who was there."""
    monkeypatch.setattr(Registry, "installed", Fakes)
    monkeypatch.setattr("vivavoce.server.identity.time", SimpleNamespace(monotonic=lambda: 0.0))
    settings = with_tokens(tmp_path, failures=2)
    settings = msgspec.structs.replace(settings, audit=AuditSettings(path=str(tmp_path / "audit.jsonl")))
    async with serving(settings) as server, ClientSession(f"http://127.0.0.1:{server.port}") as client:
        yield client


BODY: dict[str, Any] = {"session": {"type": "realtime", "model": NAME}}


@pytest.mark.asyncio(loop_scope="function")
async def test_a_token_mints_where_its_holder_may_connect(guarded: ClientSession, tmp_path: Path) -> None:
    for path in GA_DOORS:
        told = await post(guarded, path, BODY, Authorization=f"Bearer {dev_token()}")
        async with guarded.ws_connect("/v1/realtime", headers={"api-key": told["value"]}) as socket:
            assert (await Wire(socket).next())["type"] == "session.created"
    stranger = {"Authorization": f"Bearer {dev_token(STRANGER)}"}
    for path, code in zip(GA_DOORS, ("insufficient_permissions", "PermissionDenied"), strict=True):
        async with guarded.post(path, json=BODY, headers=stranger) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (401, code)
    text = (tmp_path / "audit.jsonl").read_text()
    assert "ek_" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["outcome"], line["actor"]["kind"]) for line in lines] == [
        ("done", "entra"), ("done", "entra"), ("refused", "anonymous"), ("refused", "anonymous"),
    ]  # fmt: skip
    assert lines[0]["target"].endswith(f"/deployments/{NAME}")
    assert lines[0]["details"]["principal_id"].startswith("ephemeral:")
    assert lines[0]["details"]["seconds"] == 600


@pytest.mark.asyncio(loop_scope="function")
async def test_who_cannot_be_known_now_is_told_when_to_come_back(guarded: ClientSession) -> None:
    headers = {"Authorization": f"Bearer {token_of_an_unreachable_issuer()}"}
    for path in GA_DOORS:
        async with guarded.post(path, json=BODY, headers=headers) as answer:
            assert (answer.status, "retry-after" in answer.headers) == (503, True)


@pytest.mark.asyncio(loop_scope="function")
async def test_guesses_are_counted_but_no_secrets_that_have_ended(guarded: ClientSession) -> None:
    for _ in range(5):
        ended = client_secrets.PREFIX + "0" * 32
        assert await refused_with(guarded, "/v1/realtime", ended) == (3000, "invalid_api_key")
    assert (await post(guarded, GA_DOORS[0], BODY))["value"].startswith("ek_")
    for status in (401, 401, 429):
        async with guarded.post(GA_DOORS[0], json=BODY, headers={"api-key": "wrong"}) as answer:
            assert (answer.status, "retry-after" in answer.headers) == (status, status == 429)
