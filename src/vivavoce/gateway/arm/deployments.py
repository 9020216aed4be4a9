"""Deployments: the operations on ``.../deployments`` (protocol sections 9.2 and 9.3).

Laws
----
1. A deployment is a model, a sku with a capacity, and the recipe of engines that does its work. What the service
   would not deploy (a model that is not in the region, a retired version, a sku that the model has not, more than
   the quota) is refused; so is what this server has no engines for.
2. ``provisioningState`` is true: ``Succeeded`` means that a client may connect now, ``Creating`` that its engines
   are not ready, ``Disabled`` that its version has ended, ``Failed`` that nothing here does its work any more.
3. Quota is looked at by the store while nobody else can change anything, so that two requests cannot both have the
   last of it. What the configuration declares is its operator's own and takes none. So is capacity, which is of the
   region and for all subscriptions; there what is declared counts.
4. A fine-tuned model of another account needs the right to deploy at both, by a token of each tenant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from vivavoce.gateway import audit
from vivavoce.gateway.arm import bodies, errors
from vivavoce.gateway.arm.accounts import account_of
from vivavoce.gateway.arm.call import PAGE, Answer, Call, Operation, operation_id, target_of
from vivavoce.gateway.arm.offers import MAX_CAPACITY, OfferedSku, Offers
from vivavoce.gateway.arm.routes import Place
from vivavoce.gateway.limits import FINE_TUNED_MARK, Rules
from vivavoce.gateway.models.catalogue import PROVISIONED_SKUS, SKUS
from vivavoce.gateway.provisioned import throughput_of, with_throughput
from vivavoce.gateway.resource import (
    OPENAI_FORMAT,
    PROVIDER,
    Account,
    DeploymentRecord,
    Directory,
    Model,
    Sku,
    VersionUpgradeOption,
    id_key,
    same_id,
    split_account_id,
)
from vivavoce.gateway.roles import allowed
from vivavoce.gateway.store.base import NotFound, Store

WRITE: Final = f"{PROVIDER}/accounts/deployments/write"
RETRY_S: Final = 1
"""Seconds after which it is worth asking again how far a deployment is."""
RAI_POLICIES: Final = ("Microsoft.Default", "Microsoft.DefaultV2")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_TARGETS: Final = {
    "QuotaExceeded": "name",
    "InsufficientQuota": "sku.capacity",
    "InvalidCapacity": "sku.capacity",
    "InvalidResourceProperties": "sku.name",
}
"""What the rules' refusals are about, by their codes; the others are about the model."""

State: TypeAlias = Literal["Succeeded", "Creating", "Disabled", "Failed"]


class DeploymentOperations:
    """What can be done with deployments."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        offers: Offers,
        recipe_for: Callable[[Model], str | None],
        state: Callable[[DeploymentRecord], State],
        rates: Callable[[DeploymentRecord], tuple[int, int] | None],
        *,
        fault_of: Callable[[DeploymentRecord], str | None] = lambda _: None,
        page: int = PAGE,
    ) -> None:
        """``recipe_for``: what would do a model's work, None for nothing. ``state``: whether it does it now.
        ``rates``: tokens and requests per minute that a deployment is held to, None where PTU decide.
        ``fault_of``: why its recipe could not do its work, None where it could."""
        self._store = store
        self._rules = rules
        self._offers = offers
        self._recipe_for = recipe_for
        self._state = state
        self._rates = rates
        self._fault_of = fault_of
        self._page = page
        self.operations: Mapping[str, Operation] = {
            "Deployments_CreateOrUpdate": self._put,
            "Deployments_Update": self._patch,
            "Deployments_Get": self._get,
            "Deployments_List": self._list,
            "Deployments_Delete": self._delete,
            "Deployments_ListSkus": self._skus,
            "OperationResults_Get": self._operation,
        }

    async def _get(self, call: Call) -> Answer:
        return self._shown(200, _record_of(call), call)

    async def _list(self, call: Call) -> Answer:
        account = account_of(call)
        records = call.directory.deployments(account.id)
        return call.page(records, lambda one: one.name, lambda one: self._body(one, account), self._page)

    async def _delete(self, call: Call) -> Answer:
        account = account_of(call)
        record = call.directory.deployment(account.id, call.place.deployment)
        if record is None:
            return Answer(204)
        user = next((one for one in call.directory.deployments(account.id) if _spills_into(one, record)), None)
        if user is not None:
            raise errors.conflict(f"The deployment '{user.name}' spills over into it: change that one first.")
        try:
            await self._store.delete_deployment(account.id, record.name, if_match=call.if_match)
        except NotFound:
            return Answer(204)
        return Answer(200, details=_details(record))

    async def _skus(self, call: Call) -> Answer:
        account, record = account_of(call), _record_of(call)
        shown = []
        for one in self._offers.offered(record.model, account.location).skus:
            own = record.sku.capacity if one.name == record.sku.name else one.minimum
            sku = {"name": one.name, "capacity": own}
            kind = f"{PROVIDER}/accounts/deployments"
            shown.append({"resourceType": kind, "sku": sku, "capacity": capacity(one)})
        return Answer(200, {"value": shown})

    async def _operation(self, call: Call) -> Answer:
        name = call.asked.names["operationId"]
        place = Place.parse(target_of(name) or "")
        if place is None or not place.deployment or not same_id(place.subscription, call.place.subscription):
            raise errors.operation_not_found(name)
        if not call.may(call.asked.route.action, place.scope):
            raise errors.authorization_failed(call.client, call.oid, call.asked.route.action, place.scope)
        record = call.directory.deployment(place.account_id, place.deployment)
        state = "Failed" if record is None else self._state(record)
        body: dict[str, Any] = {"id": call.request.path, "name": name, "status": state}
        if state == "Failed":
            gone = errors.deployment_not_found(place.deployment, place.account)
            lost = errors.no_recipe("" if record is None else record.model.full_name)
            body |= (gone if record is None else lost).body()
        return Answer(200, body, {} if state != "Creating" else {"Retry-After": str(RETRY_S)})

    # ------------------------------------------------------------------------------------------------- changes

    async def _put(self, call: Call) -> Answer:
        account = account_of(call)
        name = call.place.deployment
        there = call.directory.deployment(account.id, name)
        sent = bodies.parse(call.request.body, bodies.DeploymentBody)
        if there is None and _NAME.fullmatch(name) is None:
            problem = "1 to 64 letters, digits, hyphens, underscores and periods, the first a letter or a digit."
            raise errors.invalid_name("deployment", name, problem)
        if sent.sku is None:
            raise errors.sku_missing()
        properties = sent.properties or bodies.DeploymentPropertiesBody()
        _check_unsupported(properties)
        model = self._model(call, account, properties.model)
        offered = self._offered_sku(sent.sku, model, account.location)
        sku = _sku(sent.sku, offered)
        record = DeploymentRecord(
            account=account.id,
            name=name if there is None else there.name,
            sku=sku,
            model=model,
            recipe="",
            version_upgrade_option=_upgrade_option(properties.version_upgrade_option),
            rai_policy_name=_rai_policy(properties.rai_policy_name),
            spillover_deployment_name=_spillover(call, account, name, sku, properties.spillover_deployment_name),
            tags=bodies.check_tags(sent.tags or {}),
        )
        # What the service would refuse comes before what is missing here.
        self._check_rules(call.directory, record)
        _check_size(record, offered)
        recipe = self._recipe_for(model)
        if recipe is None:
            raise errors.no_recipe(model.full_name)
        record = replace(record, recipe=recipe)
        fault = self._fault_of(record)
        if fault is not None:
            raise errors.useless_recipe(model.full_name, fault)
        self._check_throughput(record)
        return await self._save(call, account, record, offered, created=201)

    async def _patch(self, call: Call) -> Answer:
        account, there = account_of(call), _record_of(call)
        sent = bodies.parse(call.request.body, bodies.DeploymentPatchBody)
        record = replace(there, tags=there.tags if sent.tags is None else bodies.check_tags(sent.tags))
        offered = self._offers.sku(there.model.name, there.sku.name, account.location)
        if sent.sku is not None:
            offered = self._offered_sku(sent.sku, there.model, account.location)
            record = replace(record, sku=_sku(sent.sku, offered))
            self._check_rules(call.directory, record)
            _check_size(record, offered)
            self._check_throughput(record)
        return await self._save(call, account, record, offered, created=200)

    async def _save(
        self, call: Call, account: Account, record: DeploymentRecord, sku: OfferedSku, *, created: int
    ) -> Answer:
        def check(directory: Directory) -> None:
            self._check_room(directory, account, record, sku)

        put = await self._store.put_deployment(
            record,
            by=call.actor,
            if_match="*" if created == 200 and call.if_match is None else call.if_match,
            if_none_match=call.if_none_match,
            check=check,
        )
        if created == 200 and self._state(put.value) == "Creating":
            return self._shown(202, put.value, call)
        return self._shown(created if put.created else 200, put.value, call)

    def _check_room(
        self, directory: Directory, account: Account, record: DeploymentRecord, sku: OfferedSku
    ) -> None:
        """Of the account and of the quota; inside the change. Tags may change whatever else has."""
        there = directory.deployment(account.id, record.name)
        if there is None or (there.model, there.sku) != (record.model, record.sku):
            self._check_rules(directory, record)
        own = 0 if there is None or self.usage_of(account, there) != sku.usage else there.sku.capacity
        more = record.sku.capacity - own
        if more <= 0:
            return
        if sku.limit is not None:
            used = self.used(directory, account.subscription, account.location).get(sku.usage, 0)
            if used + more > sku.limit:
                raise errors.insufficient_quota(sku.title, more, used, sku.limit)
        left = self._rules.units_left(sku.name, account.location, directory)
        if left is not None and more > left:
            raise errors.no_capacity(sku.name, account.location, more, left)

    def available(self, directory: Directory, subscription: str, location: str, sku: OfferedSku) -> int:
        """The largest deployment that a subscription could make now: what is left of its quota, and of the
        region's capacity."""
        bounds = [MAX_CAPACITY]
        if sku.limit is not None:
            bounds.append(sku.limit - self.used(directory, subscription, location).get(sku.usage, 0))
        if is_provisioned(sku.name):
            bounds.append(self._rules.limits.ptus_per_deployment)
            left = self._rules.units_left(sku.name, location, directory)
            bounds += [] if left is None else [left]
        return max(0, min(bounds))

    def _check_rules(self, directory: Directory, record: DeploymentRecord) -> None:
        """Whether the service would deploy it. Raises ArmError."""
        refusal = self._rules.deployment(record, directory)
        if refusal is not None:
            raise errors.refused(refusal, _TARGETS.get(refusal.code, "properties.model"))

    def _check_throughput(self, record: DeploymentRecord) -> None:
        """Whether a provisioned deployment could be counted. Raises ArmError."""
        catalogue = self._offers.catalogue
        if is_provisioned(record.sku.name) and throughput_of(record.model.name, catalogue) is None:
            raise errors.no_throughput(record.model.name, ", ".join(with_throughput(catalogue)))

    def used(self, directory: Directory, subscription: str, location: str) -> dict[str, int]:
        """Capacity that a subscription has given to deployments in a region, by the name of the quota."""
        used: dict[str, int] = {}
        for account in directory.accounts:
            if same_id(account.subscription, subscription) and same_id(account.location, location):
                for record in directory.deployments(account.id):
                    if not record.declared:
                        usage = self.usage_of(account, record)
                        used[usage] = used.get(usage, 0) + record.sku.capacity
        return used

    def usage_of(self, account: Account, record: DeploymentRecord) -> str:
        """Name of the quota that a deployment takes from."""
        return self._offers.sku(record.model.name, record.sku.name, account.location).usage

    # --------------------------------------------------------------------------------------------- what it runs

    def _model(self, call: Call, account: Account, sent: bodies.ModelBody | None) -> Model:
        if sent is None or not sent.name:
            raise errors.invalid_property("The model of a deployment is not provided.", "properties.model.name")
        if sent.format != OPENAI_FORMAT:
            text = f"The model format '{sent.format or ''}' is not supported. It is '{OPENAI_FORMAT}', written so."
            raise errors.invalid_property(text, "properties.model.format")
        for field, value in (("source", sent.source), ("publisher", sent.publisher)):
            if value is not None and not (field == "publisher" and value == OPENAI_FORMAT):
                raise errors.invalid_property(f"'{field}' is not supported.", f"properties.model.{field}")
        source = None
        if sent.source_account is not None:
            source = self._source(call, account, sent.name, sent.source_account)
        version = sent.version or self._rules.default_version(sent.name) or ""
        return Model(sent.name, version, OPENAI_FORMAT, source)

    def _source(self, call: Call, account: Account, model: str, source_id: str) -> str:
        """Law 4. The id of the source, as it was written when it was made. Raises ArmError."""
        path = "properties.model.sourceAccount"
        parts = split_account_id(source_id)
        if parts is None:
            raise errors.linked_property_invalid(source_id, path)
        if FINE_TUNED_MARK not in model:
            text = f"'sourceAccount' is for fine-tuned models. The model '{model}' is none."
            raise errors.invalid_property(text, path)
        subscription = call.subscriptions.get(id_key(parts[0]))
        if subscription is None:
            raise errors.linked_authorization_failed(
                call.client, call.oid, WRITE, call.place.scope, WRITE, source_id
            )
        who = call.principal
        source = call.directory.account(source_id)
        tenant = (subscription.tenant if source is None else source.tenant).lower()
        if who.tenant is not None and who.tenant != tenant:
            found = next((one for one in call.auxiliary if one.tenant == tenant), None)
            if found is None:
                raise errors.linked_tenant_not_authorized(WRITE, call.place.scope, who.tenant, subscription.id)
            who = found
        # First the right, then whether it is there: nobody learns from a refusal what another tenant has.
        if not allowed(call.directory, who, WRITE, source_id, tenant=tenant) or source is None:
            raise errors.linked_authorization_failed(
                who.appid or who.oid or who.id, who.oid or who.id, WRITE, call.place.scope, WRITE, source_id
            )
        if same_id(source.id, account.id):
            raise errors.invalid_property("'sourceAccount' is another account than the deployment's.", path)
        return source.id

    def _offered_sku(self, sent: bodies.SkuBody, model: Model, location: str) -> OfferedSku:
        for field, value in (("tier", sent.tier), ("size", sent.size), ("family", sent.family)):
            if value is not None:
                raise errors.invalid_property("The sku of a deployment has a name and a capacity.", f"sku.{field}")
        name = next((one for one in SKUS if one.lower() == sent.name.lower()), None)
        if name is None:
            raise errors.sku_unknown(sent.name)
        return self._offers.sku(model.name, name, location)

    # ------------------------------------------------------------------------------------------------- showing

    def _shown(self, status: int, record: DeploymentRecord, call: Call) -> Answer:
        body = self._body(record, account_of(call))
        headers = {"ETag": record.etag} if record.etag else {}
        if status != 200 or call.request.method != "GET":
            place = call.place
            if body["properties"]["provisioningState"] == "Creating":
                location = account_of(call).location
                path = (
                    f"/subscriptions/{place.subscription}/providers/{PROVIDER}/locations/{location}"
                    f"/operationResults/{operation_id(record.id)}"
                )
                headers |= {"Azure-AsyncOperation": call.link(path), "Retry-After": str(RETRY_S)}
        return Answer(status, body, headers, _details(record))

    def _body(self, record: DeploymentRecord, account: Account) -> dict[str, Any]:
        rates = self._rates(record)
        limits = [] if rates is None else rate_limits(*rates)
        capabilities = self._offers.offered(record.model, account.location).capabilities
        return bodies.deployment(record, state=self._state(record), capabilities=capabilities, rate_limits=limits)


def rate_limits(tokens_per_minute: int, requests_per_minute: int) -> list[dict[str, Any]]:
    """As ``rateLimits`` tells them: requests of 10 seconds, tokens of a minute."""
    return [
        {"key": "request", "renewalPeriod": 10, "count": requests_per_minute / 6},
        {"key": "token", "renewalPeriod": 60, "count": tokens_per_minute},
    ]


def capacity(sku: OfferedSku) -> dict[str, int]:
    """As ``CapacityConfig`` tells it."""
    most = MAX_CAPACITY if sku.limit is None else max(sku.limit, sku.minimum)
    return {"minimum": sku.minimum, "maximum": most, "step": sku.step, "default": sku.minimum}


def _sku(sent: bodies.SkuBody, offered: OfferedSku) -> Sku:
    return Sku(offered.name, offered.minimum if sent.capacity is None else sent.capacity)


def _check_size(record: DeploymentRecord, offered: OfferedSku) -> None:
    wanted = record.sku.capacity
    if wanted < 1 or wanted > MAX_CAPACITY:
        text = f"The capacity {wanted} is invalid: it goes from 1 to {MAX_CAPACITY}."
        raise errors.invalid_property(text, "sku.capacity")
    if wanted < offered.minimum or (wanted - offered.minimum) % offered.step:
        text = (
            f"The capacity {wanted} of the SKU '{offered.name}' is invalid for the model '{record.model.name}': it "
            f"begins with {offered.minimum}, in steps of {offered.step}."
        )
        raise errors.invalid_property(text, "sku.capacity")


def _record_of(call: Call) -> DeploymentRecord:
    found = call.directory.deployment(call.place.account_id, call.place.deployment)
    if found is None:
        raise errors.deployment_not_found(call.place.deployment, call.place.account)
    return found


def _spills_into(one: DeploymentRecord, other: DeploymentRecord) -> bool:
    name = one.spillover_deployment_name
    return name is not None and same_id(name, other.name)


def _check_unsupported(properties: bodies.DeploymentPropertiesBody) -> None:
    if properties.scale_settings is not None:
        text = (
            "The scale settings of account deployment is deprecated since API version '2023-05-01', please use "
            "'sku' instead."
        )
        raise errors.invalid_property(text, "properties.scaleSettings")
    for field, value in (
        ("capacitySettings", properties.capacity_settings),
        ("parentDeploymentName", properties.parent_deployment_name),
    ):
        if value is not None:
            raise errors.invalid_property(f"'{field}' is not supported.", f"properties.{field}")


def _upgrade_option(given: str | None) -> VersionUpgradeOption | None:
    if given is None:
        return None
    known = get_args(VersionUpgradeOption)
    found = next((one for one in known if one.lower() == given.lower()), None)
    if found is None:
        text = f"The version upgrade option '{given}' is invalid. It is one of {', '.join(known)}."
        raise errors.invalid_property(text, "properties.versionUpgradeOption")
    return cast(VersionUpgradeOption, found)


def _rai_policy(given: str | None) -> str | None:
    if given is None:
        return None
    found = next((one for one in RAI_POLICIES if one.lower() == given.lower()), None)
    if found is None:
        text = f"The RAI policy '{given}' does not exist in this account. There are {' and '.join(RAI_POLICIES)}."
        raise errors.invalid_property(text, "properties.raiPolicyName")
    return found


def _spillover(call: Call, account: Account, name: str, sku: Sku, given: str | None) -> str | None:
    if given is None:
        return None
    path = "properties.spilloverDeploymentName"
    if not is_provisioned(sku.name):
        raise errors.invalid_property("Only a provisioned deployment spills over.", path)
    other = call.directory.deployment(account.id, given)
    if other is None or same_id(given, name) or is_provisioned(other.sku.name):
        text = f"'{given}' is not a standard deployment of this account."
        raise errors.invalid_property(text, path)
    return other.name


def is_provisioned(sku: str) -> bool:
    """Its capacity is PTU."""
    return sku in PROVISIONED_SKUS


def _details(record: DeploymentRecord) -> audit.Details:
    return audit.Details(
        sku=record.sku.name,
        capacity=record.sku.capacity,
        model=record.model.name,
        version=record.model.version,
        version_upgrade_option=record.version_upgrade_option,
        source_account=record.model.source_account,
    )
