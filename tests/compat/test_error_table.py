"""Every error of the catalogue is provoked, and is what docs/reference/errors.md says (``errors.toml``)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import msgspec
import pytest
import pytest_asyncio
from aiohttp import ClientSession, WSMsgType
from dev_tokens import GROUP, STRANGER, dev_token, token_of_an_unreachable_issuer, with_tokens
from error_cases import ErrorCase, error_cases
from server_fakes import AZURE, KEY, NAME, OPENAI, Fakes, Wire, config, impatient, no_sessions, serving, session

from vivavoce.config import Config, ModelsSettings
from vivavoce.engines.registry import Registry
from vivavoce.gateway.client_secrets import MAX_BODY_BYTES
from vivavoce.gateway.shared.base import Unavailable
from vivavoce.gateway.shared.memory import MemoryState
from vivavoce.server.app import Server
from vivavoce.testing.pure_runner import run_pure
from vivavoce.testing.script import parse
from vivavoce.testing.socket_runner import run_on_server
from vivavoce.wire import errors, refusals, rest_errors

EVENTS = [case for case in error_cases() if case.kind in ("event", "failure")]
HTTP = [case for case in error_cases() if case.kind == "http"]
RUSHED = "rushed"
CLOSE = [case for case in error_cases() if case.kind == "close"]
REST = [case for case in error_cases() if case.kind == "rest"]
_ERRORS = (
    errors.ClientFault,
    errors.ErrorBody,
    errors.ServerFault,
    refusals.RefusedHandshake,
    refusals.RefusedSession,
    rest_errors.RefusedRequest,
)
OTHER = "second"
NOISE_REDUCTION = {"audio": {"input": {"noise_reduction": {"type": "near_field"}}}}


def _name(case: ErrorCase) -> str:
    return f"{case.function}-{case.code}"


def test_every_function_of_the_catalogue_is_provoked() -> None:
    makers = {
        name
        for module in (errors, refusals, rest_errors)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and get_type_hints(function).get("return") in _ERRORS
    }
    assert makers == {case.function for case in error_cases()} - {"ServerFault"}


@pytest.mark.parametrize("case", EVENTS, ids=_name)
def test_on_the_pure_session(case: ErrorCase, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real: Any = getattr(errors, case.function)

    def spy(*arguments: Any) -> Any:
        made.append(case.function)
        return real(*arguments)

    if inspect.isfunction(real):
        monkeypatch.setattr(errors, case.function, spy)
    run_pure(parse(case.script(), Path(f"{_name(case)}.rts")))
    assert made or case.function == "ServerFault"


@pytest.mark.parametrize("case", EVENTS, ids=_name)
def test_on_the_server(case: ErrorCase) -> None:
    run_on_server(parse(case.script(), Path(f"{_name(case)}.rts")))


# ------------------------------------------------------------------------------------------------- refusals


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Server]:
    monkeypatch.setattr(Registry, "installed", Fakes)
    # Whoever has guessed twice waits for half a minute, whatever the machine is at.
    monkeypatch.setattr("vivavoce.server.identity.time", SimpleNamespace(monotonic=lambda: 0.0))
    one = config(max_sessions=1)
    other = msgspec.structs.replace(one.deployments[0], name=OTHER)
    rushed = msgspec.structs.replace(one.deployments[0], name=RUSHED, connections_per_minute=1)
    settings = msgspec.structs.replace(one, deployments=(*one.deployments, other, rushed))
    async with serving(with_tokens(tmp_path, with_a_retired_model(settings), failures=2)) as server:
        yield server


def with_a_retired_model(settings: Config) -> Config:
    """And a deployment of it, ``retired``."""
    source = {"title": "T", "url": "https://example.org", "date": "2025-01-01", "evidence": "own"}
    version = {"version": "1", "stage": "Preview", "source": "own", "retirement": "2025-01-01"}
    one = settings.deployments[0]
    return msgspec.structs.replace(
        settings,
        deployments=(
            *settings.deployments,
            msgspec.structs.replace(one, name="retired", model="old-voice", version="1"),
        ),
        models=ModelsSettings(lifecycle="all", catalogue="own.toml"),
        own_models={
            "source": {"own": source},
            "model": [
                {"name": "old-voice", "capabilities": ["realtime"], "version": [version]},
                {"name": one.model, "capabilities": ["realtime"], "version": [LIVING]},
            ],
        },
    )


LIVING = {"version": "2024-12-17", "stage": "Preview", "source": "own", "retirement_not_before": "2025-01-01"}


@cache
def _tokens() -> Mapping[str, str]:
    return {
        "token": dev_token(STRANGER),
        "expired_token": dev_token(expires_s=-301),
        "foreign_token": dev_token(tenant=GROUP),
        "unverifiable_token": token_of_an_unreachable_issuer(),
    }


def _filled(text: str, ga_secret: str = "") -> str:
    own = {"azure": AZURE, "openai": OPENAI, "name": NAME, "key": KEY, "other": OTHER, "ga_secret": ga_secret}
    return text.format(rushed=RUSHED, **own, **_tokens())


async def _rush(client: ClientSession) -> None:
    path = f"/openai/realtime?api-version=2024-10-01-preview&deployment={RUSHED}"
    async with client.ws_connect(path, headers={"api-key": KEY}) as socket:
        await Wire(socket).next()


async def _guess(case: ErrorCase, client: ClientSession) -> None:
    for _ in range(case.guesses):
        async with client.get(AZURE, headers=UPGRADE | {"api-key": "wrong"}) as answer:
            assert answer.status == 401


async def _secret(client: ClientSession, settings: dict[str, Any]) -> str:
    body = {"session": {"type": "realtime", "model": NAME, **settings}}
    async with client.post("/v1/realtime/client_secrets", json=body, headers={"api-key": KEY}) as answer:
        value: str = (await answer.json())["value"]
    return value


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize("case", HTTP, ids=_name)
async def test_instead_of_the_upgrade(case: ErrorCase, server: Server) -> None:
    headers = {name: _filled(value) for name, value in case.headers.items()}
    async with AsyncExitStack() as stack:
        if case.busy:
            await stack.enter_async_context(session(server))
        client = await stack.enter_async_context(ClientSession(f"http://127.0.0.1:{server.port}"))
        await _guess(case, client)
        if case.rushed:
            await _rush(client)
            await no_sessions(server)
        answer = await stack.enter_async_context(
            client.get(_filled(case.path), headers=headers | (UPGRADE if case.upgrade else {}))
        )
        assert answer.status == case.status
        assert await answer.json() == {"error": {"code": case.code, "message": case.message}}


@pytest.mark.parametrize("case", CLOSE, ids=_name)
async def test_after_the_upgrade(case: ErrorCase, server: Server) -> None:
    async with AsyncExitStack() as stack:
        if case.busy:
            await stack.enter_async_context(session(server))
        client = await stack.enter_async_context(ClientSession(f"http://127.0.0.1:{server.port}"))
        await _guess(case, client)
        if case.rushed:
            await _rush(client)
            await no_sessions(server)
        secret = ""
        if "{ga_secret}" in "".join(case.headers.values()):
            secret = await _secret(client, NOISE_REDUCTION if case.state == "changed" else {})
        if case.state == "changed":
            server.endpoint._reduces_noise = False
        headers = {name: _filled(value, secret) for name, value in case.headers.items()}
        socket = await stack.enter_async_context(client.ws_connect(_filled(case.path), headers=headers))
        assert (await Wire(socket).next())["error"] == {
            "type": case.type,
            "code": case.code,
            "message": case.message,
            "param": None,
            "event_id": None,
        }
        close = await socket.receive()
        assert (close.type, close.data) == (WSMsgType.CLOSE, case.status)
        assert close.extra == case.type + (f".{case.code}" if case.code else "")


@pytest.mark.parametrize("case", REST, ids=_name)
async def test_instead_of_a_client_secret(case: ErrorCase, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {name: _filled(value) for name, value in case.headers.items()}
    body = "x" * (MAX_BODY_BYTES + 1) if case.body == "LARGE" else _filled(case.body)
    if case.state == "full":
        monkeypatch.setattr(MemoryState, "join", _full)
    elif case.state == "away":
        monkeypatch.setattr(MemoryState, "join", _away)
    elif case.state == "slow":
        impatient(monkeypatch)
    async with ClientSession(f"http://127.0.0.1:{server.port}") as client:
        data: Any = _unended(body) if case.state == "slow" else body
        async with client.request(case.method, case.path, data=data, headers=headers) as answer:
            assert answer.status == case.status
            assert (await answer.json())["error"] == {
                "type": case.type,
                "code": case.code,
                "message": case.message,
                "param": case.param,
            }


async def _full(*_: object) -> bool:
    return False


async def _away(*_: object) -> bool:
    raise Unavailable


async def _unended(body: str) -> AsyncIterator[bytes]:
    yield body.encode()
    await asyncio.Event().wait()
