from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from vivavoce.gateway.auth import Credential, key_principal
from vivavoce.gateway.keys import key_digest
from vivavoce.gateway.principals import Identities, Keys, Principal, Unknown
from vivavoce.gateway.resource import Account, AccountKey, Directory
from vivavoce.gateway.throttle import Throttle
from vivavoce.testing.directories import one_account

ACCOUNT = "/subscriptions/1/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a"
ALICE = Principal(kind="entra", id="entra:t/alice", oid="alice")
BOB = Principal(kind="oidc", id="oidc:idp:bob", oid="idp:bob")


@dataclass
class Known:
    """Answers by the value of a credential, and remembers what it was asked."""

    answers: dict[str, Principal | Unknown]
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    async def identify(self, credential: Credential, account: str | None) -> Principal | Unknown | None:
        self.asked.append((credential.value, account))
        return self.answers.get(credential.value)


def offered(*values: str) -> tuple[Credential, ...]:
    return tuple(Credential(value, "bearer header") for value in values)


def who(sources: Sequence[Known], *values: str, account: str | None = None) -> Principal | Unknown:
    return asyncio.run(Identities(sources).of(offered(*values), account))


EXPIRED = Unknown("token", Credential("old", "bearer header"), "expired")

CASES = {
    "nothing offered": ([], Unknown("missing")),
    "nobody knows it": (["x", "y"], Unknown("unknown", Credential("x", "bearer header"))),
    "the first source": (["a"], ALICE),
    "the second source": (["b"], BOB),
    "the first credential counts": (["b", "a"], BOB),
    "a placeholder beside the true one": (["x", "a"], ALICE),
    "a bad token beside a good one": (["old", "b"], BOB),
    "a bad token is told rather than a bad key": (["x", "old", "y"], EXPIRED),
}


@pytest.mark.parametrize("case", CASES)
def test_the_chain(case: str) -> None:
    values, expected = CASES[case]
    assert who([Known({"a": ALICE}), Known({"b": BOB, "old": EXPIRED, "a": BOB})], *values) == expected


def test_every_source_hears_which_account_is_meant() -> None:
    sources = [Known({}), Known({})]
    who(sources, "x", account=ACCOUNT)
    assert [source.asked for source in sources] == [[("x", ACCOUNT)]] * 2


# ----------------------------------------------------------------------------------------------------------- keys


def of_keys(directory: Callable[[], Directory], *values: str, account: str | None = None) -> Principal | Unknown:
    return asyncio.run(Identities([Keys(directory)]).of(offered(*values), account))


def accounts(**keys: Sequence[str]) -> Callable[[], Directory]:
    made = [
        Account(subscription="1", resource_group="g", name=name, location="eastus2", tenant="t") for name in keys
    ]
    directory = Directory(
        made,
        keys=[
            AccountKey(account=account.id, slot=f"key{at}", digest=key_digest(value))
            for account in made
            for at, value in enumerate(keys[account.name], 1)
        ],
    )
    return lambda: directory


TWO = accounts(a=("a one", "a two"), b=("b one", "b two"))
OTHER = ACCOUNT.replace("accounts/a", "accounts/b")


@pytest.mark.parametrize("key", ["a one", "a two"])
def test_both_keys_of_an_account_open_it_and_no_other(key: str) -> None:
    for account in (None, ACCOUNT, ACCOUNT.upper()):
        found = of_keys(TWO, key, account=account)
        assert isinstance(found, Principal)
        assert (found.kind, found.account, found.is_token, found.id) == ("key", ACCOUNT, False, key_principal(key))
    assert of_keys(TWO, key, account=OTHER) == Unknown("unknown", offered(key)[0])


def test_the_first_known_key_identifies() -> None:
    found = of_keys(TWO, "wrong", "b two", "a one")
    assert isinstance(found, Principal)
    assert found.account == OTHER


@pytest.mark.parametrize("key", ["", "one ", "On", "on", "onee", "\udcff", "é", "\x00"])
def test_only_the_exact_key_opens(key: str) -> None:
    assert isinstance(of_keys(one_account("one"), key), Unknown)


def test_an_account_without_keys_lets_nobody_in() -> None:
    assert isinstance(of_keys(one_account(), "", "x"), Unknown)


def test_every_key_is_compared_whatever_the_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(known: bytes, digest: bytes) -> bool:
        compared.append(known)
        return known == digest

    monkeypatch.setattr("vivavoce.gateway.resource.hmac.compare_digest", compare)
    for key in ("a one", "b two", "x"):
        compared.clear()
        of_keys(TWO, key)
        assert len(compared) == 4


def test_a_key_that_is_replaced_ends_at_once() -> None:
    now = one_account("old", "other")
    identities = Identities([Keys(lambda: now())])
    assert isinstance(asyncio.run(identities.of(offered("old"))), Principal)
    now = one_account("new", "other")
    assert isinstance(asyncio.run(identities.of(offered("old"))), Unknown)
    for key in ("new", "other"):
        assert isinstance(asyncio.run(identities.of(offered(key))), Principal)


def test_neither_of_them_shows_a_secret() -> None:
    for value in ("s3cret", "s3cret-too"):
        assert "s3cret" not in repr(of_keys(one_account("s3cret"), value))


# ------------------------------------------------------------------------------------------------- the throttle


class Guarded:
    def __init__(self) -> None:
        self.now = 0.0
        throttle = Throttle(lambda: self.now, failures=3, account_failures=9, window_s=30)
        forged = Unknown("token", offered("forged")[0], "its signature does not hold")
        source = Known({"good": ALICE, "old": Unknown("claims", offered("old")[0], "expired"), "forged": forged})
        self.identities = Identities([source], throttle)
        self.asked = source.asked
        self.answers = source.answers

    def who(self, *values: str, address: str = "192.0.2.1") -> Principal | Unknown:
        return asyncio.run(self.identities.of(offered(*values), ACCOUNT, address))


@pytest.mark.parametrize("guess", ["bad", "forged"])
def test_whoever_guesses_waits_whatever_comes_next(guess: str) -> None:
    door = Guarded()
    for _ in range(3):
        assert isinstance(door.who(guess), Unknown)
    door.asked.clear()
    assert door.who("good") == Unknown("throttled", offered("good")[0], retry_after_s=10.0)
    assert door.asked == []
    assert door.who("good", address="192.0.2.2") == ALICE
    door.now += 10
    assert door.who("good") == ALICE


@pytest.mark.parametrize("values", [["good"], ["bad", "good"], ["old"], []])
def test_what_is_no_guess(values: list[str]) -> None:
    door = Guarded()
    for _ in range(10):
        door.who(*values)
    assert door.who("good") == ALICE


@pytest.mark.parametrize("excuse", ["old", "ended"])
def test_a_guess_is_one_whatever_stands_before_it(excuse: str) -> None:
    door = Guarded()
    door.answers["ended"] = Unknown("expired", offered("ended")[0], "a client secret that has expired")
    for _ in range(3):
        assert door.who(excuse, "bad") == door.answers[excuse]
    assert isinstance(door.who("good"), Unknown)
