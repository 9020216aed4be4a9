"""What there is: accounts, their deployments, keys and role assignments, as Azure's Resource Manager has them.

Laws
----
1. All of it is data, and immutable. A :class:`Directory` is one consistent look at everything; a change makes
   another directory, and whoever holds the old one keeps what it saw.
2. Names and ids are compared without regard to case, as Resource Manager does, and kept as they were written.
3. Keys are here as digests alone, and one that is offered is compared with all of them in constant time.

The words are those of Azure (protocol sections 1.1, 9.3 and 9.4). Where they are kept: ``gateway.store``.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, TypeAlias

from vivavoce.config.identity import PrincipalType

PROVIDER: Final = "Microsoft.CognitiveServices"
OPENAI_FORMAT: Final = "OpenAI"
"""``model.format`` of all models of OpenAI."""

VersionUpgradeOption: TypeAlias = Literal[
    "OnceNewDefaultVersionAvailable", "OnceCurrentVersionExpired", "NoAutoUpgrade"
]
ProvisioningState: TypeAlias = Literal[
    "Accepted", "Creating", "Deleting", "Moving", "Failed", "Succeeded", "Disabled", "Canceled"
]
ActorType: TypeAlias = Literal["User", "Application", "ManagedIdentity", "Key"]

_ACCOUNT_ID: Final = re.compile(
    rf"/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/{re.escape(PROVIDER)}/accounts/([^/]+)",
    re.IGNORECASE,
)
_OF_DEPLOYMENT: Final = re.compile(r"(.+)/deployments/([^/]+)", re.IGNORECASE)


# ------------------------------------------------------------------------------------------------------------ ids


def account_id(subscription: str, resource_group: str, name: str) -> str:
    """``/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.CognitiveServices/accounts/{name}``."""
    return f"/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/{PROVIDER}/accounts/{name}"


def deployment_id(account: str, name: str) -> str:
    """Of a deployment, under the id of its account."""
    return f"{account}/deployments/{name}"


def split_account_id(text: str) -> tuple[str, str, str] | None:
    """Subscription, resource group and name; None where the text is no id of an account."""
    found = _ACCOUNT_ID.fullmatch(text.removesuffix("/"))
    return None if found is None else (found[1], found[2], found[3])


def split_deployment_id(text: str) -> tuple[str, str] | None:
    """Id of the account and name; None where the text is no id of a deployment."""
    found = _OF_DEPLOYMENT.fullmatch(text.removesuffix("/"))
    return None if found is None or split_account_id(found[1]) is None else (found[1], found[2])


def id_key(identifier: str) -> str:
    """The form in which ids and names are compared."""
    return identifier.removesuffix("/").lower()


def same_id(one: str, other: str) -> bool:
    return id_key(one) == id_key(other)


# -------------------------------------------------------------------------------------------------------- things


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemData:
    """Who made a thing and who changed it last. Times are aware, in UTC."""

    created_by: str
    """Object id of the principal, or its loggable id; never a secret."""
    created_by_type: ActorType
    created_at: datetime
    modified_by: str
    modified_by_type: ActorType
    modified_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An Azure OpenAI resource."""

    subscription: str
    resource_group: str
    name: str
    location: str
    tenant: str
    subdomain: str = ""
    """First label of the host names that mean it; empty stands for its name, in lower case."""
    tags: Mapping[str, str] = field(default_factory=dict)
    declared: bool = False
    """By the configuration: always there, and not to be changed."""
    etag: str = ""
    """With its quotes. Empty until it is stored."""
    system_data: SystemData | None = None
    """None for what is declared."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "subdomain", (self.subdomain or self.name).lower())

    @property
    def id(self) -> str:
        return account_id(self.subscription, self.resource_group, self.name)


@dataclass(frozen=True, slots=True)
class Sku:
    """How a deployment is paid for, and how much of it."""

    name: str
    """``GlobalStandard``, ``ProvisionedManaged``, ..."""
    capacity: int
    """Thousands of tokens per minute; PTU where the sku is provisioned."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a deployment runs."""

    name: str
    version: str
    """Empty where the model has none."""
    format: str = OPENAI_FORMAT
    source_account: str | None = None
    """Id of the account that a fine-tuned model comes from, when it is another one."""

    @property
    def full_name(self) -> str:
        """``gpt-4o-realtime-preview-2024-12-17``."""
        return f"{self.name}-{self.version}" if self.version else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRecord:
    """A model under a name in an account, as Resource Manager shows it."""

    account: str
    """Id of its account."""
    name: str
    sku: Sku
    model: Model
    recipe: str
    """What does its work: the name of a recipe, or ``ACCOUNT/NAME`` of a deployment that is declared."""
    version_upgrade_option: VersionUpgradeOption | None = None
    """None is ``OnceCurrentVersionExpired``."""
    rai_policy_name: str | None = None
    spillover_deployment_name: str | None = None
    """The deployment of the account that takes what this one has no room for."""
    provisioning_state: ProvisioningState = "Succeeded"
    tags: Mapping[str, str] = field(default_factory=dict)
    declared: bool = False
    etag: str = ""
    system_data: SystemData | None = None

    @property
    def id(self) -> str:
        return deployment_id(self.account, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountKey:
    """One of the keys that open an account."""

    account: str
    """Id of the account."""
    slot: str
    """``key1``, ``key2``; the configuration may give more."""
    digest: bytes = field(repr=False)
    """SHA-256 of the key."""
    generation: int = 0
    """What the key was derived with; 0 for one that the configuration gives."""
    declared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleAssignment:
    """A principal may do what a role allows, at a scope and in all below it."""

    id: str
    """``{scope}/providers/Microsoft.Authorization/roleAssignments/{GUID}``."""
    scope: str
    """Id of a subscription, a resource group, an account or a deployment."""
    role: str
    """Name of the role, as ``Cognitive Services OpenAI User``."""
    principal_id: str
    """Object id of a user, group or service principal."""
    principal_type: PrincipalType
    declared: bool = False
    etag: str = ""
    system_data: SystemData | None = None


# ----------------------------------------------------------------------------------------------------- directory


class Directory:
    """Everything that there is, at one moment. Lookups are synchronous; none of them fails."""

    __slots__ = (
        "_accounts",
        "_assignments",
        "_by_subdomain",
        "_deployments",
        "_keys",
        "accounts",
        "assignments",
        "revision",
    )

    def __init__(
        self,
        accounts: Iterable[Account],
        *,
        keys: Iterable[AccountKey] = (),
        deployments: Iterable[DeploymentRecord] = (),
        assignments: Iterable[RoleAssignment] = (),
        revision: int = 0,
    ) -> None:
        """Of two that have one id, or accounts with one subdomain, the first counts: put what is declared first.
        Keys and deployments of an account that is not there are left out. Raises ValueError without an account."""
        self._accounts: dict[str, Account] = {}
        for account in accounts:
            self._accounts.setdefault(id_key(account.id), account)
        self.accounts: Final = tuple(self._accounts.values())
        """The first is the one that is meant where nothing else tells."""
        if not self.accounts:
            raise ValueError("a directory has an account")
        self._by_subdomain: dict[str, Account] = {}
        for account in self.accounts:
            self._by_subdomain.setdefault(account.subdomain, account)
        self._keys: dict[str, dict[str, AccountKey]] = {key: {} for key in self._accounts}
        for one in keys:
            self._keys.get(id_key(one.account), {}).setdefault(one.slot, one)
        self._deployments: dict[str, dict[str, DeploymentRecord]] = {key: {} for key in self._accounts}
        for record in deployments:
            self._deployments.get(id_key(record.account), {}).setdefault(id_key(record.name), record)
        self._assignments: dict[str, RoleAssignment] = {}
        for assignment in assignments:
            self._assignments.setdefault(id_key(assignment.id), assignment)
        self.assignments: Final = tuple(self._assignments.values())
        self.revision: Final = revision
        """Of the store; 0 where there is none."""

    def account(self, identifier: str) -> Account | None:
        return self._accounts.get(id_key(identifier))

    def account_of_host(self, label: str) -> Account | None:
        """By the first label of a host name, see :func:`host_label`."""
        return self._by_subdomain.get(label.lower())

    def keys(self, account: str) -> tuple[AccountKey, ...]:
        """Of an account, ``key1`` first."""
        return tuple(self._keys.get(id_key(account), {}).values())

    def by_key_digest(self, digest: bytes) -> AccountKey | None:
        """The key with this SHA-256, of whatever account. How long it takes tells nothing about those there are."""
        found = None
        for keys in self._keys.values():
            for key in keys.values():
                if hmac.compare_digest(key.digest, digest) and found is None:
                    found = key
        return found

    def deployments(self, account: str) -> tuple[DeploymentRecord, ...]:
        """Of an account; those that are declared first, in the order of the file."""
        return tuple(self._deployments.get(id_key(account), {}).values())

    def deployment(self, account: str, name: str) -> DeploymentRecord | None:
        return self._deployments.get(id_key(account), {}).get(id_key(name))

    def assignment(self, identifier: str) -> RoleAssignment | None:
        return self._assignments.get(id_key(identifier))


def host_label(host: str) -> str:
    """First label of a Host header, in lower case: ``myvoice`` of ``MyVoice.openai.azure.com:443``. Empty where
    there is none, and for an IP address."""
    name = host.strip().lower()
    if name.startswith("["):
        return ""
    name = name.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.partition(".")[0]
    return ""


def meant_account(directory: Directory, host: str, opened: str | None = None) -> Account:
    """The account that a request is for: the one that the Host header names, else the one (its id) that is
    ``opened`` by the key that was offered, else the first of all.

    That the key opens this account is not said: one that the host names may be another's than the key's.
    """
    named = directory.account_of_host(host_label(host))
    if named is None and opened is not None:
        named = directory.account(opened)
    return named or directory.accounts[0]
