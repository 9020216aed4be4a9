"""A management API over a store in memory, tokens that are names, and a small catalogue."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any, Final

from vivavoce.config import CapacitySettings, LimitSettings, Secret, SubscriptionSettings
from vivavoce.gateway.arm.accounts import Accounts
from vivavoce.gateway.arm.call import Answer, Request
from vivavoce.gateway.arm.deployments import DeploymentOperations, State
from vivavoce.gateway.arm.lists import Lists
from vivavoce.gateway.arm.offers import Offers
from vivavoce.gateway.arm.role_assignments import RoleAssignments
from vivavoce.gateway.arm.service import Management
from vivavoce.gateway.auth import Credential
from vivavoce.gateway.limits import Rules
from vivavoce.gateway.models.catalogue import ModelCatalogue
from vivavoce.gateway.principals import Identities, Principal, Unknown
from vivavoce.gateway.resource import (
    Account,
    AccountKey,
    DeploymentRecord,
    Directory,
    Model,
    RoleAssignment,
    Sku,
    SystemData,
    id_key,
    same_id,
)
from vivavoce.gateway.store.base import (
    Actor,
    Check,
    Conflict,
    NotFound,
    PreconditionFailed,
    Put,
    ReadOnly,
    Usage,
)
from vivavoce.gateway.throttle import Throttle

NOW: Final = datetime(2025, 2, 13, 8, 30, tzinfo=UTC)
TENANT: Final = "11111111-0000-0000-0000-000000000001"
OTHER_TENANT: Final = "22222222-0000-0000-0000-000000000002"
SUB: Final = "/subscriptions/sub-1"
OTHER_SUB: Final = "/subscriptions/sub-2"
FAR_SUB: Final = "/subscriptions/sub-3"
GROUP: Final = f"{SUB}/resourceGroups/voice"
_ACCOUNTS: Final = "providers/Microsoft.CognitiveServices/accounts"
DECLARED: Final = f"{GROUP}/{_ACCOUNTS}/house"
BANK: Final = f"{GROUP}/{_ACCOUNTS}/bank"
SWEDEN: Final = f"{GROUP}/{_ACCOUNTS}/sweden"
"""In another region of the same subscription."""
TUNING: Final = f"{OTHER_SUB}/resourceGroups/tuning/{_ACCOUNTS}/tuner"
"""In another subscription of the same tenant."""
FAR: Final = f"{FAR_SUB}/resourceGroups/far/{_ACCOUNTS}/abroad"
"""In another tenant."""

OWNER: Final = "aaaaaaaa-0000-0000-0000-000000000001"
CONTRIBUTOR: Final = "aaaaaaaa-0000-0000-0000-000000000002"
USER: Final = "aaaaaaaa-0000-0000-0000-000000000003"
NOBODY: Final = "aaaaaaaa-0000-0000-0000-000000000004"
ABROAD: Final = "bbbbbbbb-0000-0000-0000-000000000001"

REALTIME: Final = "gpt-4o-realtime-preview"
MINI: Final = "gpt-4o-mini"
FINE_TUNED: Final = "gpt-4o-mini-2024-07-18.ft-0123456789abcdef"


class FakeStore:
    """A store without a database."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._etag = 0
        self.generations: dict[str, int] = {}
        self.usages: list[Usage] = []
        self.before_change: Callable[[], None] = lambda: None

    @property
    def current(self) -> Directory:
        return self._directory

    async def directory(self) -> Directory:
        return self._directory

    def follow(self, listener: Callable[[Directory], None]) -> Callable[[], None]:
        raise AssertionError("nobody follows")

    def _replace(self, **changes: Iterable[Any]) -> None:
        here = self._directory
        parts: dict[str, Iterable[Any]] = {
            "accounts": here.accounts,
            "keys": [key for one in here.accounts for key in here.keys(one.id)],
            "deployments": [record for one in here.accounts for record in here.deployments(one.id)],
            "assignments": here.assignments,
        }
        parts |= changes
        self._directory = Directory(
            parts["accounts"],
            keys=parts["keys"],
            deployments=parts["deployments"],
            assignments=parts["assignments"],
        )

    def _look(self, there: Any, of: str, if_match: str | None, if_none_match: bool = False) -> None:
        self.before_change()
        if there is not None and there.declared:
            raise ReadOnly(of, "declared")
        if if_none_match and there is not None:
            raise PreconditionFailed(of, "it is there")
        if if_match is not None and (there is None or if_match not in ("*", there.etag)):
            raise PreconditionFailed(of, "another etag")

    def _stamp(self, there: Any, by: Actor) -> dict[str, Any]:
        self._etag += 1
        made = there.system_data if there is not None else None
        data = SystemData(
            created_by=by.id if made is None else made.created_by,
            created_by_type=by.type if made is None else made.created_by_type,
            created_at=NOW if made is None else made.created_at,
            modified_by=by.id,
            modified_by_type=by.type,
            modified_at=NOW,
        )
        return {"etag": f'"{self._etag}"', "system_data": data}

    async def put_account(
        self,
        account: Account,
        *,
        by: Actor,
        if_match: str | None = None,
        if_none_match: bool = False,
        check: Check | None = None,
    ) -> Put[Account]:
        there = self._directory.account(account.id)
        self._look(there, account.id, if_match, if_none_match)
        if check is not None:
            check(self._directory)
        new = replace(account, **self._stamp(there, by))
        kept = [one for one in self._directory.accounts if not same_id(one.id, account.id)]
        self._replace(accounts=[*kept, new])
        return Put(new, there is None)

    async def delete_account(self, id: str, *, if_match: str | None = None) -> None:  # noqa: A002
        there = self._directory.account(id)
        if there is None:
            raise NotFound(id, "not there")
        self._look(there, id, if_match)
        if self._directory.deployments(id):
            raise Conflict(id, "it has deployments")
        self._replace(accounts=[one for one in self._directory.accounts if one is not there])

    async def put_deployment(
        self,
        record: DeploymentRecord,
        *,
        by: Actor,
        if_match: str | None = None,
        if_none_match: bool = False,
        check: Check | None = None,
    ) -> Put[DeploymentRecord]:
        there = self._directory.deployment(record.account, record.name)
        self._look(there, record.id, if_match, if_none_match)
        if check is not None:
            check(self._directory)
        new = replace(record, **self._stamp(there, by))
        self._replace(deployments=[*self._other_deployments(record.id), new])
        return Put(new, there is None)

    def _other_deployments(self, of: str) -> list[DeploymentRecord]:
        here = self._directory
        return [one for a in here.accounts for one in here.deployments(a.id) if not same_id(one.id, of)]

    async def delete_deployment(self, account: str, name: str, *, if_match: str | None = None) -> None:
        there = self._directory.deployment(account, name)
        if there is None:
            raise NotFound(name, "not there")
        self._look(there, there.id, if_match)
        self._replace(deployments=self._other_deployments(there.id))

    async def put_role_assignment(
        self, assignment: RoleAssignment, *, by: Actor, check: Check | None = None
    ) -> Put[RoleAssignment]:
        there = self._directory.assignment(assignment.id)
        for one in self._directory.assignments:
            alike = (one.scope, one.role, one.principal_id) == (
                assignment.scope,
                assignment.role,
                assignment.principal_id,
            )
            if alike != same_id(one.id, assignment.id):
                raise Conflict(assignment.id, "another has this id or these contents")
        if there is not None:
            return Put(there, False)
        new = replace(assignment, **self._stamp(None, by))
        self._replace(assignments=[*self._directory.assignments, new])
        return Put(new, True)

    async def delete_role_assignment(self, id: str) -> None:  # noqa: A002
        there = self._directory.assignment(id)
        if there is None:
            raise NotFound(id, "not there")
        self._look(there, id, None)
        self._replace(assignments=[one for one in self._directory.assignments if one is not there])

    async def keys(self, account: str) -> Mapping[str, Secret]:
        return {
            slot: Secret(f"{slot}-of-{account.rpartition('/')[2]}-{self.generations.get(slot, 1)}")
            for slot in ("key1", "key2")
        }

    async def regenerate_key(self, account: str, slot: str) -> AccountKey:
        there = self._directory.account(account)
        self._look(there, account, None)
        self.generations[slot] = self.generations.get(slot, 1) + 1
        return AccountKey(account=account, slot=slot, digest=b"", generation=self.generations[slot])

    async def record_usage(self, usages: Iterable[Usage]) -> None:
        self.usages += usages

    async def forget_usage(self, before: datetime) -> int:
        kept = [one for one in self.usages if one.hour >= before]
        forgotten, self.usages = len(self.usages) - len(kept), kept
        return forgotten

    async def usage(self, account: str, since: datetime, until: datetime) -> tuple[Usage, ...]:
        mine = f"{id_key(account)}/"
        return tuple(
            one for one in self.usages if id_key(one.deployment).startswith(mine) and since <= one.hour < until
        )


class FakeTokens:
    """A token is ``tenant/oid``; ``down`` is of an issuer that cannot be reached, ``old`` has expired, all else is
    forged."""

    async def identify(self, credential: Credential, account: str | None) -> Principal | Unknown | None:
        if credential.value == "down":
            return Unknown("unavailable", credential, "its keys cannot be fetched")
        if credential.value == "old":
            return Unknown("claims", credential, "it has expired")
        tenant, slash, oid = credential.value.partition("/")
        if not slash:
            return Unknown("token", credential, "its signature does not hold")
        return Principal(
            kind="entra", id=f"entra:{credential.value}", tenant=tenant, oid=oid, appid="app-1", is_app=True
        )


CATALOGUE: Final = ModelCatalogue(
    [
        {
            "source": {"s": {"title": "t", "url": "u", "date": date(2025, 1, 1), "evidence": "page"}},
            "unit": {"tokens_per_minute": 1000, "requests_per_minute": 6, "source": "s"},
            "model": [
                {
                    "name": REALTIME,
                    "capabilities": ["realtime"],
                    "default": [{"version": "2024-12-17", "since": date(2025, 1, 1)}],
                    "version": [
                        {
                            "version": "2024-08-01",
                            "stage": "Preview",
                            "source": "s",
                            "retirement": date(2025, 2, 1),
                        },
                        {
                            "version": "2024-10-01",
                            "stage": "Preview",
                            "source": "s",
                            "deprecation": date(2025, 2, 1),
                            "retirement": date(2025, 3, 26),
                        },
                        {
                            "version": "2024-12-17",
                            "stage": "Preview",
                            "source": "s",
                            "retirement_not_before": date(2026, 1, 1),
                        },
                    ],
                },
                {
                    "name": MINI,
                    "capabilities": ["chat"],
                    "default": [{"version": "2024-07-18", "since": date(2025, 1, 1)}],
                    "version": [
                        {
                            "version": "2024-07-18",
                            "stage": "GenerallyAvailable",
                            "source": "s",
                            "retirement": date(2026, 1, 1),
                        }
                    ],
                },
            ],
            "availability": [
                {
                    "sku": "GlobalStandard",
                    "source": "s",
                    "versions": [f"{REALTIME} 2024-08-01", f"{REALTIME} 2024-10-01", f"{REALTIME} 2024-12-17"],
                    "regions": ["eastus2", "swedencentral"],
                },
                {
                    "sku": "Standard",
                    "source": "s",
                    "versions": [f"{MINI} 2024-07-18"],
                    "regions": ["swedencentral"],
                },
                {
                    "sku": "ProvisionedManaged",
                    "source": "s",
                    "versions": [f"{MINI} 2024-07-18"],
                    "regions": ["eastus2", "swedencentral"],
                },
            ],
            "quota": [
                {
                    "model": REALTIME,
                    "sku": "GlobalStandard",
                    "tokens_per_minute": 100_000,
                    "requests_per_minute": 600,
                    "source": "s",
                }
            ],
            "throughput": [
                {
                    "model": MINI,
                    "global_minimum": 15,
                    "global_step": 5,
                    "regional_minimum": 25,
                    "regional_step": 25,
                    "input_tokens_per_minute": 37_000,
                    "output_tokens_per_minute": 12_333,
                    "source": "s",
                }
            ],
        }
    ]
)
"""A realtime model of three versions, one retired, one closed to new customers; one that only Sweden has as
standard, and that is sold in PTU."""


def directory() -> Directory:
    """A declared account with a declared deployment, and four that were made."""

    def account(of: str, location: str, tenant: str, *, declared: bool = False) -> Account:
        parts = of.split("/")
        return Account(
            subscription=parts[2],
            resource_group=parts[4],
            name=parts[8],
            location=location,
            tenant=tenant,
            declared=declared,
            etag="" if declared else '"0"',
        )

    def assigned(number: int, scope: str, role: str, principal: str) -> RoleAssignment:
        return RoleAssignment(
            id=f"{scope}/providers/Microsoft.Authorization/roleAssignments/00000000-0000-0000-0000-{number:012}",
            scope=scope,
            role=role,
            principal_id=principal,
            principal_type="ServicePrincipal",
            declared=True,
        )

    return Directory(
        [
            account(DECLARED, "eastus2", TENANT, declared=True),
            account(BANK, "eastus2", TENANT),
            account(SWEDEN, "swedencentral", TENANT),
            account(TUNING, "eastus2", TENANT),
            account(FAR, "swedencentral", OTHER_TENANT),
        ],
        deployments=[
            DeploymentRecord(
                account=DECLARED,
                name="old-hand",
                sku=Sku("GlobalStandard", 10_000),
                model=Model(REALTIME, "2024-12-17"),
                recipe="house/old-hand",
                declared=True,
            )
        ],
        assignments=[
            assigned(1, SUB, "Owner", OWNER),
            assigned(2, OTHER_SUB, "Owner", OWNER),
            assigned(3, BANK, "Cognitive Services OpenAI Contributor", CONTRIBUTOR),
            assigned(4, BANK, "Cognitive Services OpenAI User", USER),
            assigned(5, FAR, "Cognitive Services OpenAI Contributor", ABROAD),
        ],
    )


class Api:
    """The management API, asked as somebody."""

    def __init__(
        self, *, page: int = 100, per_account: int = 3, per_region: int = 4, capacity: int | None = None
    ) -> None:
        self.store = FakeStore(directory())
        self.states: dict[str, State] = {}
        self.recipes: dict[str, str] = {
            REALTIME: "preview",
            FINE_TUNED: "tuned",
            "my-own": "own",
            "gpt-4o-mini": "p",
        }
        self.faults: dict[str, str] = {}
        """Of recipes that could not do their work."""
        self.records: list[tuple[Any, ...]] = []
        rules = Rules(
            CATALOGUE,
            limits=LimitSettings(
                deployments_per_account=per_account, accounts_per_region=per_region, ptus_per_region=200
            ),
            day=NOW.date,
            capacities=()
            if capacity is None
            else (CapacitySettings(location="East US 2", sku="ProvisionedManaged", units=capacity),),
        )
        offers = Offers(rules)
        deployments = DeploymentOperations(
            self.store,
            rules,
            offers,
            lambda model: self.recipes.get(model.name),
            lambda record: self.states.get(record.name, "Succeeded"),
            lambda record: (
                None if "Provisioned" in record.sku.name else (record.sku.capacity * 1000, record.sku.capacity * 6)
            ),
            fault_of=lambda record: self.faults.get(record.recipe),
            page=page,
        )
        self._management = Management(
            self.store,
            Identities([FakeTokens()], Throttle(lambda: 0.0, failures=3, account_failures=100, window_s=60.0)),
            deployments,
            Accounts(self.store, rules, offers, page=page),
            RoleAssignments(self.store, page=page),
            Lists(self.store, rules, offers, deployments, clock=lambda: NOW, page=page),
            configured=[SubscriptionSettings(id="sub-1", tenant=TENANT, name="House", resource_groups=("empty",))],
            record=lambda *values: self.records.append(values),
        )

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        oid: str = OWNER,
        tenant: str = TENANT,
        version: str | None = "2024-10-01",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        asked = dict(query or {})
        if version is not None:
            if "Microsoft.Authorization" in path and version == "2024-10-01":
                version = "2022-04-01"
            elif "/providers/" not in path and version == "2024-10-01":
                version = "2022-12-01"
            asked["api-version"] = version
        sent = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return await self._management.answer(
            Request(
                method=method,
                path=path,
                query=tuple(asked.items()),
                headers={"authorization": f"Bearer {tenant}/{oid}", **(headers or {})},
                body=sent,
                address="192.0.2.1",
                base="https://manage.test:8089",
            )
        )
