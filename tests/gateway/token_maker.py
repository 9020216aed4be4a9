"""Keys and tokens for tests: real ones, made once for each name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

TENANT: Final = "11111111-2222-3333-4444-555555555555"
OID: Final = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
AUDIENCE: Final = "https://cognitiveservices.azure.com"
MANAGEMENT: Final = "https://management.azure.com"
NOW: Final = 1_730_000_000


@cache
def _rsa(name: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def _curve(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


class Signer:
    """A key pair of an issuer, named by its ``kid``."""

    def __init__(self, kid: str, algorithm: str = "RS256", bits: int = 2048) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self._private = _curve(kid) if algorithm == "ES256" else _rsa(kid, bits)

    @property
    def public(self) -> dict[str, Any]:
        """As a JWK."""
        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            jwk = ECAlgorithm.to_jwk(self._private.public_key())
        else:
            jwk = RSAAlgorithm.to_jwk(self._private.public_key())
        key: dict[str, Any] = {**json.loads(jwk), "kid": self.kid, "use": "sig"}
        key.pop("key_ops", None)
        return key

    def token(
        self, claims: Mapping[str, object], header: Mapping[str, object] | None = None, *, kid: str | None = "="
    ) -> str:
        """``kid``: in the header; None for none."""
        named = self.kid if kid == "=" else kid
        headers = {**(header or {}), **({} if named is None else {"kid": named})}
        return jwt.encode(dict(claims), self._private, self.algorithm, headers)

    def signed(self, payload: str) -> str:
        """A token of any text."""
        return jwt.PyJWS().encode(payload.encode(), self._private, self.algorithm, {"kid": self.kid})
