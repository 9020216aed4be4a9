"""From every version of the database to today's, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgres_server import Postgres
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url

from vivavoce.gateway.store.migrate import alembic, migrate, revision_of
from vivavoce.gateway.store.sql import make_engine
from vivavoce.gateway.store.tables import METADATA


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    if request.param == "sqlite":
        return make_engine(make_url(f"sqlite:///{tmp_path}/store.db"))
    server: Postgres = request.getfixturevalue("postgres_server")
    return make_engine(make_url(server.new_schema()))


def versions(connection: Connection) -> list[str]:
    """From the first to the newest."""
    scripts = ScriptDirectory.from_config(alembic(connection))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def test_the_migrations_make_the_tables_of_today(engine: Engine) -> None:
    with engine.begin() as connection:
        migrate(connection)
        assert revision_of(connection) == versions(connection)[-1]
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_what_the_first_version_kept_is_kept_through_all(engine: Engine) -> None:
    with engine.begin() as connection:
        first, *later = versions(connection)
        assert revision_of(connection) is None
        migrate(connection, first)
        connection.execute(text("INSERT INTO state (id, revision, secret_mark) VALUES (1, 41, 'mark')"))
        connection.execute(
            text(
                "INSERT INTO accounts VALUES ('/k', 's', 'g', 'n', 'l', 't', 'd', '{}', 'e', 'a', 'User', 1, 'b',"
                " 'User', 2)"
            )
        )
        for version in later:
            migrate(connection, version)
        migrate(connection)
        assert connection.execute(text("SELECT revision, secret_mark FROM state")).all() == [(41, "mark")]
        assert connection.execute(text("SELECT name, created_at FROM accounts")).all() == [("n", 1)]
    engine.dispose()


def test_a_migration_that_fails_leaves_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Exception):
        pass

    def migrated_and_broken() -> None:
        with engine.begin() as connection:
            migrate(connection)
            raise Broken

    with pytest.raises(Broken):
        migrated_and_broken()
    with engine.connect() as connection:
        assert revision_of(connection) is None
    engine.dispose()
