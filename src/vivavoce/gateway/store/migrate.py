"""The database as this version needs it: made, or brought up to date, by whichever process is first."""

from __future__ import annotations

import logging
from typing import Final

from alembic import command
from alembic.config import Config as Alembic
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

logger = logging.getLogger(__name__)

_LOCATION: Final = "vivavoce.gateway.store:migrations"
_LOCK: Final = 0x76697661766F63
"""Of PostgreSQL's advisory locks; the letters of our name."""


def migrate(connection: Connection, to: str = "head") -> None:
    """Within a transaction of the connection that may write; who else migrates waits for its end. Raises what
    SQLAlchemy and Alembic raise.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    # It tells each step of its own, and nothing that helps.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    before = revision_of(connection)
    command.upgrade(alembic(connection), to)
    after = revision_of(connection)
    if before != after:
        logger.info("store: the database is brought from version %s to %s", before or "none", after)


def revision_of(connection: Connection) -> str | None:
    """The migration that the database is at; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def alembic(connection: Connection) -> Alembic:
    """What Alembic's commands want."""
    config = Alembic(attributes={"connection": connection})
    config.set_main_option("script_location", _LOCATION)
    return config
