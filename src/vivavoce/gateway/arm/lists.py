"""Lists that nobody changes: models, skus, quota and usage, subscriptions and resource groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vivavoce.gateway.arm import errors
from vivavoce.gateway.arm.accounts import KIND, SKU, account_of, known_location
from vivavoce.gateway.arm.bodies import time_text
from vivavoce.gateway.arm.call import PAGE, Answer, Call, Operation
from vivavoce.gateway.arm.deployments import DeploymentOperations, capacity
from vivavoce.gateway.arm.offers import Offered, OfferedSku, Offers, region_of
from vivavoce.gateway.arm.places import Subscription
from vivavoce.gateway.arm.routes import ROUTES
from vivavoce.gateway.limits import Rules
from vivavoce.gateway.resource import PROVIDER, Model, id_key, same_id
from vivavoce.gateway.store.base import Store

ACCOUNT_READ: Final = f"{PROVIDER}/accounts/read"
SUBSCRIPTION_READ: Final = "Microsoft.Resources/subscriptions/read"


class Lists:
    """What can be looked up."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        offers: Offers,
        deployments: DeploymentOperations,
        *,
        clock: Callable[[], datetime],
        page: int = PAGE,
    ) -> None:
        """``clock``: now, aware."""
        self._store = store
        self._offers = offers
        self._deployments = deployments
        self._rules = rules
        self._clock = clock
        self._page = page
        self.operations: Mapping[str, Operation] = {
            "Accounts_ListModels": self._account_models,
            "Models_List": self._location_models,
            "LocationBasedModelCapacities_List": self._location_capacities,
            "ModelCapacities_List": self._capacities,
            "Accounts_ListUsages": self._account_usages,
            "Usages_List": self._location_usages,
            "Accounts_ListSkus": self._account_skus,
            "ResourceSkus_List": self._skus,
            "Operations_List": self._operations,
            "Subscriptions_List": self._subscriptions,
            "Subscriptions_Get": self._subscription,
            "ResourceGroups_List": self._groups,
            "ResourceGroups_Get": self._group,
        }

    # ---------------------------------------------------------------------------------------------------- models

    async def _account_models(self, call: Call) -> Answer:
        location = account_of(call).location
        return call.page(self._offers.models(location), _model_key, self._model, self._page)

    async def _location_models(self, call: Call) -> Answer:
        models = self._offers.models(self._location(call))

        def show(one: Offered) -> dict[str, Any]:
            return {"kind": KIND, "skuName": SKU, "model": self._model(one)}

        return call.page(models, _model_key, show, self._page)

    def _model(self, one: Offered) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "format": one.format,
            "name": one.name,
            "version": one.version,
            "isDefaultVersion": one.is_default,
            "skus": [_sku(sku, one) for sku in one.skus],
            "capabilities": dict(one.capabilities),
        }
        if one.lifecycle is not None:
            shown["lifecycleStatus"] = one.lifecycle
        if one.retirement is not None:
            shown["deprecation"] = {"inference": one.retirement}
        return shown

    def _location(self, call: Call) -> str:
        given = call.asked.names["location"]
        name = known_location(self._offers, call.directory, given)
        if name is None:
            raise errors.location_not_available(given, self._offers.regions)
        return name

    # ------------------------------------------------------------------------------------------------- capacities

    async def _location_capacities(self, call: Call) -> Answer:
        return self._capacities_in(call, [self._location(call)])

    async def _capacities(self, call: Call) -> Answer:
        """Of the service's regions, and of those that the subscription's accounts are in."""
        own = (
            one.location for one in call.directory.accounts if same_id(one.subscription, call.place.subscription)
        )
        regions = {region_of(name): name for name in (*own, *self._offers.regions)}
        return self._capacities_in(call, list(regions.values()))

    def _capacities_in(self, call: Call, locations: list[str]) -> Answer:
        model = Model(*(_parameter(call, name) for name in ("modelName", "modelVersion", "modelFormat")))
        place = f"/subscriptions/{call.place.subscription}/providers/{PROVIDER}/locations"
        shown: list[dict[str, Any]] = []
        for location in locations:
            for sku in self._offers.offered(model, location).skus:
                name = f"{model.format}.{model.name}.{model.version}.{sku.name}"
                units = self._deployments.available(call.directory, call.place.subscription, location, sku)
                shown.append(
                    {
                        "id": f"{place}/{location}/modelCapacities/{name}",
                        "type": f"{PROVIDER}/locations/modelCapacities",
                        "name": name,
                        "location": location,
                        "properties": {
                            "model": {"format": model.format, "name": model.name, "version": model.version},
                            "skuName": sku.name,
                            "availableCapacity": units,
                        },
                    }
                )
        return call.page(shown, lambda one: str(one["id"]), lambda one: one, self._page)

    # --------------------------------------------------------------------------------------------- quota and usage

    async def _location_usages(self, call: Call) -> Answer:
        location = self._location(call)
        used = self._deployments.used(call.directory, call.place.subscription, location)
        offered = {sku.usage: sku for one in self._offers.models(location) for sku in one.skus}
        accounts = sum(
            same_id(one.subscription, call.place.subscription) and same_id(one.location, location)
            for one in call.directory.accounts
        )
        shown = [
            _usage(
                "AccountCount",
                "Cognitive Services total account limit",
                accounts,
                self._rules.limits.accounts_per_region,
            )
        ]
        for name, sku in offered.items():
            # Without a limit there is no quota to tell of.
            if sku.limit is not None:
                shown.append(_usage(name, sku.title, used.get(name, 0), sku.limit))
        return call.page(shown, lambda one: one["name"]["value"], lambda one: one, self._page)

    async def _account_usages(self, call: Call) -> Answer:
        """There is no limit in a month, so none is told."""
        now = self._clock()
        since = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        until = (since + timedelta(days=32)).replace(day=1)
        account = account_of(call)
        used = await self._store.usage(account.id, since, until)
        shown = []
        for name, title, total in (
            ("OpenAI.Requests", "Responses", sum(one.requests for one in used)),
            ("OpenAI.InputTokens", "Input tokens", sum(one.input_tokens for one in used)),
            ("OpenAI.OutputTokens", "Output tokens", sum(one.output_tokens for one in used)),
        ):
            shown.append(
                {
                    "name": {"value": name, "localizedValue": title},
                    "unit": "Count",
                    "currentValue": total,
                    "quotaPeriod": f"{(until - since).days}.00:00:00",
                    "nextResetTime": time_text(until),
                    "status": "Included",
                }
            )
        return Answer(200, {"value": shown})

    # ------------------------------------------------------------------------------------------------------ skus

    async def _account_skus(self, call: Call) -> Answer:
        shown = [{"resourceType": f"{PROVIDER}/accounts", "sku": {"name": SKU, "tier": "Standard"}}]
        return Answer(200, {"value": shown})

    async def _skus(self, call: Call) -> Answer:
        def show(location: str) -> dict[str, Any]:
            return {
                "resourceType": "accounts",
                "name": SKU,
                "tier": "Standard",
                "kind": KIND,
                "locations": [location.upper()],
                "restrictions": [],
            }

        return call.page(self._offers.regions, lambda one: one, show, self._page)

    # ------------------------------------------------------------------------------------------- what there is

    async def _operations(self, call: Call) -> Answer:
        shown: dict[str, dict[str, Any]] = {}
        for route in ROUTES:
            if route.action.startswith(f"{PROVIDER}/") and route.action not in shown:
                resource, _, operation = route.action.removeprefix(f"{PROVIDER}/").rpartition("/")
                shown[route.action] = {
                    "name": route.action,
                    "isDataAction": False,
                    "display": {
                        "provider": PROVIDER,
                        "resource": resource,
                        "operation": operation,
                        "description": route.about.replace("`", ""),
                    },
                }
        return call.page(list(shown.values()), lambda one: one["name"], lambda one: one, self._page)

    async def _subscriptions(self, call: Call) -> Answer:
        tenant = call.principal.tenant
        found = [one for one in call.subscriptions.values() if tenant in (None, one.tenant.lower())]
        seen = [one for one in found if self._is_member(call, one)]
        return call.page(seen, lambda one: one.id, _subscription, self._page)

    @staticmethod
    def _is_member(call: Call, one: Subscription) -> bool:
        """Whoever may read it, or an account in it."""
        inside = (account.id for account in call.directory.accounts if same_id(account.subscription, one.id))
        return call.may(SUBSCRIPTION_READ, f"/subscriptions/{one.id}") or any(
            call.may(ACCOUNT_READ, account) for account in inside
        )

    async def _subscription(self, call: Call) -> Answer:
        return Answer(200, _subscription(call.subscriptions[id_key(call.place.subscription)]))

    async def _groups(self, call: Call) -> Answer:
        subscription = call.subscriptions[id_key(call.place.subscription)]
        seen = call.may_read(subscription.groups, lambda name: _group_id(subscription, name))
        return call.page(seen, lambda name: name, lambda name: _group(subscription, name, call), self._page)

    async def _group(self, call: Call) -> Answer:
        subscription = call.subscriptions[id_key(call.place.subscription)]
        name = subscription.group(call.place.group)
        if name is None:
            raise errors.resource_group_not_found(call.place.group)
        return Answer(200, _group(subscription, name, call))


def _parameter(call: Call, name: str) -> str:
    value = call.request.parameter(name)
    if not value:
        raise errors.missing_parameter(name)
    return value


def _model_key(one: Offered) -> str:
    return f"{one.format}.{one.name}.{one.version}"


def _sku(sku: OfferedSku, model: Offered) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": sku.name, "usageName": sku.usage, "capacity": capacity(sku)}
    if model.retirement is not None:
        shown["deprecationDate"] = model.retirement
    return shown


def _usage(name: str, title: str, used: int, limit: int) -> dict[str, Any]:
    return {
        "name": {"value": name, "localizedValue": title},
        "unit": "Count",
        "currentValue": used,
        "limit": limit,
    }


def _subscription(one: Subscription) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/{one.id}",
        "subscriptionId": one.id,
        "tenantId": one.tenant,
        "displayName": one.name,
        "state": "Enabled",
    }


def _group_id(subscription: Subscription, name: str) -> str:
    return f"/subscriptions/{subscription.id}/resourceGroups/{name}"


def _group(subscription: Subscription, name: str, call: Call) -> dict[str, Any]:
    # A group has no place of its own here; the service demands one, and clients read it.
    inside = (one for one in call.directory.accounts if same_id(one.subscription, subscription.id))
    location = next((one.location for one in inside if same_id(one.resource_group, name)), "")
    return {
        "id": _group_id(subscription, name),
        "name": name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": location,
        "properties": {"provisioningState": "Succeeded"},
    }
