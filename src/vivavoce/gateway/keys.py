"""The keys of accounts: known by a digest, and derived, so that nobody needs to keep them."""

from __future__ import annotations

import base64
import hashlib
import hmac

from vivavoce.config import Secret
from vivavoce.gateway.resource import id_key


def key_digest(key: str) -> bytes:
    """SHA-256, by which a key is known."""
    # Headers may hold bytes that are no UTF-8; they arrive as lone surrogates.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def derived_key(secret: Secret, account: str, slot: str, generation: int) -> Secret:
    """The key of a slot of an account (its id): always the same one for a generation, and of 256 bits for all who
    do not know the secret. Fit for headers, URLs and subprotocols.
    """
    what = f"{id_key(account)}\n{slot}\n{generation}".encode()
    value = hmac.digest(secret.reveal().encode(), b"vivavoce account key\n" + what, "sha256")
    return Secret(base64.urlsafe_b64encode(value).rstrip(b"=").decode())


def secret_mark(secret: Secret) -> str:
    """By which a store knows the secret that its keys were derived with, without keeping it."""
    return hmac.digest(secret.reveal().encode(), b"vivavoce store", "sha256").hex()[:32]
