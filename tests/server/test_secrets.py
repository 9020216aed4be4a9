"""Keys, tokens and passwords are in nothing that the server writes: no log, error, metric, audit, and no settings.

Every secret of this page has the same mark in it, so that one search finds any of them, whole or in pieces.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import os
import pickle
import re
import socket as sockets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError, web
from dev_tokens import STRANGER, TENANT, USER, dev_token, keys
from dev_tokens import URL as ISSUER
from server_fakes import PATIENCE_S

from vivavoce import cli
from vivavoce.cli_failure import FAILED, WRONG
from vivavoce.config import Config, EngineSettings, Secret, load_config
from vivavoce.config.development_keys import development_keys
from vivavoce.gateway.arm.routes import API_VERSIONS, ROUTES, Route

PROC: Final = Path("/proc")
MARK: Final = "qX7vK2mZ9t"
KEY: Final = f"key-{MARK}-of-the-file"
OTHER_KEY: Final = f"other-{MARK}-key"
ENVIRONMENT_KEY: Final = f"env-{MARK}-key"
ENGINE_KEY: Final = f"engine-{MARK}-key"
WRONG_KEY: Final = f"wrong-{MARK}-key"
PASSWORD: Final = f"pass-{MARK}-word"
EPHEMERAL: Final = f"ek_{MARK}0123456789abcdef"
SPOKEN: Final = f"my diagnosis is {MARK}"


def _part(claims: Mapping[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


TOKEN: Final = f"{_part({'alg': 'RS256', 'kid': 'k'})}.{_part({'oid': 'o', 'aud': 'a'})}.{MARK}c2lnbmF0dXJl"

PREVIEW: Final = "/openai/realtime?api-version=2024-10-01-preview&deployment=voice"
GA: Final = "/openai/v1/realtime?model=voice"
OPENAI: Final = "/v1/realtime?model=voice"
ACCOUNTS: Final = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts"
PATHS: Final = (PREVIEW, GA, OPENAI)
THERE: Final = {
    "subscription": "s",
    "group": "g",
    "account": "vivavoce",
    "deployment": "voice",
    "location": "eastus2",
    "operationId": "none",
    "assignment": "dddddddd-0000-0000-0000-000000000001",
    "definition": "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd",
}
"""What management paths name; the definition is of Cognitive Services OpenAI User."""


@dataclass
class Said:
    """All that a server told anybody."""

    answers: list[str] = field(default_factory=list)
    given: set[str] = field(default_factory=set)
    """Secrets that it gave to who asked for them, and tokens that are good."""
    out: bytes = b""
    err: bytes = b""

    def add(self, *parts: object) -> None:
        self.answers += [str(part) for part in parts]

    def betrays(self, text: str) -> list[str]:
        """The lines in which there is a secret."""
        lines = text.replace(SPOKEN, "").splitlines()
        return [line for line in lines if MARK in line or any(secret in line for secret in self.given)]

    @property
    def everything(self) -> str:
        return "\n".join([*self.answers, self.out.decode(), self.err.decode()])


@asynccontextmanager
async def served(config: Path, said: Said, *options: str) -> AsyncIterator[str]:
    """A server in a process of its own that logs all it can; the URL of it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-m", "vivavoce", "serve", "--port", "0", "--config", str(config), *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "ENGINE_KEY": ENGINE_KEY, "PYTHONASYNCIODEBUG": "1"},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            said.out = await process.stdout.readline()
        assert said.out.startswith(b"vivavoce is ready: ws://"), (said.out, await process.communicate())
        yield said.out.decode().split()[3].partition("/openai")[0].replace("ws://", "http://")
        process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            out, said.err = await process.communicate()
        said.out += out
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[int]:
    """The port of somebody who refuses every key, and quotes it, as OpenAI does."""

    async def refuse(request: web.Request) -> web.Response:
        key = request.headers.get("Authorization", "none").removeprefix("Bearer ")
        message = f"Incorrect API key provided: {key}. Its request had {request.headers.get('x-more')}."
        headers = {"x-key": key, "Set-Cookie": f"session={PASSWORD}"}
        return web.json_response(
            {"error": {"message": message, "code": key, "type": key}}, status=401, headers=headers
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
def config(tmp_path: Path, upstream: int) -> Path:
    path = tmp_path / "vivavoce.toml"
    (tmp_path / "data").mkdir()
    development_keys(tmp_path / "data", lambda: keys(0))
    path.write_text(
        f"""
        [server]
        log_level = "debug"
        data = "data"

        [resource]
        keys = ["{KEY}", "{OTHER_KEY}"]
        subscription = "s"
        resource_group = "g"
        tenant = "{TENANT}"

        [identity]
        failures = 0

        [development_issuer]
        enabled = true
        url = "{ISSUER}"

        [[role_assignment]]
        role = "Cognitive Services OpenAI User"
        principal_id = "{USER}"

        [[role_assignment]]
        role = "Owner"
        scope = "/subscriptions/s"
        principal_id = "{USER}"

        [management]
        enabled = true

        [models]
        lifecycle = "off"
        regions = false

        [store]
        secret = "secret-{MARK}-of-all-the-keys-of-the-store"

        [audit]
        path = "audit.jsonl"

        [[deployment]]
        name = "voice"
        language_model = "far"
        instructions = "{SPOKEN}"

        [engine.far]
        kind = "language_model"
        type = "openai_compatible"
        base_url = "http://127.0.0.1:{upstream}/v1"
        model = "m"
        api_key_env = "ENGINE_KEY"
        headers = {{ x-more = "{PASSWORD}" }}
        max_retries = 0
        check = "warn"
        """,
        encoding="utf-8",
    )
    return path


KNOCKS: Final[list[dict[str, Any]]] = [
    {"headers": {"api-key": WRONG_KEY}},
    {"headers": {"Authorization": f"Bearer {WRONG_KEY}"}},
    {"headers": {"Authorization": f"Bearer {TOKEN}"}},
    {"headers": {"Authorization": f"Bearer {TOKEN}.more.parts"}},
    {"headers": {"Authorization": f"Bearer {EPHEMERAL}"}},
    {"headers": {"Authorization": f"Basic {PASSWORD}"}},
    {"headers": {"api-key": EPHEMERAL, "Cookie": f"session={PASSWORD}"}},
    {"headers": {"x-ms-client-request-id": "mine", "x-my-token": PASSWORD, "api-key": WRONG_KEY}},
    {"params": {"api-key": WRONG_KEY}},
    {"params": {"authorization": f"Bearer {TOKEN}"}},
    {"params": {"access_token": TOKEN}},
    {"protocols": ["realtime", f"openai-insecure-api-key.{WRONG_KEY}"]},
    {"protocols": ["realtime", f"openai-insecure-api-key.{EPHEMERAL}", "openai-beta.realtime-v1"]},
]
"""Ways to be refused with a secret in one's hand."""

ENTRANCES: Final[list[dict[str, Any]]] = [
    {"headers": {"api-key": KEY}},
    {"headers": {"Authorization": f"Bearer {OTHER_KEY}"}},
    {"headers": {"api-key": WRONG_KEY, "Authorization": f"Bearer {KEY}"}},
    {"params": {"api-key": KEY}},
    {"protocols": ["realtime", f"openai-insecure-api-key.{KEY}"]},
]

REQUESTS: Final[list[tuple[str, str]]] = [
    ("GET", f"/openai/realtime?api-key={WRONG_KEY}"),
    ("POST", "/v1/realtime/client_secrets"),
    ("POST", "/openai/v1/realtime/client_secrets"),
    ("POST", "/openai/realtimeapi/sessions?api-version=2025-04-01-preview"),
    ("GET", f"/metrics?token={TOKEN}"),
    ("GET", f"/readyz?key={WRONG_KEY}"),
    ("GET", f"/nowhere?sig={PASSWORD}"),
    ("GET", f"{ACCOUNTS}?api-version=2024-10-01"),
    ("PUT", f"{ACCOUNTS}/vivavoce/deployments/d?api-version=2024-10-01"),
    ("POST", f"{ACCOUNTS}/vivavoce/listKeys?api-version=2024-10-01"),
]


def command_lines() -> list[bytes]:
    """Of all processes, where the system tells."""
    found = []
    for file in PROC.glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(file.read_bytes())
    return found


async def knock(client: ClientSession, path: str, said: Said, **how: Any) -> bool:
    """Whether a session came of it."""
    query = dict(how.pop("params", {}))
    try:
        async with client.ws_connect(path, params=query or None, **how) as socket:
            said.add(socket._response.headers)
            message = await socket.receive(PATIENCE_S)
            said.add(message.data)
            return message.type is WSMsgType.TEXT and json.loads(message.data)["type"] == "session.created"
    except WSServerHandshakeError as refused:
        said.add(refused.message, refused.headers)
        return False


async def spoken(client: ClientSession, path: str, said: Said) -> None:
    """A session that says something, and hears that the model refuses it."""
    async with client.ws_connect(path, headers={"api-key": KEY}) as socket:
        await socket.send_json(
            {
                "type": "conversation.item.create",
                "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": SPOKEN}]},
            }
        )
        await socket.send_json({"type": "response.create", "response": {"instructions": SPOKEN}})
        async with asyncio.timeout(PATIENCE_S):
            while (event := await socket.receive_json())["type"] != "response.done":
                pass
        said.add(event["response"]["status_details"])
        assert event["response"]["status"] == "failed"
        await socket.send_str(f'{{"type": "{PASSWORD}"')
        assert (await socket.receive_json())["type"] == "error"


async def tokens(client: ClientSession, said: Said) -> None:
    """Good tokens, and tokens that are nearly good."""
    good = dev_token()
    others = [
        dev_token(STRANGER),
        dev_token(expires_s=-900),
        dev_token(tenant=STRANGER),
        dev_token(audience="elsewhere"),
        dev_token(n=1),
    ]
    said.given |= {part for token in (good, *others) for part in token.split(".")[1:]}
    for path in PATHS:
        assert await knock(client, path, said, headers={"Authorization": f"Bearer {good}"})
        for token in others:
            assert not await knock(client, path, said, headers={"Authorization": f"Bearer {token}"})


async def secrets_for_clients(client: ClientSession, said: Said) -> None:
    """Client secrets: asked for, used, and asked for in vain."""
    body = {"session": {"type": "realtime", "model": "voice", "instructions": SPOKEN}}
    for path in ("/v1/realtime/client_secrets", "/openai/v1/realtime/client_secrets"):
        async with client.post(
            path, headers={"api-key": KEY, "Authorization": f"Bearer {KEY}"}, json=body
        ) as answer:
            assert answer.status == 200
            value = (await answer.json())["value"]
        assert value.startswith("ek_")
        said.given.add(value.removeprefix("ek_"))
        for entrance in ("/v1/realtime", "/openai/v1/realtime?model=voice"):
            assert await knock(client, entrance, said, headers={"Authorization": f"Bearer {value}"})
        assert not await knock(client, PREVIEW, said, headers={"Authorization": f"Bearer {value}"})
        assert not await knock(client, GA, said, headers={"Authorization": f"Bearer {value}x"})
        for broken in (f'{{"session": {{"type": "{PASSWORD}', '{"session": {"type": "realtime", "model": 1}}'):
            told = {"api-key": KEY, "Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
            async with client.post(path, headers=told, data=broken) as answer:
                assert answer.status == 400
                said.add(answer.headers)


def management_path(route: Route) -> str:
    """Of something that is there."""
    path = route.path.replace("/{scope}", "/subscriptions/s")
    for name in re.findall(r"\{(\w+)\}", path):
        path = path.replace(f"{{{name}}}", THERE[name])
    return f"{path}?api-version={API_VERSIONS[route.namespace][-1]}"


async def management(url: str, said: Said) -> None:
    """Every operation, asked for with every token; and an account with all that belongs to it, made and deleted."""
    audience = "https://management.azure.com/"
    good = dev_token(audience=audience)
    said.given |= set(good.split(".")[1:])
    stranger = dev_token(STRANGER, audience=audience)
    broken = f'{{"properties": "{PASSWORD}'
    async with ClientSession(url, headers={"Content-Type": "application/json"}) as client:
        for token, expected in ((good, {400, 409}), (stranger, {403}), (good[:-4], {401}), (TOKEN, {401})):
            for auxiliary in ({}, {"x-ms-authorization-auxiliary": f"Bearer {TOKEN}"}):
                changes = set()
                for route in ROUTES:
                    headers = {"Authorization": f"Bearer {token}", **auxiliary}
                    path = management_path(route)
                    async with client.request(route.method, path, headers=headers, data=broken) as answer:
                        text = await answer.text()
                    if answer.status != 200 or "listKeys" not in path:
                        said.add(text, answer.headers)
                    if answer.status not in (200, 204):
                        changes |= {answer.status} if route.method != "GET" else set()
                assert changes == ({401} if auxiliary else expected), (changes, expected)
    bearer = {"Authorization": f"Bearer {good}"}
    account, version = f"{ACCOUNTS}/other", "api-version=2024-10-01"
    deployment = {
        "sku": {"name": "GlobalStandard", "capacity": 1},
        "properties": {"model": {"format": "OpenAI", "name": "gpt-4o-realtime-preview", "version": "2024-12-17"}},
    }
    assignment = f"{account}/providers/Microsoft.Authorization/roleAssignments/{THERE['assignment']}"
    role = f"/subscriptions/s/providers/Microsoft.Authorization/roleDefinitions/{THERE['definition']}"
    assigned = {"properties": {"roleDefinitionId": role, "principalId": STRANGER, "principalType": "User"}}
    # One connection, so one process: others learn of a change within a second.
    async with ClientSession(url, headers=bearer) as client:
        for method, path, body, status in (
            ("PUT", account, {"location": "eastus2", "kind": "OpenAI", "sku": {"name": "S0"}}, 201),
            ("PATCH", account, {"tags": {"a": "b"}}, 200),
            ("POST", f"{account}/listKeys", None, 200),
            ("POST", f"{account}/regenerateKey", {"keyName": "Key1"}, 200),
            ("POST", f"{account}/regenerateKey", {"keyName": PASSWORD[:4]}, 400),
            ("GET", account, None, 200),
            ("PUT", f"{account}/deployments/d", deployment, 201),
            ("PATCH", f"{account}/deployments/d", {"tags": {"a": "b"}}, 200),
            ("GET", f"{account}/deployments/d", None, 200),
            ("GET", f"{account}/deployments", None, 200),
            ("GET", f"{account}/usages", None, 200),
            ("PUT", assignment, assigned, 201),
            ("GET", assignment, None, 200),
            ("DELETE", assignment, None, 200),
            ("DELETE", f"{account}/deployments/d", None, 200),
            ("DELETE", account, None, 200),
            ("POST", f"{ACCOUNTS}/vivavoce/listKeys", None, 200),
            ("POST", f"{ACCOUNTS}/vivavoce/regenerateKey", {"keyName": "Key1"}, 409),
        ):
            asked_version = "api-version=2022-04-01" if path == assignment else version
            async with client.request(method, f"{path}?{asked_version}", json=body) as answer:
                text = await answer.text()
            assert answer.status == status, (method, path, text)
            if answer.status == 200 and path.endswith(("Keys", "Key")):
                said.given |= {value for name, value in json.loads(text).items() if name in ("key1", "key2")}
            else:
                said.add(text, answer.headers)


async def garbage(url: str, said: Said) -> None:
    """Requests that HTTP refuses, with a key in the line at fault."""
    host, port = url.removeprefix("http://").split(":")
    for request in (
        f"GET {PREVIEW} HTTP/1.1\r\nHost: x\r\napi-key {KEY}\r\n\r\n",
        f"GET /{'x' * 9000}?api-key={KEY} HTTP/1.1\r\nHost: x\r\n\r\n",
        f"{KEY}\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request.encode())
        async with asyncio.timeout(PATIENCE_S):
            # What follows may quote the line at fault to whoever sent it.
            assert b" 400 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_server_writes_no_secret_down(config: Path, workers: str) -> None:
    said = Said()
    async with served(config, said, "--workers", workers) as url, ClientSession(url) as client:
        for path in PATHS:
            for how in KNOCKS:
                assert not await knock(client, path, said, **how), (path, how)
            for how in ENTRANCES:
                assert await knock(client, path, said, **how), (path, how)
        for path in PATHS[:2]:
            await spoken(client, path, said)
        headers = {
            "Authorization": f"Bearer {TOKEN}",
            "x-ms-authorization-auxiliary": f"Bearer {TOKEN}",
            "api-key": WRONG_KEY,
        }
        for method, path in REQUESTS:
            async with client.request(method, path, headers=headers, data=f'{{"properties": "{PASSWORD}') as answer:
                said.add(answer.headers, await answer.text())
        await tokens(client, said)
        await secrets_for_clients(client, said)
        await management(url, said)
        await garbage(url, said)
        for path in ("/metrics", "/readyz", "/healthz"):
            async with client.get(path) as answer:
                assert answer.status == 200
                said.add(await answer.text())
    audit = (config.parent / "audit.jsonl").read_text(encoding="ascii")
    assert '"outcome":"refused"' in audit
    assert "DEBUG" in said.err.decode()
    assert SPOKEN not in said.err.decode() + audit
    assert said.betrays(said.everything + audit) == []
    assert b"Traceback" not in said.err


async def test_a_key_of_the_environment_and_a_lost_redis(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIVAVOCE_API_KEY", ENVIRONMENT_KEY)
    with sockets.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]
    url = f"redis://me:{PASSWORD}@127.0.0.1:{nobody}/0"
    with config.open("a", encoding="utf-8") as file:
        file.write(f'[counters]\nurl = "{url}"\non_loss = "local_share"\n')
    said = Said()
    async with served(config, said, "--workers", "1") as url, ClientSession(url) as client:
        assert not await knock(client, OPENAI, said, headers={"Authorization": f"Bearer {KEY}"})
        assert await knock(client, OPENAI, said, headers={"Authorization": f"Bearer {ENVIRONMENT_KEY}"})
        commands = [line for line in command_lines() if str(config).encode() in line]
        assert commands or not PROC.exists()
        assert not any(MARK.encode() in line for line in commands)
        for path in ("/metrics", "/readyz"):
            async with client.get(path) as answer:
                said.add(await answer.text())
    assert "redis" in said.everything.lower()
    assert said.betrays(said.everything) == []


@pytest.mark.parametrize(
    "text",
    [
        '{RELAY}url = "ws://me:{PASSWORD}@127.0.0.1:{port}/v1/realtime"',
        '{RELAY}url = "ws://127.0.0.1:{port}/v1/realtime?token={PASSWORD}"\napi_key = "{ENGINE_KEY}"',
        '{RELAY}url = "ws://127.0.0.1:{port}/v1"\ntoken_command = ["sh", "-c", "echo {PASSWORD} >&2; exit 1"]',
        '{RELAY}url = "ws://127.0.0.1:{port}/v1"\ntoken_command = ["{PASSWORD}"]',
        '{HTTP}base_url = "http://127.0.0.1:{port}/v1"\nmodel = "m"\napi_key = "{ENGINE_KEY}"\ncheck = "fail"',
        '[counters]\nurl = "redis://me:{PASSWORD}@x:port/0"',
        '[store]\nurl = "postgresql://me:{PASSWORD}@127.0.0.1:{port}/x?password={PASSWORD}"',
    ],
)
async def test_a_server_that_cannot_start_says_no_secret(text: str, tmp_path: Path, upstream: int) -> None:
    config = tmp_path / "vivavoce.toml"
    names = {name: globals()[name] for name in ("RELAY", "HTTP", "PASSWORD", "ENGINE_KEY")}
    config.write_text(text.format(port=upstream, **names), encoding="utf-8")
    command = (sys.executable, "-m", "vivavoce", "serve", "--port", "0", "--config", str(config))
    process = await asyncio.create_subprocess_exec(
        *command, "--log-level", "debug", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(PATIENCE_S):
        told, _ = await process.communicate()
    assert process.returncode in (FAILED, WRONG), told
    assert MARK.encode() not in told
    assert b"Traceback" not in told


# ------------------------------------------------------------------------------------------------------- settings


@pytest.fixture
def settings(config: Path) -> Config:
    return load_config(config, environ={"ENGINE_KEY": ENGINE_KEY, "VIVAVOCE_API_KEY": ""})


def test_settings_show_no_secret(settings: Config) -> None:
    shown = [
        repr(settings),
        str(settings),
        f"{settings}",
        repr(settings.engines),
        repr(settings.resource),
        str(msgspec.structs.asdict(settings)),
        repr(copy.deepcopy(settings.engines)),
    ]
    assert not [text for text in shown if MARK in text.replace(SPOKEN, "")]


@pytest.mark.parametrize("part", ["resource", "engines"])
def test_settings_cannot_be_serialised(settings: Config, part: str) -> None:
    value = getattr(settings, part)
    for write in (pickle.dumps, json.dumps, msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins):
        with pytest.raises(TypeError):
            write(value)


def test_a_secret_gives_itself_away_on_demand_alone() -> None:
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    assert copy.copy(secret) is copy.deepcopy(secret) is secret
    assert not any(MARK in text for text in (repr(secret), str(secret), f"{secret}", f"{[secret]}", "%s" % secret))  # noqa: UP031
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        vars(secret)


def test_options_of_engines_are_what_they_were(settings: Config) -> None:
    options = settings.engines["far"].options
    assert options["api_key"] == ENGINE_KEY
    assert dict(options)["headers"] == {"x-more": PASSWORD}
    assert options == dict(options)
    assert EngineSettings(kind="vad", type="x", options=options).options == options


# ---------------------------------------------------------------------------------------------- broken settings

FAR: Final = '[[deployment]]\nname = "d"\nlanguage_model = "far"\n[engine.far]\nkind = "language_model"\n'
HTTP: Final = f'{FAR}type = "openai_compatible"\n'
RELAY: Final = f'{FAR.replace("language_model", "speech_model")}type = "upstream_realtime"\n'

BROKEN: Final = [
    f'[resource]\nkeys = ["{KEY} with a space"]',
    f'[resource]\nkeys = "{KEY}"',
    f'[resource]\nkeys = [["{KEY}"]]',
    f'[resource]\nkeys = ["{KEY}"\nname = 1',
    f'[resource]\nkey = "{KEY}"',
    f'[resource]\nkeys = ["{KEY}", 1]',
    f'[[account]]\nname = "a"\nkeys = ["{KEY}", "{KEY}\\n"]',
    f'[[account]]\nname = "a"\nkeys = ["{KEY}"]\n[[account]]\nname = "b"\nkeys = ["{KEY}"]',
    f'{HTTP}api_key = "{ENGINE_KEY}"',
    f'{HTTP}api_key_env = "{ENGINE_KEY}"',
    f'{HTTP}api_key_env = "NOT_SET"\nheaders = {{ x = "{PASSWORD}" }}',
    f'{FAR}type = "nobody"\napi_key = "{ENGINE_KEY}"',
    f'[engine.far]\nkind = "x"\ntype = "openai_compatible"\napi_key = "{ENGINE_KEY}"',
    f'{HTTP}base_url = "https://me:{PASSWORD}@example.org/v1"\nmodel = "m"',
    f'{HTTP}base_url = "https://example.org/v1?key={PASSWORD}"\nmodel = "m"',
    f'{HTTP}base_url = "https://example.org/v1"\nmodel = "m"\nproxy = "socks://me:{PASSWORD}@x"',
    f'{HTTP}base_url = "https://example.org/v1"\nmodel = "m"\napi_key = "{ENGINE_KEY} {PASSWORD}"',
    f'{HTTP}base_url = "https://example.org/v1"\nmodel = 1\napi_key = "{ENGINE_KEY}"',
    f'{HTTP}base_url = "https://example.org/v1"\nmodel = "m"\napi_key = 1\nheaders = ["{PASSWORD}"]',
    f'{RELAY}url = "http://[{PASSWORD}"',
    f'{RELAY}token_command = "{PASSWORD}"',
    f'[store]\nurl = "postgresql+psycopg://me:{PASSWORD}@127.0.0.1:1/x?{PASSWORD}"\nsecret = "short-{MARK}"',
    f'[store]\nurl = "not-a-url {PASSWORD}"\nsecret = 1',
    f'[store]\nurl = "not-a-url {PASSWORD}"',
    f'[store]\nurl = "mysql://me:{PASSWORD}@x/y"',
    f'[counters]\nurl = "http://me:{PASSWORD}@x"',
    f'[counters]\nurl_env = "{PASSWORD}"',
    f'[store]\nurl_env = "{PASSWORD}"',
]


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_said_of_a_broken_configuration(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIVAVOCE_API_KEY", raising=False)
    file = tmp_path / "broken.toml"
    file.write_text(text, encoding="utf-8")
    assert cli.main(["check-config", str(file)]) == WRONG
    told = capsys.readouterr()
    assert told.err.startswith("vivavoce: ")
    assert told.err.count("\n") == 1
    assert MARK not in told.out + told.err


def test_a_configuration_that_is_right_is_checked_without_showing_a_secret(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_KEY", ENGINE_KEY)
    assert cli.main(["check-config", str(config)]) == 0
    told = capsys.readouterr()
    assert "2 keys" in told.out
    assert MARK not in told.out + told.err
