"""What is true of a deployment now: whether clients can use it, and the rates that it is held to."""

from __future__ import annotations

from vivavoce.gateway.arm.deployments import State, is_provisioned
from vivavoce.gateway.deployments import Deployment, Deployments
from vivavoce.gateway.limits import Rules
from vivavoce.gateway.resource import DeploymentRecord


class Serving:
    """The deployments that this process serves, as the management API tells of them."""

    def __init__(self, deployments: Deployments, rules: Rules) -> None:
        self._deployments = deployments
        self._rules = rules

    def state(self, record: DeploymentRecord) -> State:
        """``Failed``: nothing here does its work; ``Disabled``: its version has ended; ``Creating``: an engine of
        it does not work now."""
        served = self._served(record)
        if served is None:
            return "Failed"
        if self._rules.has_ended(record):
            return "Disabled"
        failing = set(self._deployments.failing())
        working = failing.isdisjoint(f"{kind} {name}" for kind, name in served.engines.items())
        return "Succeeded" if working else "Creating"

    def rates(self, record: DeploymentRecord) -> tuple[int, int] | None:
        """Tokens and requests per minute; None where its throughput is provisioned, or it is not served."""
        served = self._served(record)
        if served is None or is_provisioned(record.sku.name):
            return None
        return served.tokens_per_minute, served.requests_per_minute

    def _served(self, record: DeploymentRecord) -> Deployment | None:
        return self._deployments.catalogue(record.account).by_name(record.name)
