from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt.warnings import InsecureKeyLengthWarning
from token_maker import AUDIENCE, MANAGEMENT, NOW, OID, TENANT, Signer

from vivavoce.gateway.auth import Credential
from vivavoce.gateway.issuer_keys import IssuerUnavailable, KeySet, Loaded
from vivavoce.gateway.principals import Principal, Unknown
from vivavoce.gateway.tokens import MAX_GROUPS, MAX_TOKEN, Issuer, Purpose, Tokens

ISSUER = f"https://login.microsoftonline.com/{TENANT}/v2.0"
KEYCLOAK = "https://idp.example/realms/voice"
SIGNER = Signer("one")
OTHER = Signer("two")
CURVE = Signer("curve", "ES256")


class World:
    """Two issuers whose keys come at once, and the clocks."""

    def __init__(self) -> None:
        self.keys = [SIGNER.public, CURVE.public]
        self.down = False
        audiences: dict[Purpose, frozenset[str]] = {
            "data": frozenset({AUDIENCE}),
            "management": frozenset({MANAGEMENT}),
        }
        keys = KeySet("test", self.load, lambda: 0.0)
        self.issuers = {
            ISSUER: Issuer(name="entra", keys=keys, audiences=audiences, tenant=TENANT),
            KEYCLOAK: Issuer(
                name="keycloak",
                keys=keys,
                audiences={"data": frozenset({"voice"})},
                algorithms=("RS256", "ES256"),
                subject_claim="preferred_username",
                groups_claim="roles",
            ),
        }

    async def load(self) -> Loaded:
        if self.down:
            raise IssuerUnavailable("it is down")
        return Loaded(self.keys)

    def identify(
        self, token: str, source: Any = "bearer header", purpose: Purpose = "data"
    ) -> Principal | Unknown | None:
        tokens = Tokens(self.issuers.get, lambda: NOW, purpose=purpose, leeway_s=300)
        return asyncio.run(tokens.identify(Credential(token, source), None))


@pytest.fixture
def world() -> World:
    return World()


def claims(**changes: object) -> dict[str, Any]:
    all_of_them: dict[str, Any] = {
        "iss": ISSUER, "aud": AUDIENCE, "tid": TENANT, "oid": OID, "sub": "s", "iat": NOW, "nbf": NOW,
        "exp": NOW + 3600, **changes,
    }  # fmt: skip
    return {name: value for name, value in all_of_them.items() if value is not None}


def why(found: Principal | Unknown | None) -> tuple[str, str]:
    assert isinstance(found, Unknown)
    return found.fault, found.why


# ------------------------------------------------------------------------------------------------------- accepted


def test_a_token_of_entra(world: World) -> None:
    groups = ["6F9619FF-8B86-D011-B42D-00C04FC964FF"]
    token = SIGNER.token(claims(oid=OID.upper(), appid="app", groups=groups, idtyp="app"))
    assert world.identify(token) == Principal(
        kind="entra",
        id=f"entra:{TENANT}/{OID}",
        tenant=TENANT,
        oid=OID,
        appid="app",
        groups=frozenset({groups[0].lower()}),
        is_app=True,
    )


def test_a_token_of_another_issuer_keeps_its_names_apart(world: World) -> None:
    token = CURVE.token(
        {
            "iss": KEYCLOAK, "aud": ["account", "voice"], "exp": NOW + 60, "preferred_username": "Alice",
            "roles": ["Admins", 7], "azp": "shop",
        }
    )  # fmt: skip
    assert world.identify(token) == Principal(
        kind="oidc",
        id="oidc:keycloak:Alice",
        oid="keycloak:Alice",
        appid="shop",
        groups=frozenset({"keycloak:Admins"}),
    )


GOOD: dict[str, Mapping[str, object]] = {
    "audience with a slash": {"aud": f"{AUDIENCE}/"},
    "one of several audiences": {"aud": ["x", AUDIENCE]},
    "expired within the skew": {"exp": NOW - 299},
    "not yet valid within the skew": {"nbf": NOW + 300, "iat": NOW + 300},
    "no nbf and no iat": {"nbf": None, "iat": None},
    "times as fractions": {"exp": NOW + 0.5},
    "tenant in capitals": {"tid": TENANT.upper()},
    "azp instead of appid": {"azp": "app"},
}


@pytest.mark.parametrize("case", GOOD)
def test_accepted(world: World, case: str) -> None:
    assert isinstance(world.identify(SIGNER.token(claims(**GOOD[case]))), Principal)


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("bearer header", True),
        ("bearer query", True),
        ("subprotocol", True),
        ("api-key header", False),
        ("api-key query", False),
    ],
)
def test_where_a_token_may_be(world: World, source: str, read: bool) -> None:
    assert (world.identify(SIGNER.token(claims()), source) is not None) is read


def test_groups_are_bounded(world: World) -> None:
    token = SIGNER.token(claims(groups=[str(n) for n in range(MAX_GROUPS + 1)]))
    found = world.identify(token)
    assert isinstance(found, Principal)
    assert len(found.groups) == MAX_GROUPS


# -------------------------------------------------------------------------------------------------------- refused

CLAIMS: dict[str, tuple[Mapping[str, object], str]] = {
    "expired": ({"exp": NOW - 300}, "it has expired"),
    "no exp": ({"exp": None}, "its exp is no time"),
    "exp is true": ({"exp": True}, "its exp is no time"),
    "exp is text": ({"exp": str(NOW + 60)}, "its exp is no time"),
    "not valid yet": ({"nbf": NOW + 301}, "it is not valid yet (nbf)"),
    "issued in the future": ({"iat": NOW + 301}, "it is not valid yet (iat)"),
    "nbf is no number": ({"nbf": "now"}, "its nbf is no time"),
    "no audience": ({"aud": None}, "it is for another audience"),
    "audience of management": ({"aud": MANAGEMENT}, "it is for another audience"),
    "audience with two slashes": ({"aud": f"{AUDIENCE}//"}, "it is for another audience"),
    "audience is a number": ({"aud": [1]}, "it is for another audience"),
    "another tenant": ({"tid": OID}, "its tenant is not its issuer's"),
    "no tenant": ({"tid": None}, "it has no tid"),
    "no oid": ({"oid": None}, "it has no oid"),
    "oid is no GUID": ({"oid": "alice\nroot"}, "its oid is no GUID"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_claims_that_do_not_hold(world: World, case: str) -> None:
    changes, reason = CLAIMS[case]
    assert why(world.identify(SIGNER.token(claims(**changes)))) == ("claims", reason)


def test_an_audience_is_for_one_purpose(world: World) -> None:
    data, management = SIGNER.token(claims()), SIGNER.token(claims(aud=MANAGEMENT))
    assert isinstance(world.identify(management, purpose="management"), Principal)
    assert why(world.identify(data, purpose="management")) == ("claims", "it is for another audience")
    keycloak = {"iss": KEYCLOAK, "aud": "voice", "exp": NOW + 60, "preferred_username": "a"}
    assert isinstance(world.identify(SIGNER.token(keycloak)), Principal)
    assert why(world.identify(SIGNER.token(keycloak), purpose="management"))[0] == "claims"


@pytest.mark.parametrize("subject", ["", "a b", "a\nb", "é", "x" * 257, 5, None])
def test_subjects_that_could_not_be_logged(world: World, subject: object) -> None:
    token = SIGNER.token({"iss": KEYCLOAK, "aud": "voice", "exp": NOW + 60, "preferred_username": subject})
    assert why(world.identify(token))[0] == "claims"


def _unsigned(header: Mapping[str, object]) -> str:
    parts = (header, claims())
    encoded = (jwt.utils.base64url_encode(json.dumps(part).encode()).decode() for part in parts)
    return ".".join([*encoded, ""])


FORGED = {
    "signed by somebody else": (OTHER.token(claims(), kid="one"), "its signature does not hold"),
    "a key that the issuer has not": (OTHER.token(claims()), "its key is not one of its issuer's"),
    "no key named": (SIGNER.token(claims(), kid=None), "it names no key"),
    "an issuer that is not configured": (
        SIGNER.token(claims(iss=ISSUER.replace(TENANT, OID))), "its issuer is not configured",
    ),
    "no issuer": (SIGNER.token(claims(iss=None)), "its issuer is not configured"),
    "issuer without its end": (SIGNER.token(claims(iss=ISSUER[:-1])), "its issuer is not configured"),
    "not signed": (_unsigned({"alg": "none", "kid": "one"}), "its algorithm is not allowed"),
    "not signed, in capitals": (_unsigned({"alg": "NONE", "kid": "one"}), "its algorithm is not allowed"),
    "no algorithm": (_unsigned({"kid": "one"}), "its algorithm is not allowed"),
    "algorithm is a list": (_unsigned({"alg": ["RS256"], "kid": "one"}), "its algorithm is not allowed"),
    "the public key as a shared secret": (
        jwt.encode(claims(), SIGNER.public["n"], "HS256", {"kid": "one"}), "its algorithm is not allowed",
    ),
    "an algorithm of another issuer": (CURVE.token(claims()), "its algorithm is not allowed"),
    "empty signature": (SIGNER.token(claims()).rpartition(".")[0] + ".", "its signature does not hold"),
    "claims changed": (
        ".".join(SIGNER.token(claims(oid=one)).split(".")[n] for n, one in enumerate((OID, TENANT, OID))),
        "its signature does not hold",
    ),
    "an unknown critical header": (
        SIGNER.token(claims(), {"crit": ["x"], "x": 1}), "its signature does not hold",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FORGED)
def test_forged(world: World, case: str) -> None:
    token, reason = FORGED[case]
    fault, told = why(world.identify(token))
    assert (fault, told.partition(" (")[0]) == ("token", reason)


def test_a_key_for_another_algorithm_is_not_tried(world: World) -> None:
    world.keys = [{**CURVE.public, "kid": "one"}]
    assert why(world.identify(SIGNER.token(claims()))) == ("token", "its key is not one of its issuer's")
    world = World()
    world.keys = [{**SIGNER.public, "use": "enc"}]
    assert why(world.identify(SIGNER.token(claims()))) == ("token", "its key is not one of its issuer's")


def test_a_short_key_is_refused(world: World) -> None:
    short = Signer("short", bits=1024)
    world.keys = [short.public]
    with pytest.warns(InsecureKeyLengthWarning):
        token = short.token(claims())
    assert why(world.identify(token)) == ("token", "its signature does not hold (InvalidKeyError)")


@pytest.mark.parametrize("never", ["Infinity", "1e999", "NaN"])
def test_a_time_that_never_comes(world: World, never: str) -> None:
    payload = json.dumps(claims()).replace(f'"exp": {NOW + 3600}', f'"exp": {never}')
    found = world.identify(SIGNER.signed(payload))
    assert found is None or why(found) == ("claims", "its exp is no time")


@pytest.mark.parametrize(
    "value",
    [
        "a-key", "a.b.c", "..", "e30.e30.", "W10.W10.x", "\udcff.e30.x", "é.e30.x",
        f"{'a' * MAX_TOKEN}.e30.x",
    ],
)  # fmt: skip
def test_what_is_no_token_is_left_to_others(world: World, value: str) -> None:
    found = world.identify(value)
    assert found is None or why(found) == ("token", "its issuer is not configured")


def test_without_the_issuers_keys_nobody_is_let_in(world: World) -> None:
    world.down = True
    assert why(world.identify(SIGNER.token(claims())))[0] == "unavailable"


def test_nothing_shows_a_token(world: World) -> None:
    for token in (SIGNER.token(claims()), SIGNER.token(claims(exp=1)), OTHER.token(claims())):
        shown = repr(world.identify(token))
        assert not any(part in shown for part in token.split("."))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["alg", "kid", "iss", "aud", "tid", "oid", "exp", "nbf", "iat", "groups", "crit", "b64"])


@given(st.dictionaries(NAMES, JSON), st.dictionaries(NAMES, JSON), st.binary(max_size=8))
def test_whatever_is_offered_is_refused_and_raises_nothing(
    header: dict[str, object], payload: dict[str, object], signature: bytes
) -> None:
    header, payload = {"alg": "RS256", "kid": "one"} | header, claims() | payload
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    token = ".".join(jwt.utils.base64url_encode(part).decode() for part in parts)
    assert not isinstance(World().identify(token), Principal)


@given(st.dictionaries(NAMES, JSON))
def test_whatever_is_signed_raises_nothing(payload: dict[str, object]) -> None:
    found = World().identify(SIGNER.signed(json.dumps(claims() | payload)))
    if isinstance(found, Principal):
        assert found.tenant == TENANT
        assert found.id.isprintable()
        assert found.id.isascii()
        assert found.appid is None or found.appid.isprintable()


@given(st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_=-]{0,20}(\.[A-Za-z0-9_=-]{0,20}){0,4}", fullmatch=True))
def test_any_text_is_no_token(value: str) -> None:
    assert not isinstance(World().identify(value), Principal)


@pytest.mark.parametrize("depth", [500, 960, 990, 1000, 3000, 6000])
def test_what_is_nested_too_deeply_raises_nothing(depth: int) -> None:
    deep = '"x":' + "[" * depth + "]" * depth
    good = json.dumps(claims())
    header = '{"alg":"RS256","kid":"' + SIGNER.kid + '"'
    for head, payload in ((f"{header},{deep}}}", good), (f"{header}}}", f"{good[:-1]},{deep}}}")):
        token = ".".join(jwt.utils.base64url_encode(part.encode()).decode() for part in (head, payload, "x"))
        assert not isinstance(World().identify(token), Principal)
