"""Run by Alembic, on the connection that ``migrate`` gives: in its transaction, and under its lock."""

from __future__ import annotations

from alembic import context

from vivavoce.gateway.store.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
context.run_migrations()
