from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.gateway.auth import (
    Credential,
    credentials,
    key_principal,
    new_key,
    redact_headers,
    redact_query,
    redact_url,
)

Pairs = list[tuple[str, str]]


@pytest.mark.parametrize(
    ("query", "headers", "subprotocols", "found"),
    [
        ([], [], [], []),
        ([], [("api-key", "K")], [], [("api-key header", "K")]),
        ([], [("API-Key", " K ")], [], [("api-key header", "K")]),
        ([("api-key", "K")], [], [], [("api-key query", "K")]),
        ([], [("Authorization", "Bearer K")], [], [("bearer header", "K")]),
        ([], [("authorization", "bearer  K")], [], [("bearer header", "K")]),
        ([("Authorization", "Bearer K")], [], [], [("bearer query", "K")]),
        ([("authorization", "Bearer K")], [], [], [("bearer query", "K")]),
        ([], [], ["realtime", "openai-insecure-api-key.K"], [("subprotocol", "K")]),
        ([], [], ["openai-insecure-api-key."], []),
        ([], [("Authorization", "Basic K")], [], []),
        ([], [("Authorization", "K")], [], []),
        ([], [("Authorization", "Bearer")], [], []),
        ([("Authorization", "K")], [], [], []),
        ([("api-key", "")], [("api-key", "")], [], []),
        ([("key", "K"), ("apikey", "K")], [("x-api-key", "K")], ["K"], []),
        ([("api-key", "K1"), ("api-key", "K2")], [], [], [("api-key query", "K1")]),
        (
            [("Authorization", "Bearer 4"), ("api-key", "2")],
            [("Authorization", "Bearer 3"), ("api-key", "1")],
            ["openai-insecure-api-key.5", "openai-insecure-api-key.6"],
            [("api-key header", "1"), ("api-key query", "2"), ("bearer header", "3"), ("bearer query", "4"),
             ("subprotocol", "5")],
        ),
    ],
)  # fmt: skip
def test_where_keys_are_found(query: Pairs, headers: Pairs, subprotocols: list[str], found: Pairs) -> None:
    assert [(one.source, one.value) for one in credentials(query, headers, subprotocols)] == found


def test_subprotocol_keys_can_be_switched_off() -> None:
    assert credentials([], [], ["openai-insecure-api-key.K"], subprotocol_keys=False) == ()


def offered(*keys: str) -> list[Credential]:
    return [Credential(key, "api-key header") for key in keys]


def test_a_principal_is_made_of_the_key_and_does_not_show_it() -> None:
    principals = {key_principal(key) for key in ("one", "two", "s3cret-key", "\udcff")}
    assert len(principals) == 4
    assert all(re.fullmatch("key:[0-9a-f]{12}", one) for one in principals)
    assert key_principal("one") == key_principal("one")


def test_no_repr_holds_a_key() -> None:
    assert "s3cret" not in repr(offered("s3cret-key"))


def test_new_keys_are_fit_for_every_place() -> None:
    keys = {new_key().reveal() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) == 43 and key.replace("-", "").replace("_", "").isalnum() for key in keys)


# --------------------------------------------------------------------------------------------------- redaction


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("/openai/realtime", "/openai/realtime"),
        ("/x?api-version=1&deployment=d&api-key=S", "/x?api-version=1&deployment=d&api-key=***"),
        ("/x?API-KEY=S", "/x?API-KEY=***"),
        ("/x?api%2Dkey=S&a=1", "/x?api%2Dkey=***&a=1"),
        ("/x?Authorization=Bearer+S", "/x?Authorization=***"),
        ("/x?authorization=Bearer%20S&model=m", "/x?authorization=***&model=m"),
        ("/x?api-key=S&api-key=S", "/x?api-key=***&api-key=***"),
        ("/x?api-key=S=S=S", "/x?api-key=***"),
        ("/x?api-key", "/x?api-key"),
        ("/x?a=b&&c", "/x?a=b&&c"),
        ("/x?token=S#top", "/x?token=***#top"),
        ("/x?subscription-key=S", "/x?subscription-key=***"),
        ("ws://user:S@host:1/x?key=S", "ws://***@host:1/x?key=***"),
        ("ws://host/a@b?x=1", "ws://host/a@b?x=1"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@given(
    st.lists(st.sampled_from(["api-key=S3CRET", "a=b", "Authorization=Bearer S3CRET", "%61pi-key=S3CRET", "", "x"]))
)
def test_no_order_of_parameters_shows_a_secret(parts: list[str]) -> None:
    shown = redact_query("&".join(parts))
    assert "S3CRET" not in shown
    assert shown.count("&") == max(0, len(parts) - 1)


def test_headers_are_shown_without_secrets() -> None:
    headers = [
        ("Host", "h"),
        ("API-Key", "S"),
        ("authorization", "Bearer S"),
        ("Cookie", "S"),
        ("x-ms-authorization-auxiliary", "Bearer S"),
        ("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.S, openai-beta.realtime-v1"),
    ]
    assert redact_headers(headers) == [
        ("Host", "h"),
        ("API-Key", "***"),
        ("authorization", "***"),
        ("Cookie", "***"),
        ("x-ms-authorization-auxiliary", "***"),
        ("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.***, openai-beta.realtime-v1"),
    ]
