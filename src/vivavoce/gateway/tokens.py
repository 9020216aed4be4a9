"""Bearer tokens (JWT, RFC 7519) of Microsoft Entra and of other OIDC issuers (protocol section 1.2).

Laws
----
1. The issuer that a token names chooses the keys; it must be one of those that are configured. The token chooses
   neither a key's place nor an algorithm: a header's ``jku``, ``x5u`` and ``jwk`` are not read, and only the
   algorithms that are configured for the issuer, all with public keys, are tried.
2. Issuer, audience, ``exp`` and a subject are demanded; ``nbf`` and ``iat`` count where they are. Times may be off
   by ``leeway_s``. Tokens of Entra name their tenant, and it is the issuer's.
3. A token is judged when a connection begins, not again while it lasts: the service does so too.
4. Nothing of a token is logged but why it was refused, and the ids of a principal that was let in.

Verifying a token of 2 kB (RS256) takes 0.2 ms, so it is done on the event loop.
"""

from __future__ import annotations

import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import jwt
import msgspec
from jwt.exceptions import PyJWTError

from vivavoce.gateway.auth import Credential
from vivavoce.gateway.issuer_keys import IssuerUnavailable, KeySet
from vivavoce.gateway.principals import Principal, Unknown

Purpose: TypeAlias = Literal["data", "management"]

MAX_TOKEN: Final = 16 * 1024
"""Characters of a token that is looked at."""
MAX_GROUPS: Final = 1024

_SOURCES: Final = ("bearer header", "bearer query", "subprotocol")
"""Where a token may be; the service takes none as ``api-key``."""
_GUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SUBJECT: Final = re.compile(r"[\x21-\x7e]{1,256}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Somebody whose tokens count."""

    name: str
    keys: KeySet = field(repr=False)
    audiences: Mapping[Purpose, frozenset[str]]
    """What ``aud`` may say; a slash at the end makes no difference. None for a purpose: not for that."""
    tenant: str | None = None
    """Of Entra, in lower case: its tokens have ``tid`` and ``oid``. None for another issuer, whose subjects and
    groups are known as ``NAME:SUBJECT``."""
    algorithms: tuple[str, ...] = ("RS256",)
    subject_claim: str = "sub"
    """Of another issuer; so is ``groups_claim``."""
    groups_claim: str = "groups"


FindIssuer: TypeAlias = Callable[[str], Issuer | None]
"""Whose ``iss`` this is; None: nobody's."""


class _Refused(Exception):
    """A token does not hold; the text says why, in words of ours."""


class Tokens:
    """The tokens of all issuers, for one purpose."""

    __slots__ = ("_clock", "_find", "_leeway_s", "_purpose")

    def __init__(
        self,
        find: FindIssuer,
        clock: Callable[[], float],
        *,
        purpose: Purpose = "data",
        leeway_s: float = 300.0,
    ) -> None:
        """``clock``: seconds since 1970."""
        self._find = find
        self._clock = clock
        self._purpose: Purpose = purpose
        self._leeway_s = leeway_s

    async def identify(self, credential: Credential, account: str | None) -> Principal | Unknown | None:
        """A token is for no account of its own: roles say what it opens."""
        if credential.source not in _SOURCES:
            return None
        read = _unverified(credential.value)
        if read is None:
            return None
        header, named = read
        try:
            issuer = self._find(named)
            if issuer is None:
                raise _Refused("its issuer is not configured")
            claims = await self._verified(credential.value, header, issuer)
        except _Refused as refused:
            return Unknown("token", credential, str(refused))
        except IssuerUnavailable as error:
            return Unknown("unavailable", credential, str(error))
        try:
            self._check(claims, issuer)
            return _principal(claims, issuer)
        except _Refused as refused:
            return Unknown("claims", credential, str(refused))

    async def _verified(self, token: str, header: Mapping[str, object], issuer: Issuer) -> Mapping[str, object]:
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
            raise _Refused("its algorithm is not allowed")
        if not isinstance(kid, str):
            raise _Refused("it names no key")
        key = await issuer.keys.key(kid, algorithm)
        if key is None:
            raise _Refused("its key is not one of its issuer's")
        try:
            # Claims are checked here, by a clock that can be given.
            return jwt.decode(
                token,
                key,
                [algorithm],
                options={
                    "enforce_minimum_key_length": True,
                    "verify_aud": False,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_iss": False,
                    "verify_jti": False,
                    "verify_nbf": False,
                    "verify_sub": False,
                },
            )
        except (PyJWTError, RecursionError) as error:
            raise _Refused(f"its signature does not hold ({type(error).__name__})") from None

    def _check(self, claims: Mapping[str, object], issuer: Issuer) -> None:
        now = self._clock()
        if _time(claims, "exp") <= now - self._leeway_s:
            raise _Refused("it has expired")
        for name in ("nbf", "iat"):
            if name in claims and _time(claims, name) > now + self._leeway_s:
                raise _Refused(f"it is not valid yet ({name})")
        named = claims.get("aud")
        audiences = named if isinstance(named, list) else [named]
        wanted = issuer.audiences.get(self._purpose, frozenset())
        if not any(isinstance(one, str) and one.removesuffix("/") in wanted for one in audiences):
            raise _Refused("it is for another audience")
        if issuer.tenant is not None and _text(claims, "tid").lower() != issuer.tenant:
            raise _Refused("its tenant is not its issuer's")


def _unverified(token: str) -> tuple[Mapping[str, object], str] | None:
    """Header and ``iss`` of what looks like a token, None otherwise. They choose an issuer and its key."""
    if len(token) > MAX_TOKEN or not token.isascii() or token.count(".") != 2:
        return None
    header, claims = (_json(part) for part in token.split(".")[:2])
    if header is None or claims is None:
        return None
    issuer = claims.get("iss")
    return header, issuer if isinstance(issuer, str) else ""


def _json(part: str) -> dict[str, object] | None:
    try:
        value = msgspec.json.decode(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _principal(claims: Mapping[str, object], issuer: Issuer) -> Principal:
    if issuer.tenant is None:
        subject = _subject(claims, issuer.subject_claim)
        return Principal(
            kind="oidc",
            id=f"oidc:{issuer.name}:{subject}",
            oid=f"{issuer.name}:{subject}",
            appid=_optional(claims, "azp") or _optional(claims, "client_id"),
            groups=frozenset(f"{issuer.name}:{one}" for one in _groups(claims, issuer.groups_claim)),
        )
    oid = _text(claims, "oid").lower()
    if _GUID.fullmatch(oid) is None:
        raise _Refused("its oid is no GUID")
    return Principal(
        kind="entra",
        id=f"{issuer.name}:{issuer.tenant}/{oid}",
        tenant=issuer.tenant,
        oid=oid,
        appid=_optional(claims, "appid") or _optional(claims, "azp"),
        groups=frozenset(one.lower() for one in _groups(claims, "groups")),
        is_app=claims.get("idtyp") == "app",
    )


def _text(claims: Mapping[str, object], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise _Refused(f"it has no {name}")
    return value


def _optional(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) and _SUBJECT.fullmatch(value) else None


def _subject(claims: Mapping[str, object], name: str) -> str:
    value = _text(claims, name)
    if _SUBJECT.fullmatch(value) is None:
        raise _Refused(f"its {name} is not of 1 to 256 printable ASCII characters")
    return value


def _time(claims: Mapping[str, object], name: str) -> float:
    """An int is a float to the type checker, and here of any size."""
    value = claims.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise _Refused(f"its {name} is no time")


def _groups(claims: Mapping[str, object], name: str) -> list[str]:
    value = claims.get(name, [])
    if not isinstance(value, list):
        value = [value]
    return [one for one in value[:MAX_GROUPS] if isinstance(one, str)]
