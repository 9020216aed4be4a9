"""A server that takes tokens of the development issuer, and the tokens."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from server_fakes import config

from vivavoce.config import Config
from vivavoce.config.development_keys import development_keys, replace_development_keys
from vivavoce.config.identity import (
    DevelopmentIssuerSettings,
    Identity,
    IdentitySettings,
    IssuerSettings,
    RoleAssignmentSettings,
)
from vivavoce.gateway.development_issuer import Holder, token, with_new_key

URL: Final = "http://issuer.test"
TENANT: Final = "11111111-2222-3333-4444-555555555555"
USER: Final = "aaaaaaaa-0000-0000-0000-000000000001"
"""May open sessions."""
STRANGER: Final = "aaaaaaaa-0000-0000-0000-000000000002"
"""Has no role."""
GROUP: Final = "aaaaaaaa-0000-0000-0000-00000000000f"
AUDIENCE: Final = "https://cognitiveservices.azure.com"
DOWN: Final = "http://127.0.0.1:9/issuer"
"""An issuer that cannot be reached."""
ROLE: Final = "Cognitive Services OpenAI User"


@cache
def keys(n: int) -> bytes:
    """Private keys of the issuer, after ``n`` changes."""
    return with_new_key(keys(n - 1) if n else None)


def with_tokens(folder: Path, settings: Config | None = None, **identity: Any) -> Config:
    """``settings`` (those of one deployment on fakes) with an issuer whose keys are in ``folder``; ``identity`` are
    options of ``[identity]``. The user and the group have a role."""
    settings = config() if settings is None else settings
    development_keys(folder, lambda: keys(0))
    return msgspec.structs.replace(
        settings,
        server=msgspec.structs.replace(settings.server, data=str(folder)),
        resource=msgspec.structs.replace(settings.resource, tenant=TENANT),
        identity=Identity(
            settings=IdentitySettings(**identity),
            issuers=(IssuerSettings(name="down", issuer=DOWN, audience=("voice",)),),
            development=DevelopmentIssuerSettings(enabled=True, url=URL),
            role_assignments=(
                RoleAssignmentSettings(role=ROLE, principal_id=USER),
                RoleAssignmentSettings(role=ROLE, principal_id=GROUP, principal_type="Group"),
            ),
        ),
    )


def change_keys(folder: Path, n: int) -> None:
    replace_development_keys(folder, keys(n))


def dev_token(
    oid: str = USER,
    *,
    tenant: str = TENANT,
    audience: str = AUDIENCE,
    expires_s: int = 3600,
    url: str = URL,
    n: int = 0,
    **more: Any,
) -> str:
    """Signed with the key after ``n`` changes; ``more`` is of :class:`Holder`."""
    holder = Holder(tenant=tenant, oid=oid, **more)
    return token(keys(n), url, holder, audience=audience, now=int(time.time()), expires_s=expires_s)


def token_of_an_unreachable_issuer() -> str:
    import jwt

    header = {"kid": "1"}
    private = jwt.PyJWK(msgspec.json.decode(keys(0))["keys"][0])
    return jwt.encode({"iss": DOWN, "aud": "voice", "exp": time.time() + 60}, private, headers=header)
