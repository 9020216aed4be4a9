"""Keys of issuers over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from vivavoce.gateway.issuer_keys import IssuerUnavailable
from vivavoce.server.issuer_fetch import MAX_BYTES, IssuerFetch

KEYS = {"keys": [{"kty": "RSA", "kid": "1"}]}


class Issuer:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.answers: dict[str, web.Response] = {}
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        return self.answers[request.path]

    def json(self, path: str, body: Any, **headers: str) -> None:
        self.answers[path] = web.json_response(body, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    application = web.Application()
    application.router.add_get("/{path:.*}", issuer.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield issuer
    await runner.cleanup()


@pytest.fixture
async def fetch() -> AsyncIterator[IssuerFetch]:
    fetch = IssuerFetch()
    yield fetch
    await fetch.close()


@pytest.mark.parametrize(
    ("cache_control", "max_age_s"),
    [
        ("max-age=86400, public", 86400.0),
        ("private, Max-Age=60", 60.0),
        ("public,max-age=5", 5.0),
        ("no-store", None),
        ("s-maxage=99", None),
        ("max-age=soon", None),
        ("", None),
    ],
)
async def test_a_key_set_and_how_long_it_may_be_kept(
    issuer: Issuer, fetch: IssuerFetch, cache_control: str, max_age_s: float | None
) -> None:
    issuer.json("/keys", KEYS, Cache_Control=cache_control)
    loaded = await fetch.keys_at(f"{issuer.url}/keys")()
    assert (loaded.keys, loaded.max_age_s) == (KEYS["keys"], max_age_s)


@pytest.mark.parametrize("end", ["", "/"])
async def test_discovery(issuer: Issuer, fetch: IssuerFetch, end: str) -> None:
    name = f"{issuer.url}/realm{end}"
    found = {"issuer": name, "jwks_uri": f"{issuer.url}/keys", "x": 1}
    issuer.json("/realm/.well-known/openid-configuration", found)
    issuer.json("/keys", KEYS)
    assert (await fetch.keys_of(name)()).keys == KEYS["keys"]


BAD = {
    "an error": (web.Response(status=500), "answers 500"),
    "nothing there": (web.Response(status=404), "answers 404"),
    "a redirect": (web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}), "answers 302"),
    "no JSON": (web.Response(text="<html>"), "answers with no KeyDocument"),
    "no keys": (web.json_response({"key": []}), "answers with no KeyDocument"),
    "keys that are none": (web.json_response({"keys": [1]}), "answers with no KeyDocument"),
    "too much": (web.Response(body=b" " * (MAX_BYTES + 1)), "answers with more than"),
    "no UTF-8": (web.Response(body=b'{"keys": ["\xff"]}'), "answers with no KeyDocument"),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_is_no_key_set(issuer: Issuer, fetch: IssuerFetch, case: str) -> None:
    answer, problem = BAD[case]
    issuer.answers["/keys"] = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
    with pytest.raises(IssuerUnavailable, match=problem):
        await fetch.keys_at(f"{issuer.url}/keys")()


async def test_nobody_there(fetch: IssuerFetch) -> None:
    with pytest.raises(IssuerUnavailable, match="cannot be reached: ClientConnectorError"):
        await fetch.keys_at("http://127.0.0.1:9/keys")()


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"issuer": "https://other.example", "jwks_uri": "https://other.example/keys"}, "is of another issuer"),
        ({"issuer": "SELF", "jwks_uri": "http://other.example/keys"}, "not at an https:// URL"),
        ({"issuer": "SELF"}, "answers with no Discovery"),
    ],
)
async def test_a_discovery_that_is_not_believed(
    issuer: Issuer, fetch: IssuerFetch, found: dict[str, str], problem: str
) -> None:
    told = {key: issuer.url if value == "SELF" else value for key, value in found.items()}
    issuer.json("/.well-known/openid-configuration", told)
    with pytest.raises(IssuerUnavailable, match=problem):
        await fetch.keys_of(issuer.url)()
