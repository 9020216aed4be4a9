"""The tables of the store. ``migrations/`` makes them; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

METADATA: Final = MetaData()


class Moment(TypeDecorator[datetime]):
    """An aware time, kept as microseconds since 1970, so that no database makes it a local one."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(microseconds=value)


def _system_data() -> list[Column[Any]]:
    return [
        Column("etag", String, nullable=False),
        Column("created_by", String, nullable=False),
        Column("created_by_type", String, nullable=False),
        Column("created_at", Moment, nullable=False),
        Column("modified_by", String, nullable=False),
        Column("modified_by_type", String, nullable=False),
        Column("modified_at", Moment, nullable=False),
    ]


STATE: Final = Table(
    "state",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", BigInteger, nullable=False),
    Column("secret_mark", String, nullable=False),
)
"""One row. Whoever makes a change writes to it first, so changes come one after the other."""

ACCOUNTS: Final = Table(
    "accounts",
    METADATA,
    Column("key", String, primary_key=True),
    Column("subscription", String, nullable=False),
    Column("resource_group", String, nullable=False),
    Column("name", String, nullable=False),
    Column("location", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("subdomain", String, nullable=False, unique=True),
    Column("tags", JSON, nullable=False),
    *_system_data(),
)
"""``key``, here and below: an id in the form in which ids are compared."""

KEYS: Final = Table(
    "account_keys",
    METADATA,
    Column("account", String, primary_key=True),
    Column("slot", String, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("generation", BigInteger, nullable=False),
)
"""``account``: the key of an account of ``accounts``."""

DEPLOYMENTS: Final = Table(
    "deployments",
    METADATA,
    Column("key", String, primary_key=True),
    Column("account", String, nullable=False),
    Column("name", String, nullable=False),
    Column("sku_name", String, nullable=False),
    Column("sku_capacity", BigInteger, nullable=False),
    Column("model_format", String, nullable=False),
    Column("model_name", String, nullable=False),
    Column("model_version", String, nullable=False),
    Column("model_source_account", String),
    Column("recipe", String, nullable=False),
    Column("version_upgrade_option", String),
    Column("rai_policy_name", String),
    Column("spillover_deployment_name", String),
    Column("provisioning_state", String, nullable=False),
    Column("tags", JSON, nullable=False),
    *_system_data(),
)
"""``account``: the id of an account of ``accounts``, or of one that is declared, as it was written there."""

ASSIGNMENTS: Final = Table(
    "role_assignments",
    METADATA,
    Column("key", String, primary_key=True),
    Column("id", String, nullable=False),
    Column("scope_key", String, nullable=False),
    Column("scope", String, nullable=False),
    Column("role", String, nullable=False),
    Column("principal_id", String, nullable=False),
    Column("principal_type", String, nullable=False),
    *_system_data(),
    UniqueConstraint("scope_key", "role", "principal_id", name="uq_role_assignments"),
)

USAGE: Final = Table(
    "usage",
    METADATA,
    Column("deployment", String, primary_key=True),
    Column("hour", Moment, primary_key=True),
    Column("account", String, nullable=False),
    Column("deployment_id", String, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Index("ix_usage_account_hour", "account", "hour"),
)
"""``deployment`` and ``account`` are keys."""
