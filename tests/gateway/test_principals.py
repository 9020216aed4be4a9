from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from vivavoce.config import Secret
from vivavoce.gateway.auth import Credential, KeyRing
from vivavoce.gateway.principals import Identities, Keys, Principal, Unknown

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


@pytest.mark.parametrize(
    ("account", "opens"), [(None, True), (ACCOUNT, True), (ACCOUNT.replace("accounts/a", "accounts/b"), False)]
)
def test_a_key_opens_its_own_account_only(account: str | None, opens: bool) -> None:
    keys = Keys(KeyRing([Secret("good")]), ACCOUNT)
    found = asyncio.run(Identities([keys]).of(offered("good"), account))
    if opens:
        assert isinstance(found, Principal)
        assert (found.kind, found.account, found.is_token) == ("key", ACCOUNT, False)
        assert found.id.startswith("key:")
    else:
        assert found == Unknown("unknown", offered("good")[0])


def test_neither_of_them_shows_a_secret() -> None:
    keys = Keys(KeyRing([Secret("s3cret")]))
    for value in ("s3cret", "s3cret-too"):
        assert "s3cret" not in repr(asyncio.run(Identities([keys]).of(offered(value))))
