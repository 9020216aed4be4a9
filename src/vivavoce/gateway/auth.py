"""Who knocks: finding keys and tokens in a request, and hiding them from everybody else.

Laws
----
1. A key is in no ``repr`` and in no log; afterwards its holder is known by a principal id, made from a digest.
2. Whatever shows a URL, a query string or headers to anybody passes it through ``redact_*`` first.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote_plus

from vivavoce.config import Secret

CredentialSource: TypeAlias = Literal[
    "api-key header", "api-key query", "bearer header", "bearer query", "subprotocol"
]

KEY_SUBPROTOCOL: Final = "openai-insecure-api-key."
HIDDEN: Final = "***"

_SECRET_PARAMETERS: Final = frozenset(
    {
        "access_token",
        "api-key",
        "api_key",
        "apikey",
        "authorization",
        "client_secret",
        "key",
        "sig",
        "subscription-key",
        "token",
        "x-api-key",
    }
)
_SECRET_HEADERS: Final = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "ocp-apim-subscription-key",
        "proxy-authorization",
        "set-cookie",
        "x-api-key",
        "x-ms-authorization-auxiliary",
    }
)
_TELLS_A_SECRET: Final = re.compile(
    r"auth|cookie|credential|key|passw|pwd|secret|session|signature|token|(^|-)(jwt|pass|sas|sig)(-|$)"
)
_USER_INFO: Final = re.compile(r"(?<=//)[^/?#]*@")


def new_key() -> Secret:
    """A random key of 256 bits, fit for headers, URLs and subprotocols."""
    return Secret(secrets.token_urlsafe(32))


@dataclass(frozen=True, slots=True)
class Credential:
    """A key that somebody offered; nothing is known about it yet."""

    value: str = field(repr=False)
    source: CredentialSource


def credentials(
    query: Sequence[tuple[str, str]],
    headers: Sequence[tuple[str, str]],
    subprotocols: Sequence[str],
    *,
    subprotocol_keys: bool = True,
) -> tuple[Credential, ...]:
    """All keys of an upgrade request, at most one of each source, in the order in which they count.

    Clients send several at once: a placeholder in one place and the true key in another.
    """
    found: list[tuple[CredentialSource, str | None]] = [
        ("api-key header", _first(headers, "api-key")),
        ("api-key query", _first(query, "api-key")),
        ("bearer header", _bearer(_first(headers, "authorization"))),
        ("bearer query", _bearer(_first(query, "authorization"))),
    ]
    if subprotocol_keys:
        offered = (name for name in subprotocols if name.startswith(KEY_SUBPROTOCOL))
        found.append(("subprotocol", next(offered, "").removeprefix(KEY_SUBPROTOCOL)))
    return tuple(Credential(value, source) for source, value in found if value)


def _first(pairs: Sequence[tuple[str, str]], name: str) -> str | None:
    return next((value.strip() for key, value in pairs if key.lower() == name), None)


def _bearer(value: str | None) -> str | None:
    scheme, _, key = (value or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def key_principal(key: str) -> str:
    """By what the holder of a key is known: ``key:`` and 12 hex digits."""
    value = key.encode("utf-8", "surrogatepass")
    return f"key:{hashlib.sha256(b'vivavoce principal ' + value).hexdigest()[:12]}"


# --------------------------------------------------------------------------------------------------- redaction


def tells_a_secret(name: str) -> bool:
    """Whether a request header of this name, be it of the caller's own making, may carry a secret."""
    return _TELLS_A_SECRET.search(name.lower()) is not None


def redact_query(query: str) -> str:
    """A raw query string whose secret values are ``***``; all else is left as it was."""
    return "&".join(_redact_pair(pair) for pair in query.split("&"))


def _redact_pair(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}={HIDDEN}" if equals and unquote_plus(name).strip().lower() in _SECRET_PARAMETERS else pair


def redact_url(url: str) -> str:
    """A URL, or path with query, without secrets in its query and without user information."""
    start, question, rest = _USER_INFO.sub(f"{HIDDEN}@", url, count=1).partition("?")
    query, hash_sign, fragment = rest.partition("#")
    return f"{start}{question}{redact_query(query)}{hash_sign}{fragment}"


def redact_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Header lines without secrets; of ``Sec-WebSocket-Protocol`` only the key is hidden."""
    return [(name, _redact_header(name.lower(), value)) for name, value in headers]


def _redact_header(name: str, value: str) -> str:
    if name in _SECRET_HEADERS:
        return HIDDEN
    if name == "sec-websocket-protocol":
        parts = (part.strip() for part in value.split(","))
        return ", ".join(
            f"{KEY_SUBPROTOCOL}{HIDDEN}" if part.startswith(KEY_SUBPROTOCOL) else part for part in parts
        )
    return value
