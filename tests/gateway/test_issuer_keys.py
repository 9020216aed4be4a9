from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

import pytest
from token_maker import Signer

from vivavoce.gateway.issuer_keys import FRESH_S, IssuerUnavailable, KeySet, Loaded

OLD = Signer("one")
NEW = Signer("two")


class Endpoint:
    """Where keys are published. The clock is in seconds and goes on by hand."""

    def __init__(self, *signers: Signer) -> None:
        self.publish(*signers)
        self.max_age_s: float | None = None
        self.down = False
        self.held: asyncio.Event | None = None
        self.loads = 0
        self.now = 1000.0
        self.keys = KeySet("test", self._load, lambda: self.now, cooldown_s=30, stale_s=600)

    def publish(self, *signers: Signer) -> None:
        self.published: Sequence[Mapping[str, object]] = [one.public for one in signers]

    async def _load(self) -> Loaded:
        self.loads += 1
        if self.held is not None:
            await self.held.wait()
        if self.down:
            raise IssuerUnavailable("no route")
        return Loaded(self.published, self.max_age_s)

    async def has(self, signer: Signer) -> bool:
        return await self.keys.key(signer.kid, "RS256") is not None


async def test_keys_are_loaded_once_and_kept() -> None:
    endpoint = Endpoint(OLD)
    assert [await endpoint.has(OLD) for _ in range(3)] == [True] * 3
    endpoint.now += FRESH_S - 1
    assert await endpoint.has(OLD)
    assert endpoint.loads == 1


@pytest.mark.parametrize(
    ("max_age_s", "fresh_s"), [(None, FRESH_S), (600.0, 600.0), (0.0, 60.0), (1e9, 24 * 3600.0)]
)
async def test_they_are_fresh_for_as_long_as_the_issuer_says_within_bounds(
    max_age_s: float | None, fresh_s: float
) -> None:
    endpoint = Endpoint(OLD)
    endpoint.max_age_s = max_age_s
    await endpoint.has(OLD)
    endpoint.now += fresh_s - 1
    await endpoint.has(OLD)
    assert endpoint.loads == 1
    endpoint.now += 1
    await endpoint.has(OLD)
    assert endpoint.loads == 2


async def test_a_new_key_is_found_when_it_first_signs() -> None:
    endpoint = Endpoint(OLD)
    await endpoint.has(OLD)
    endpoint.publish(NEW, OLD)
    endpoint.now += 30
    assert await endpoint.has(NEW)
    assert await endpoint.has(OLD)
    assert endpoint.loads == 2


async def test_a_key_that_was_withdrawn_ends_when_the_set_is_no_longer_fresh() -> None:
    endpoint = Endpoint(OLD)
    await endpoint.has(OLD)
    endpoint.publish(NEW)
    endpoint.now += FRESH_S
    assert not await endpoint.has(OLD)


async def test_made_up_key_ids_load_no_more_than_once_in_a_while() -> None:
    endpoint = Endpoint(OLD)
    await endpoint.has(OLD)
    endpoint.now += 30
    for second in range(60):
        assert await endpoint.keys.key(f"made up {second}", "RS256") is None
        endpoint.now += 1
    assert endpoint.loads == 3


async def test_while_the_issuer_is_down_the_old_keys_serve_up_to_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint(OLD)
    await endpoint.has(OLD)
    endpoint.down = True
    endpoint.now += FRESH_S
    with caplog.at_level(logging.WARNING):
        assert await endpoint.has(OLD)
    assert "the keys of test cannot be loaded: no route" in caplog.text
    endpoint.now += 599
    assert await endpoint.has(OLD)
    endpoint.now += 1
    with pytest.raises(IssuerUnavailable):
        await endpoint.has(OLD)
    endpoint.down = False
    endpoint.now += 30
    assert await endpoint.has(OLD)


async def test_an_issuer_that_never_answered_is_asked_again_after_a_while() -> None:
    endpoint = Endpoint(OLD)
    endpoint.down = True
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await endpoint.has(OLD)
    assert endpoint.loads == 1
    endpoint.down = False
    endpoint.now += 30
    assert await endpoint.has(OLD)


async def test_all_who_wait_share_one_load_that_nobody_ends() -> None:
    endpoint = Endpoint(OLD)
    endpoint.held = asyncio.Event()
    waiting = [asyncio.create_task(endpoint.has(OLD)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    endpoint.held.set()
    assert await asyncio.gather(*waiting[1:]) == [True, True]
    assert endpoint.loads == 1


async def test_who_asks_for_a_key_that_is_there_does_not_wait_for_a_load() -> None:
    endpoint = Endpoint(OLD)
    await endpoint.has(OLD)
    endpoint.now += 30
    endpoint.held = asyncio.Event()
    stranger = asyncio.create_task(endpoint.keys.key("made up", "RS256"))
    await asyncio.sleep(0)
    assert await endpoint.has(OLD)
    assert not stranger.done()
    await endpoint.keys.close()
    await asyncio.gather(stranger, return_exceptions=True)


ODD: dict[str, Mapping[str, object]] = {
    "no id": {**OLD.public, "kid": None},
    "for encryption": {**OLD.public, "use": "enc"},
    "for another algorithm": {**OLD.public, "alg": "RS512"},
    "a shared secret": {"kty": "oct", "kid": "one", "k": "c2VjcmV0"},
    "another type": {**OLD.public, "kty": "EC"},
    "broken": {**OLD.public, "n": "!"},
    "without a modulus": {"kty": "RSA", "kid": "one", "e": "AQAB"},
}


@pytest.mark.parametrize("case", ODD)
async def test_what_a_set_holds_besides_is_passed_over(case: str) -> None:
    endpoint = Endpoint(NEW)
    endpoint.published = [ODD[case], NEW.public]
    assert not await endpoint.has(OLD)
    assert await endpoint.has(NEW)


async def test_a_private_key_that_was_published_is_used_as_a_public_one() -> None:
    endpoint = Endpoint(OLD)
    endpoint.published = [{**OLD.public, "d": "AQAB", "alg": "RS256"}]
    assert await endpoint.has(OLD)
