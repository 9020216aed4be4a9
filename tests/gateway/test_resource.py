from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.gateway.resource import (
    Account,
    AccountKey,
    DeploymentRecord,
    Directory,
    Model,
    RoleAssignment,
    Sku,
    account_id,
    deployment_id,
    host_label,
    id_key,
    meant_account,
    same_id,
    split_account_id,
    split_deployment_id,
)


def account(name: str, *, group: str = "g", subdomain: str = "") -> Account:
    return Account(
        subscription="s", resource_group=group, name=name, location="eastus2", tenant="t", subdomain=subdomain
    )


def key(of: Account, slot: str, text: str) -> AccountKey:
    return AccountKey(account=of.id, slot=slot, digest=digest(text))


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def deployment(of: Account, name: str, capacity: int = 1) -> DeploymentRecord:
    return DeploymentRecord(
        account=of.id, name=name, sku=Sku("GlobalStandard", capacity), model=Model("gpt", "1"), recipe="r"
    )


VOICE, BANK = account("Voice"), account("bank")
DIRECTORY = Directory(
    (VOICE, BANK),
    keys=(key(VOICE, "key1", "v1"), key(VOICE, "key2", "v2"), key(BANK, "key1", "b1")),
    deployments=(deployment(VOICE, "gpt"), deployment(BANK, "gpt"), deployment(BANK, "teller")),
    assignments=(
        RoleAssignment(
            id="/subscriptions/s/x/1", scope="/subscriptions/s", role="R", principal_id="p", principal_type="User"
        ),
    ),
    revision=7,
)


def test_ids_are_those_of_resource_manager() -> None:
    assert VOICE.id == "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/Voice"
    assert deployment(VOICE, "gpt").id == f"{VOICE.id}/deployments/gpt" == deployment_id(VOICE.id, "gpt")


@given(st.lists(st.text("abcXYZ019._-", min_size=1), min_size=3, max_size=3))
def test_an_account_id_splits_into_what_it_was_made_of(parts: list[str]) -> None:
    subscription, group, name = parts
    assert split_account_id(account_id(subscription, group, name)) == (subscription, group, name)
    assert split_account_id(account_id(subscription, group, name).upper() + "/") == (
        subscription.upper(),
        group.upper(),
        name.upper(),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Voice",
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Other/accounts/a",
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a/deployments/d",
        "/subscriptions//resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a",
        "x/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/a",
    ],
)
def test_what_is_no_account_id_does_not_split(text: str) -> None:
    assert split_account_id(text) is None


def test_a_deployment_id_splits_into_account_and_name() -> None:
    assert split_deployment_id(deployment(VOICE, "gpt").id) == (VOICE.id, "gpt")
    assert split_deployment_id(f"{VOICE.id.upper()}/DEPLOYMENTS/gpt/") == (VOICE.id.upper(), "gpt")
    assert split_deployment_id(VOICE.id) is None
    assert split_deployment_id("/somewhere/deployments/gpt") is None


def test_ids_compare_without_regard_to_case() -> None:
    assert same_id(VOICE.id, VOICE.id.upper() + "/")
    assert not same_id(VOICE.id, BANK.id)
    assert id_key("/A/") == "/a"


def test_the_full_name_of_a_model_has_its_version_where_there_is_one() -> None:
    assert Model("gpt", "2024-12-17").full_name == "gpt-2024-12-17"
    assert Model("gpt", "").full_name == "gpt"


# ----------------------------------------------------------------------------------------------------- directory


def test_accounts_are_found_by_id_in_any_case() -> None:
    assert DIRECTORY.accounts == (VOICE, BANK)
    assert DIRECTORY.account(VOICE.id.lower()) is VOICE
    assert DIRECTORY.account("/subscriptions/other") is None
    assert DIRECTORY.revision == 7


def test_deployments_belong_to_their_account() -> None:
    assert [one.name for one in DIRECTORY.deployments(BANK.id)] == ["gpt", "teller"]
    assert [one.name for one in DIRECTORY.deployments(VOICE.id)] == ["gpt"]
    assert DIRECTORY.deployments("/nowhere") == ()
    teller = DIRECTORY.deployment(BANK.id.upper(), "TELLER")
    assert teller is not None
    assert teller.name == "teller"
    assert DIRECTORY.deployment(VOICE.id, "teller") is None
    assert DIRECTORY.deployment("/nowhere", "teller") is None


def test_a_key_is_known_by_its_digest_alone() -> None:
    found = DIRECTORY.by_key_digest(digest("v2"))
    assert found is not None
    assert (found.account, found.slot) == (VOICE.id, "key2")
    assert DIRECTORY.by_key_digest(digest("nothing")) is None
    assert DIRECTORY.by_key_digest(b"") is None
    assert [one.slot for one in DIRECTORY.keys(VOICE.id)] == ["key1", "key2"]
    assert DIRECTORY.keys("/nowhere") == ()


def test_no_repr_shows_a_digest() -> None:
    assert re.search("digest", repr(DIRECTORY.keys(VOICE.id))) is None


def test_assignments_are_found_by_id() -> None:
    (one,) = DIRECTORY.assignments
    assert DIRECTORY.assignment("/SUBSCRIPTIONS/s/x/1") is one
    assert DIRECTORY.assignment("/subscriptions/s/x/2") is None


def test_of_two_with_one_id_the_first_counts() -> None:
    declared = account("voice")
    directory = Directory(
        (declared, account("VOICE")),
        keys=(key(declared, "key1", "first"), key(declared, "key1", "second")),
        deployments=(deployment(declared, "gpt", 1), deployment(declared, "GPT", 2)),
    )
    assert directory.accounts == (declared,)
    assert [one.sku.capacity for one in directory.deployments(declared.id)] == [1]
    assert directory.by_key_digest(digest("second")) is None


def test_the_same_key_of_two_accounts_is_the_first_ones() -> None:
    directory = Directory((VOICE, BANK), keys=(key(BANK, "key1", "same"), key(VOICE, "key1", "same")))
    found = directory.by_key_digest(digest("same"))
    assert found is not None
    assert found.account == VOICE.id


def test_what_belongs_to_no_account_is_left_out() -> None:
    directory = Directory((VOICE,), keys=(key(BANK, "key1", "b1"),), deployments=(deployment(BANK, "gpt"),))
    assert directory.by_key_digest(digest("b1")) is None
    assert directory.deployments(BANK.id) == ()


def test_a_directory_has_an_account() -> None:
    with pytest.raises(ValueError, match="has an account"):
        Directory(())


# ----------------------------------------------------------------------------------------- which account is meant


@pytest.mark.parametrize(
    ("host", "label"),
    [
        ("voice.openai.azure.com", "voice"),
        ("Voice.OpenAI.Azure.com:443", "voice"),
        ("voice", "voice"),
        ("voice:8089", "voice"),
        (" voice.internal ", "voice"),
        ("localhost:8089", "localhost"),
        ("127.0.0.1", ""),
        ("127.0.0.1:8089", ""),
        ("10.voice.example", "10"),
        ("[::1]:8089", ""),
        ("[::1]", ""),
        ("", ""),
        (":8089", ""),
        (".example", ""),
    ],
)
def test_the_label_of_a_host(host: str, label: str) -> None:
    assert host_label(host) == label


@pytest.mark.parametrize(
    ("host", "opened", "meant"),
    [
        ("bank.openai.azure.com", None, "bank"),
        ("BANK.example:8089", None, "bank"),
        ("bank", VOICE.id, "bank"),  # the host wins, and the key will not open it
        ("127.0.0.1:8089", None, "Voice"),
        ("127.0.0.1:8089", BANK.id, "bank"),
        ("localhost", BANK.id.upper(), "bank"),
        ("localhost", account("gone").id, "Voice"),
        ("other.openai.azure.com", BANK.id, "bank"),
        ("www.bank.example", None, "Voice"),
        ("", None, "Voice"),
    ],
)
def test_the_account_that_a_request_means(host: str, opened: str | None, meant: str) -> None:
    assert meant_account(DIRECTORY, host, opened).name == meant


def test_a_subdomain_may_differ_from_the_name() -> None:
    desk = account("desk", subdomain="Front-Desk")
    directory = Directory((VOICE, desk))
    assert meant_account(directory, "front-desk.example").name == "desk"
    assert meant_account(directory, "desk.example").name == "Voice"


def test_of_two_accounts_with_one_subdomain_the_first_is_meant() -> None:
    directory = Directory((account("voice", group="one"), account("voice", group="two")))
    assert meant_account(directory, "voice.example").resource_group == "one"
