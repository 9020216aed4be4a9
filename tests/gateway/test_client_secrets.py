from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vivavoce.gateway import client_secrets as module
from vivavoce.gateway.auth import Credential
from vivavoce.gateway.client_secrets import ClientSecrets, Grant, TooMany, principal_id
from vivavoce.gateway.principals import Principal, Unknown
from vivavoce.gateway.shared.base import Unavailable
from vivavoce.gateway.shared.memory import MemoryState

BODY = b'{"session": {"type": "realtime", "instructions": "a trade secret"}}'


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.9

    def __call__(self) -> float:
        return self.now


class Lost(MemoryState):
    """Nobody answers."""

    async def get(self, name: str) -> bytes | None:
        raise Unavailable

    async def join(self, group: str, member: str, ttl_s: float, limit: int | None = None) -> bool:
        raise Unavailable


def mint(secrets: ClientSecrets, seconds: int = 60, account: str = "a") -> tuple[str, Grant]:
    return asyncio.run(
        secrets.mint(
            account=account, deployment="voice", dialect="ga", kind="realtime", body=BODY, seconds=seconds,
            minted_by="key:1",
        )
    )  # fmt: skip


def who(secrets: ClientSecrets, value: str, account: str | None = None) -> Principal | Unknown | None:
    return asyncio.run(secrets.identify(Credential(value, "bearer header"), account))


def test_it_is_known_again_as_often_as_it_is_shown() -> None:
    secrets = ClientSecrets(MemoryState(), Clock())
    secret, grant = mint(secrets)
    assert grant == Grant(
        account="a", deployment="voice", dialect="ga", kind="realtime", body=BODY, expires_at=1_700_000_060,
        minted_by="key:1",
    )  # fmt: skip
    for _ in range(3):
        assert who(secrets, secret) == Principal(
            kind="ephemeral", id=principal_id(secret), account="a", grant=grant
        )


def test_it_looks_as_the_service_s_do_and_no_two_are_alike() -> None:
    secrets = ClientSecrets(MemoryState(), Clock())
    made = {mint(secrets)[0] for _ in range(50)}
    assert len(made) == 50
    assert all(one.startswith("ek_") and len(one) == 35 for one in made)


def test_it_ends_to_the_second() -> None:
    clock = Clock()
    secrets = ClientSecrets(MemoryState(), clock)
    secret, grant = mint(secrets, 60)
    clock.now = grant.expires_at - 0.001
    assert isinstance(who(secrets, secret), Principal)
    clock.now = grant.expires_at
    ended = who(secrets, secret)
    assert isinstance(ended, Unknown)
    assert ended.fault == "expired"


def test_the_state_forgets_it() -> None:
    ticks = Clock()
    state = MemoryState(ticks)
    secrets = ClientSecrets(state, Clock())
    secret, _ = mint(secrets, 60)
    ticks.now += 60
    assert isinstance(who(secrets, secret), Unknown)


@pytest.mark.parametrize(("account", "opens"), [(None, True), ("a", True), ("b", False)])
def test_it_opens_its_own_account_only(account: str | None, opens: bool) -> None:
    secrets = ClientSecrets(MemoryState(), Clock())
    secret, _ = mint(secrets)
    assert isinstance(who(secrets, secret, account), Principal) is opens


def test_other_credentials_are_of_others() -> None:
    assert who(ClientSecrets(MemoryState()), "a-key") is None
    assert isinstance(who(ClientSecrets(MemoryState()), "ek_\udcff"), Unknown)


def test_only_a_digest_is_kept_and_nothing_is_shown() -> None:
    kept: dict[str, Any] = {}

    class Watched(MemoryState):
        async def put(self, name: str, value: bytes, ttl_s: float) -> None:
            kept[name] = value

        async def join(self, group: str, member: str, ttl_s: float, limit: int | None = None) -> bool:
            kept[member] = group
            return True

    secret, grant = mint(ClientSecrets(Watched(), Clock()))
    assert secret.removeprefix("ek_") not in repr(kept)
    shown = f"{grant!r} {principal_id(secret)}"
    assert secret not in shown
    assert "trade" not in shown


def test_no_more_than_so_many_are_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SECRETS", 2)
    ticks = Clock()
    secrets = ClientSecrets(MemoryState(ticks), Clock())
    mint(secrets, 10)
    mint(secrets, 60)
    with pytest.raises(TooMany):
        mint(secrets)
    ticks.now += 10
    mint(secrets)


def test_without_the_state_nobody_is_known_and_none_is_made() -> None:
    secrets = ClientSecrets(Lost(), Clock())
    lost = who(secrets, "ek_1")
    assert isinstance(lost, Unknown)
    assert lost.fault == "unavailable"
    with pytest.raises(Unavailable):
        mint(secrets)
