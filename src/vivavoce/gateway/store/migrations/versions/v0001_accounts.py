"""Accounts, their keys and deployments, role assignments, usage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """A migration is history: it does not use the tables of today."""

    def system_data() -> list[sa.Column[object]]:
        return [
            sa.Column("etag", sa.String(), nullable=False),
            sa.Column("created_by", sa.String(), nullable=False),
            sa.Column("created_by_type", sa.String(), nullable=False),
            sa.Column("created_at", sa.BigInteger(), nullable=False),
            sa.Column("modified_by", sa.String(), nullable=False),
            sa.Column("modified_by_type", sa.String(), nullable=False),
            sa.Column("modified_at", sa.BigInteger(), nullable=False),
        ]

    op.create_table(
        "state",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("secret_mark", sa.String(), nullable=False),
    )
    op.create_table(
        "accounts",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("subscription", sa.String(), nullable=False),
        sa.Column("resource_group", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("location", sa.String(), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("subdomain", sa.String(), nullable=False, unique=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        *system_data(),
    )
    op.create_table(
        "account_keys",
        sa.Column("account", sa.String(), primary_key=True),
        sa.Column("slot", sa.String(), primary_key=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "deployments",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sku_name", sa.String(), nullable=False),
        sa.Column("sku_capacity", sa.BigInteger(), nullable=False),
        sa.Column("model_format", sa.String(), nullable=False),
        sa.Column("model_name", sa.String(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("model_source_account", sa.String()),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("version_upgrade_option", sa.String()),
        sa.Column("rai_policy_name", sa.String()),
        sa.Column("spillover_deployment_name", sa.String()),
        sa.Column("provisioning_state", sa.String(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        *system_data(),
    )
    op.create_table(
        "role_assignments",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("scope_key", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("principal_id", sa.String(), nullable=False),
        sa.Column("principal_type", sa.String(), nullable=False),
        *system_data(),
        sa.UniqueConstraint("scope_key", "role", "principal_id", name="uq_role_assignments"),
    )
    op.create_table(
        "usage",
        sa.Column("deployment", sa.String(), primary_key=True),
        sa.Column("hour", sa.BigInteger(), primary_key=True),
        sa.Column("account", sa.String(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_usage_account_hour", "usage", ["account", "hour"])
