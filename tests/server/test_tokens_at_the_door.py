"""Tokens on a real server: who is let in, changes of keys, other servers' issuers, and whoever guesses."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from aiohttp import ClientSession, WSServerHandshakeError
from dev_tokens import (
    AUDIENCE,
    GROUP,
    ROLE,
    STRANGER,
    TENANT,
    URL,
    USER,
    change_keys,
    dev_token,
    with_tokens,
)
from server_fakes import AZURE, BETA, KEY, NAME, OPENAI, Fakes, Wire, config, serving

from vivavoce.config import ConfigError
from vivavoce.config.identity import Identity, IssuerSettings, RoleAssignmentSettings
from vivavoce.engines.registry import Registry
from vivavoce.gateway.development_issuer import KEYS_PATH, PATH, public_keys
from vivavoce.server.app import Server

AZURE_GA = f"/openai/v1/realtime?model={NAME}"


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "installed", Fakes)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(with_tokens(tmp_path)) as server:
        yield server


@asynccontextmanager
async def opened(
    server: Server, token: str, path: str = AZURE, headers: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Wire]:
    sent = {"Authorization": f"Bearer {token}"} | dict(headers or {})
    url = f"http://127.0.0.1:{server.port}{path}"
    async with ClientSession() as client, client.ws_connect(url, headers=sent, **options) as socket:
        yield Wire(socket)


async def status_of(server: Server, token: str, headers: Mapping[str, str] | None = None) -> int:
    """101, or that of the refusal."""
    try:
        async with opened(server, token, headers=headers) as wire:
            assert (await wire.next())["type"] == "session.created"
    except WSServerHandshakeError as refused:
        return refused.status
    return 101


@pytest.mark.parametrize(
    ("path", "headers"), [(AZURE, {}), (AZURE_GA, {}), (OPENAI, BETA), (OPENAI, {})],
    ids=["azure", "azure GA", "openai", "openai GA"],
)  # fmt: skip
async def test_a_token_opens_every_path(server: Server, path: str, headers: Mapping[str, str]) -> None:
    async with opened(server, dev_token(), path, headers) as wire:
        assert (await wire.next())["type"] == "session.created"


TOKENS: dict[str, tuple[Callable[[], str], int]] = {
    "of a group that has the role": (lambda: dev_token(STRANGER, groups=[GROUP]), 101),
    "without a role": (lambda: dev_token(STRANGER), 401),
    "of another group": (lambda: dev_token(STRANGER, groups=[STRANGER]), 401),
    "with a slash after the audience": (lambda: dev_token(audience=f"{AUDIENCE}/"), 101),
    "of the newer audience": (lambda: dev_token(audience="https://ai.azure.com"), 101),
    "for management": (lambda: dev_token(audience="https://management.azure.com"), 401),
    "expired within the skew": (lambda: dev_token(expires_s=-200), 101),
    "expired": (lambda: dev_token(expires_s=-301), 401),
    "of another tenant": (lambda: dev_token(tenant=GROUP), 400),
    "of a service principal": (lambda: dev_token(is_app=True, appid=GROUP), 101),
}


@pytest.mark.parametrize("case", TOKENS)
async def test_who_is_let_in(server: Server, case: str) -> None:
    token, status = TOKENS[case]
    assert await status_of(server, token()) == status


async def test_a_role_of_one_deployment_opens_no_other_and_tells_nothing_of_it(tmp_path: Path) -> None:
    settings = with_tokens(tmp_path)
    account = (
        f"/subscriptions/{settings.resource.subscription}/resourceGroups/{settings.resource.resource_group}"
        f"/providers/Microsoft.CognitiveServices/accounts/{settings.resource.name}"
    )
    given = (RoleAssignmentSettings(role=ROLE, principal_id=STRANGER, scope=f"{account}/deployments/{NAME}"),)
    identity = msgspec.structs.replace(settings.identity, role_assignments=given)
    async with serving(msgspec.structs.replace(settings, identity=identity)) as server:
        assert await status_of(server, dev_token(STRANGER)) == 101
        assert await status_of(server, dev_token(USER)) == 401
        async with ClientSession(f"http://127.0.0.1:{server.port}") as client:
            with pytest.raises(WSServerHandshakeError) as refused:
                await client.ws_connect(
                    AZURE.replace(NAME, "no-such"), headers={"Authorization": f"Bearer {dev_token(STRANGER)}"}
                )
        assert refused.value.status == 401


async def test_the_issuer_changes_its_key_while_somebody_is_connected(server: Server, tmp_path: Path) -> None:
    async with opened(server, dev_token()) as wire:
        await wire.until("conversation.created")
        assert await status_of(server, dev_token(n=1)) == 401
        change_keys(tmp_path, 1)
        assert await status_of(server, dev_token(n=1)) == 101
        assert await status_of(server, dev_token()) == 101
        await wire.silence()


async def test_a_session_outlives_its_token(server: Server) -> None:
    """As the service's do: a token is looked at when a connection begins."""
    async with opened(server, dev_token(expires_s=-200)) as wire:
        await wire.until("conversation.created")
        await wire.silence()
        assert await status_of(server, dev_token(expires_s=-301)) == 401


async def test_what_the_issuer_publishes_verifies_its_tokens(server: Server) -> None:
    async with ClientSession(f"http://127.0.0.1:{server.port}") as client:
        async with client.get(f"{PATH}/{TENANT}/v2.0/.well-known/openid-configuration") as answer:
            found = await answer.json()
            assert answer.headers["Cache-Control"] == "public, max-age=60"
        assert found["jwks_uri"] == f"{URL}{KEYS_PATH}"
        async with client.get(KEYS_PATH) as answer:
            keys = jwt.PyJWKSet.from_dict(await answer.json())
    token = dev_token()
    claims = jwt.decode(
        token,
        keys[jwt.get_unverified_header(token)["kid"]],
        ["RS256"],
        audience=AUDIENCE,
        issuer=found["issuer"],
        options={"require": ["exp", "iat", "nbf"]},
    )
    assert (claims["oid"], claims["tid"], claims["idtyp"]) == (USER, TENANT, "user")


def _numbers(keys: Iterable[Mapping[str, object]]) -> set[str]:
    return {name for key in keys for name in key}


async def test_no_private_number_is_published(server: Server, tmp_path: Path) -> None:
    async with ClientSession(f"http://127.0.0.1:{server.port}") as client, client.get(KEYS_PATH) as answer:
        published = (await answer.json())["keys"]
    assert _numbers(published) == {"kty", "n", "e", "kid", "use", "alg"}
    assert published == public_keys((tmp_path / "development-issuer.json").read_bytes())


async def test_another_server_takes_its_tokens_as_those_of_any_issuer(tmp_path: Path) -> None:
    async with serving(with_tokens(tmp_path)) as issuing:
        other = IssuerSettings(
            name="dev",
            issuer=f"{URL}{PATH}/{TENANT}/v2.0",
            audience=(AUDIENCE,),
            jwks_uri=f"http://127.0.0.1:{issuing.port}{KEYS_PATH}",
        )
        given = RoleAssignmentSettings(role=ROLE, principal_id=f"dev:{USER}")
        taking = msgspec.structs.replace(config(), identity=Identity(issuers=(other,), role_assignments=(given,)))
        async with serving(taking) as server:
            assert await status_of(server, dev_token()) == 101
            assert await status_of(server, dev_token(STRANGER)) == 401


async def test_without_the_tables_a_token_is_a_bad_key() -> None:
    async with serving(config()) as server:
        assert await status_of(server, dev_token()) == 401


async def test_keys_that_cannot_be_read_are_told_at_the_start(tmp_path: Path) -> None:
    settings = with_tokens(tmp_path)
    (tmp_path / "development-issuer.json").write_text('{"keys": []}')
    with pytest.raises(ConfigError, match="these are no keys of a development issuer"):
        async with serving(settings):
            pass


# ------------------------------------------------------------------------------------------------ whoever guesses


async def _status(server: Server, key: str, forwarded: str | None = None) -> tuple[int, str | None]:
    headers = {"api-key": key} | ({} if forwarded is None else {"X-Forwarded-For": forwarded})
    async with ClientSession(f"http://127.0.0.1:{server.port}") as client:
        try:
            async with client.ws_connect(AZURE, headers=headers):
                return 101, None
        except WSServerHandshakeError as refused:
            return refused.status, None if refused.headers is None else refused.headers.get("retry-after")


async def test_whoever_guesses_keys_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(with_tokens(tmp_path, failures=3, failure_window_s=86400)) as server:
        assert [(await _status(server, f"guess {n}"))[0] for n in range(3)] == [401] * 3
        status, retry_after = await _status(server, KEY)
        assert status == 429
        assert retry_after is not None
        assert 28_000 < int(retry_after) <= 28_800
    assert "too many wrong keys from 127.0.0.1; a proxy belongs" in caplog.text


async def test_behind_a_trusted_proxy_its_clients_wait_each_for_itself(tmp_path: Path) -> None:
    trusting = with_tokens(tmp_path, failures=1, failure_window_s=86400, trusted_proxies=("127.0.0.1",))
    async with serving(trusting) as server:
        assert (await _status(server, "bad", "203.0.113.7"))[0] == 401
        assert (await _status(server, KEY, "6.6.6.6, 203.0.113.7"))[0] == 429
        assert (await _status(server, KEY, "203.0.113.8"))[0] == 101


async def test_nobody_elses_word_for_an_address_counts(tmp_path: Path) -> None:
    async with serving(with_tokens(tmp_path, failures=1, failure_window_s=86400)) as server:
        assert (await _status(server, "bad", "203.0.113.7"))[0] == 401
        assert (await _status(server, KEY, "203.0.113.8"))[0] == 429


async def test_all_may_guess_where_it_is_switched_off(tmp_path: Path) -> None:
    async with serving(with_tokens(tmp_path, failures=0)) as server:
        assert {(await _status(server, "bad"))[0] for _ in range(5)} == {401}
        assert (await _status(server, KEY))[0] == 101


# ----------------------------------------------------------------------------------------------------- secrets


async def test_no_token_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokens = [
        dev_token(),
        dev_token(STRANGER),
        dev_token(expires_s=-301),
        dev_token(n=1),
        "eyJhbGciOiJub25lIn0.x.y",
    ]
    with caplog.at_level(logging.DEBUG):
        async with serving(with_tokens(tmp_path)) as server:
            for token in tokens:
                await status_of(server, token)
            async with opened(server, tokens[1], f"{OPENAI}&authorization=Bearer%20{tokens[1]}") as wire:
                assert tokens[1] not in str(await wire.next())
    assert "a token is refused: it has expired" in caplog.text
    assert "a token is refused: its key is not one of its issuer's" in caplog.text
    assert f"development:{TENANT}/{USER}" in caplog.text
    for part in (part for token in tokens[:4] for part in token.split(".")):
        assert part not in caplog.text
