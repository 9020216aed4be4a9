"""Who may connect besides the holders of keys: ``[identity]``, ``[entra]``, ``[[issuer]]``,
``[development_issuer]`` and ``[[role_assignment]]``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from vivavoce.config.convert import convert, table_of, tables_of
from vivavoce.config.values import ConfigError

DATA_AUDIENCES: Final = ("https://cognitiveservices.azure.com", "https://ai.azure.com")
MANAGEMENT_AUDIENCES: Final = ("https://management.azure.com", "https://management.core.windows.net")
NO_GUID: Final = "00000000-0000-0000-0000-000000000000"
DEVELOPMENT_URL: Final = "http://localhost:8089"

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Those with public keys: with a shared secret whoever can verify a token can make one."""
PrincipalType: TypeAlias = Literal["User", "Group", "ServicePrincipal"]
_Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_OURS: Final = ("entra", "development", "key", "ephemeral", "oidc")
_TENANT: Final = re.compile(r"[A-Za-z0-9._-]{1,90}")
_SCOPE: Final = re.compile(
    r"(/subscriptions/[^/]+(/resourceGroups/[^/]+(/providers/Microsoft\.CognitiveServices/accounts/[^/]+"
    r"(/deployments/[^/]+)?)?)?)?/?",
    re.IGNORECASE,
)


class IdentitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[identity]``: how tokens are judged, and how many bad keys and tokens are endured."""

    clock_skew_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 300.0
    """Seconds that the times of a token may be off."""
    keys_retry_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 30.0
    """Seconds between two attempts to load the keys of an issuer."""
    stale_keys_s: Annotated[float, msgspec.Meta(ge=0, le=30 * 86400)] = 86400.0
    """Seconds that old keys serve while an issuer cannot be reached."""
    failures: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 60
    """Bad keys and tokens in ``failure_window_s`` after which an address must wait; 0 endures all."""
    account_failures: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 600
    """The same for an account; then addresses that have failed wait at once."""
    failure_window_s: Annotated[float, msgspec.Meta(ge=1, le=86400)] = 60.0
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose ``X-Forwarded-For`` counts."""


class EntraSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[entra]``: take tokens of Microsoft Entra."""

    tenants: tuple[_Text, ...] = ()
    """Whose tokens count, in lower case. The file may leave it to the declared accounts to say."""
    authority: _Text = "https://login.microsoftonline.com"
    """Of the cloud: where tenants publish their keys, and the start of ``iss`` of their v2.0 tokens."""
    audience: tuple[_Text, ...] = DATA_AUDIENCES
    management_audience: tuple[_Text, ...] = MANAGEMENT_AUDIENCES


class IssuerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[issuer]]``: take tokens of an OpenID Connect issuer."""

    name: str
    """Before every subject and group of it, as role assignments name them."""
    issuer: _Text
    """``iss`` of its tokens, exactly."""
    audience: tuple[_Text, ...]
    management_audience: tuple[_Text, ...] = ()
    """Empty: its tokens do not manage."""
    jwks_uri: _Text | None = None
    """Where its keys are; None asks ``ISSUER/.well-known/openid-configuration``."""
    algorithms: tuple[str, ...] = ("RS256",)
    subject_claim: _Text = "sub"
    groups_claim: _Text = "groups"


class DevelopmentIssuerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[development_issuer]``: take tokens that ``vivavoce token`` makes. Never for production."""

    enabled: bool = False
    url: _Text = DEVELOPMENT_URL
    """Start of its ``iss``; others find its keys below it."""


class RoleAssignmentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[role_assignment]]``: a principal may do what a role allows."""

    role: _Text
    """Its name or id."""
    principal_id: _Text
    principal_type: PrincipalType = "User"
    scope: str = ""
    """ARM id of a subscription, a resource group, an account or a deployment; empty is the account of
    ``[resource]``."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    settings: IdentitySettings = IdentitySettings()
    entra: EntraSettings | None = None
    """None: its tokens do not count."""
    issuers: tuple[IssuerSettings, ...] = ()
    development: DevelopmentIssuerSettings = DevelopmentIssuerSettings()
    role_assignments: tuple[RoleAssignmentSettings, ...] = ()

    @property
    def takes_tokens(self) -> bool:
        """Keys are not the only way in."""
        return self.entra is not None or bool(self.issuers) or self.development.enabled


TABLES: Final = ("identity", "entra", "issuer", "development_issuer", "role_assignment")


def read_identity(table: Mapping[str, Any], tenants: Iterable[str]) -> Identity:
    """``tenants``: of the accounts that are declared. Raises :class:`ConfigError`."""
    settings = convert(table_of(table, "identity"), IdentitySettings, "identity")
    for index, network in enumerate(settings.trusted_proxies):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(f"identity.trusted_proxies[{index}]", str(error)) from None
    return Identity(
        settings=settings,
        entra=_entra(table_of(table, "entra"), tenants) if "entra" in table else None,
        issuers=_issuers(table),
        development=_development(table_of(table, "development_issuer")),
        role_assignments=_role_assignments(table),
    )


def _entra(table: Mapping[str, Any], tenants: Iterable[str]) -> EntraSettings:
    entra = convert(table, EntraSettings, "entra")
    _check_url(entra.authority, "entra.authority")
    for index, tenant in enumerate(entra.tenants):
        if _TENANT.fullmatch(tenant) is None:
            raise ConfigError(f"entra.tenants[{index}]", f"{tenant!r} is no id of a tenant")
    counting = entra.tenants or tuple(tenant for tenant in tenants if tenant != NO_GUID)
    if not counting:
        raise ConfigError("entra.tenants", "name one: no account that is declared has a tenant")
    return msgspec.structs.replace(
        entra,
        authority=entra.authority.rstrip("/"),
        tenants=tuple(sorted({tenant.lower() for tenant in counting})),
    )


def _issuers(table: Mapping[str, Any]) -> tuple[IssuerSettings, ...]:
    issuers: list[IssuerSettings] = []
    for index, entry in enumerate(tables_of(table, "issuer")):
        path = f"issuer[{index}]"
        issuer = convert(entry, IssuerSettings, path)
        if _NAME.fullmatch(issuer.name) is None or issuer.name in _OURS:
            raise ConfigError(
                f"{path}.name",
                f"{issuer.name!r} is no name: up to 32 small letters, digits, '-' and '_', and none of "
                f"{', '.join(_OURS)}",
            )
        for other in issuers:
            if issuer.name == other.name or issuer.issuer == other.issuer:
                raise ConfigError(path, "its name or issuer is already another's")
        if not issuer.audience:
            raise ConfigError(f"{path}.audience", "name at least one")
        if not issuer.algorithms:
            raise ConfigError(f"{path}.algorithms", "name at least one")
        for at, algorithm in enumerate(issuer.algorithms):
            if algorithm not in ALGORITHMS:
                raise ConfigError(
                    f"{path}.algorithms[{at}]", f"{algorithm!r} is not one of {', '.join(ALGORITHMS)}"
                )
        _check_url(issuer.issuer, f"{path}.issuer")
        if issuer.jwks_uri is not None:
            _check_url(issuer.jwks_uri, f"{path}.jwks_uri")
        issuers.append(issuer)
    return tuple(issuers)


def _development(table: Mapping[str, Any]) -> DevelopmentIssuerSettings:
    settings = convert(table, DevelopmentIssuerSettings, "development_issuer")
    if urlsplit(settings.url).scheme not in ("http", "https"):
        raise ConfigError("development_issuer.url", f"{settings.url!r} is no http:// or https:// URL")
    return msgspec.structs.replace(settings, url=settings.url.rstrip("/"))


def _role_assignments(table: Mapping[str, Any]) -> tuple[RoleAssignmentSettings, ...]:
    assignments = []
    for index, entry in enumerate(tables_of(table, "role_assignment")):
        path = f"role_assignment[{index}]"
        assignment = convert(entry, RoleAssignmentSettings, path)
        if assignment.scope and _SCOPE.fullmatch(assignment.scope) is None:
            raise ConfigError(
                f"{path}.scope", "expected the id of a subscription, a resource group, an account or a deployment"
            )
        assignments.append(assignment)
    return tuple(assignments)


def _check_url(url: str, path: str) -> None:
    if not is_trustworthy(url):
        raise ConfigError(path, f"{url!r} is no https:// URL, nor an http:// one of this machine")


def is_trustworthy(url: str) -> bool:
    """Keys that came over plain HTTP could be anybody's, unless they came from this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return host != "" and (parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(host)))


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
