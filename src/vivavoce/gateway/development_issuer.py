"""An issuer of tokens for development and tests: anybody with its keys is whoever they want to be.

Laws
----
1. It works only where the configuration asks for it, and says so loudly. Its tokens have an issuer of their own, so
   that no server takes them which was not told to.
2. Its tokens are those of Entra otherwise, and are verified in the same way, by public keys that it publishes.
3. It signs with its first key. Older ones stay, up to :data:`MAX_KEYS`, so that tokens outlive a change of keys.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

PATH: Final = "/development-issuer"
"""Where it publishes: ``PATH/{tenant}/v2.0/.well-known/openid-configuration`` and :data:`KEYS_PATH`."""
KEYS_PATH: Final = f"{PATH}/discovery/v2.0/keys"
MAX_KEYS: Final = 3
ALGORITHM: Final = "RS256"

_BITS: Final = 2048
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
_TENANT: Final = re.compile(r"[A-Za-z0-9._-]{1,90}")


def with_new_key(content: bytes | None = None) -> bytes:
    """The keys as they are kept (a JWK set of private keys), with a new one first. ``content``: what was kept."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    key = json.loads(RSAAlgorithm.to_jwk(private))
    key.pop("key_ops", None)
    key |= {"kid": uuid.uuid4().hex, "use": "sig", "alg": ALGORITHM}
    older = [] if content is None else _keys(content)
    return json.dumps({"keys": [key, *older][:MAX_KEYS]}, indent=1).encode()


def public_keys(content: bytes) -> list[dict[str, Any]]:
    """``keys`` of the JWK set that is published. Raises ValueError."""
    return [{name: value for name, value in key.items() if name not in _PRIVATE} for key in _keys(content)]


def issuer_name(url: str, tenant: str) -> str:
    """``iss`` of its tokens for a tenant. ``url``: its own, see ``[development_issuer]``."""
    return f"{url}{PATH}/{tenant}/v2.0"


def tenant_of(url: str, issuer: str) -> str | None:
    """The tenant of an ``iss`` of ours, None for somebody else's."""
    start, end = f"{url}{PATH}/", "/v2.0"
    tenant = issuer.removeprefix(start).removesuffix(end)
    return tenant if issuer == f"{start}{tenant}{end}" and _TENANT.fullmatch(tenant) else None


def discovery(url: str, tenant: str) -> dict[str, Any]:
    """The OpenID configuration of a tenant."""
    return {
        "issuer": issuer_name(url, tenant),
        "jwks_uri": f"{url}{KEYS_PATH}",
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "response_types_supported": ["token"],
        "subject_types_supported": ["pairwise"],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whom a token is for."""

    tenant: str
    oid: str
    """Object id, a GUID."""
    appid: str | None = None
    """The client application."""
    groups: Sequence[str] = ()
    is_app: bool = False
    """A service principal rather than a user."""


def token(content: bytes, url: str, holder: Holder, *, audience: str, now: int, expires_s: int) -> str:
    """A signed token. ``now``: seconds since 1970; ``expires_s``: how long it is valid. Raises ValueError when the
    keys cannot be read.
    """
    claims: dict[str, Any] = {
        "aud": audience,
        "iss": issuer_name(url, holder.tenant.lower()),
        "iat": now,
        "nbf": now,
        "exp": now + expires_s,
        "idtyp": "app" if holder.is_app else "user",
        "oid": holder.oid.lower(),
        "sub": holder.oid.lower(),
        "tid": holder.tenant.lower(),
        "uti": uuid.uuid4().hex,
        "ver": "2.0",
    }
    if holder.appid is not None:
        claims["azp"] = holder.appid
    if holder.groups:
        claims["groups"] = [group.lower() for group in holder.groups]
    key = _keys(content)[0]
    return jwt.encode(claims, jwt.PyJWK(key, ALGORITHM), ALGORITHM, {"kid": key["kid"]})


def _keys(content: bytes) -> list[dict[str, Any]]:
    kept = json.loads(content)
    keys = kept.get("keys") if isinstance(kept, dict) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) and "kid" in key for key in keys):
        raise ValueError("these are no keys of a development issuer")
    return keys
