"""Carries out the upgrades of stored deployments that are due (``lifecycle.due_version``).

Every process of a server does it: whoever is first changes the deployment, and by its etag nobody does it twice.
Sessions that are open keep the version that they began with; the store tells everybody else.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from vivavoce.gateway.audit import SERVER, Audit, Details
from vivavoce.gateway.limits import Rules
from vivavoce.gateway.models.lifecycle import due_version
from vivavoce.gateway.resource import DeploymentRecord
from vivavoce.gateway.store.base import Actor, Store, StoreError, StoreUnavailable

log = logging.getLogger(__name__)

LOOK_S: Final = 900.0
"""Seconds after which it is looked again what is due: days begin at midnight, UTC."""
ACTION: Final = "Microsoft.CognitiveServices/accounts/deployments/write"
_BY: Final = Actor(SERVER.id, "Application")


class Upgrades:
    """Of the deployments of one store."""

    def __init__(self, store: Store, rules: Rules, audit: Audit) -> None:
        self._store = store
        self._rules = rules
        self._audit = audit

    async def run(self) -> None:
        """Look at once, and then regularly."""
        while True:
            try:
                await self.look()
            except StoreUnavailable:
                log.warning("the store does not answer: upgrades of deployments wait")
            except Exception as bug:
                log.error("a bug, upgrades of deployments wait: %s", type(bug).__name__)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Upgrade what is due. Raises StoreUnavailable."""
        if self._rules.models.lifecycle == "off":
            return
        directory = await self._store.directory()
        for account in directory.accounts:
            for record in directory.deployments(account.id):
                # What is declared has the version that the file says.
                version = None if record.declared else self._due(record)
                if version is not None:
                    await self._upgrade(record, version)

    def _due(self, record: DeploymentRecord) -> str | None:
        return due_version(
            record.model,
            record.sku.name,
            record.version_upgrade_option,
            self._rules.catalogue,
            self._rules.day(),
        )

    async def _upgrade(self, record: DeploymentRecord, version: str) -> None:
        upgraded = replace(record, model=replace(record.model, version=version))
        try:
            await self._store.put_deployment(upgraded, by=_BY, if_match=record.etag)
        except StoreError as refused:
            # Another process has done it, or somebody has changed or deleted it meanwhile.
            log.info("deployment %s is not upgraded now: %s", record.id, type(refused).__name__)
            return
        log.info("deployment %s is upgraded from %s to version %s", record.id, record.model.full_name, version)
        details = Details(
            model=record.model.name,
            version=version,
            version_before=record.model.version,
            version_upgrade_option=record.version_upgrade_option,
        )
        self._audit.record(SERVER, ACTION, record.id, "done", details)
