"""Rows of the tables, and what they are rows of."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Row, select

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
)
from vivavoce.gateway.store.declared import Declared
from vivavoce.gateway.store.tables import ACCOUNTS, ASSIGNMENTS, DEPLOYMENTS, KEYS

_SYSTEM_DATA: Final = SystemData.__slots__


def read_directory(connection: Connection, declared: Declared, revision: int) -> Directory:
    """All that is there, within a transaction that sees one moment."""
    accounts = [_account(row) for row in connection.execute(select(ACCOUNTS).order_by(*_age(ACCOUNTS)))]
    ids = {id_key(account.id): account.id for account in accounts}
    for account in declared.accounts:
        # It may have been made here before the file declared it: what opens it now is in the file.
        ids.pop(id_key(account.id), None)
    keys = connection.execute(select(KEYS).order_by(KEYS.c.account, KEYS.c.slot))
    return declared.directory(
        accounts=accounts,
        keys=[
            AccountKey(account=ids[row.account], slot=row.slot, digest=row.digest, generation=row.generation)
            for row in keys
            if row.account in ids
        ],
        deployments=map(_deployment, connection.execute(select(DEPLOYMENTS).order_by(*_age(DEPLOYMENTS)))),
        assignments=map(_assignment, connection.execute(select(ASSIGNMENTS).order_by(*_age(ASSIGNMENTS)))),
        revision=revision,
    )


def _age(table: Any) -> tuple[Any, Any]:
    """The oldest first, and always in one order."""
    return table.c.created_at, table.c.key


def account_row(account: Account) -> dict[str, Any]:
    return {
        "key": id_key(account.id),
        "subscription": account.subscription,
        "resource_group": account.resource_group,
        "name": account.name,
        "location": account.location,
        "tenant": account.tenant,
        "subdomain": account.subdomain,
        "tags": dict(account.tags),
        **_system_row(account),
    }


def _account(row: Row[Any]) -> Account:
    return Account(
        subscription=row.subscription,
        resource_group=row.resource_group,
        name=row.name,
        location=row.location,
        tenant=row.tenant,
        subdomain=row.subdomain,
        tags=row.tags,
        etag=row.etag,
        system_data=_system_data(row),
    )


def deployment_row(record: DeploymentRecord) -> dict[str, Any]:
    return {
        "key": id_key(record.id),
        "account": record.account,
        "name": record.name,
        "sku_name": record.sku.name,
        "sku_capacity": record.sku.capacity,
        "model_format": record.model.format,
        "model_name": record.model.name,
        "model_version": record.model.version,
        "model_source_account": record.model.source_account,
        "recipe": record.recipe,
        "version_upgrade_option": record.version_upgrade_option,
        "rai_policy_name": record.rai_policy_name,
        "spillover_deployment_name": record.spillover_deployment_name,
        "provisioning_state": record.provisioning_state,
        "tags": dict(record.tags),
        **_system_row(record),
    }


def _deployment(row: Row[Any]) -> DeploymentRecord:
    return DeploymentRecord(
        account=row.account,
        name=row.name,
        sku=Sku(row.sku_name, row.sku_capacity),
        model=Model(row.model_name, row.model_version, row.model_format, row.model_source_account),
        recipe=row.recipe,
        version_upgrade_option=row.version_upgrade_option,
        rai_policy_name=row.rai_policy_name,
        spillover_deployment_name=row.spillover_deployment_name,
        provisioning_state=row.provisioning_state,
        tags=row.tags,
        etag=row.etag,
        system_data=_system_data(row),
    )


def assignment_row(assignment: RoleAssignment) -> dict[str, Any]:
    return {
        "key": id_key(assignment.id),
        "id": assignment.id,
        "scope_key": id_key(assignment.scope),
        "scope": assignment.scope,
        "role": assignment.role,
        "principal_id": assignment.principal_id,
        "principal_type": assignment.principal_type,
        **_system_row(assignment),
    }


def _assignment(row: Row[Any]) -> RoleAssignment:
    return RoleAssignment(
        id=row.id,
        scope=row.scope,
        role=row.role,
        principal_id=row.principal_id,
        principal_type=row.principal_type,
        etag=row.etag,
        system_data=_system_data(row),
    )


def _system_row(stored: Account | DeploymentRecord | RoleAssignment) -> dict[str, Any]:
    assert stored.system_data is not None
    return {"etag": stored.etag, **{name: getattr(stored.system_data, name) for name in _SYSTEM_DATA}}


def _system_data(row: Row[Any]) -> SystemData:
    return SystemData(**{name: getattr(row, name) for name in _SYSTEM_DATA})
