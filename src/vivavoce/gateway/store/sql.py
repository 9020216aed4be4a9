"""The store in a database: SQLite, or PostgreSQL.

Laws
----
1. A change is one transaction that first raises the revision. That row is locked until its end, so changes come
   one after the other, in all processes, and each sees the directory as it is.
2. The database is asked in threads, never in the event loop; the loop alone writes ``current``, which never goes
   back to an older revision.
3. Nothing in a log or an error tells the URL of the database or a value of a row.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, delete, event, insert, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from vivavoce.config import ConfigError, Secret
from vivavoce.gateway.keys import derived_key, key_digest, secret_mark
from vivavoce.gateway.resource import (
    Account,
    AccountKey,
    DeploymentRecord,
    Directory,
    RoleAssignment,
    SystemData,
    deployment_id,
    id_key,
    same_id,
    split_deployment_id,
)
from vivavoce.gateway.store.base import (
    KEY_SLOTS,
    Actor,
    Check,
    Conflict,
    NotFound,
    PreconditionFailed,
    Put,
    ReadOnly,
    StoreUnavailable,
    Usage,
)
from vivavoce.gateway.store.declared import Declared
from vivavoce.gateway.store.migrate import migrate
from vivavoce.gateway.store.rows import account_row, assignment_row, deployment_row, read_directory
from vivavoce.gateway.store.tables import ACCOUNTS, ASSIGNMENTS, DEPLOYMENTS, KEYS, STATE, USAGE

logger = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
"""Seconds between looks at what other processes have changed."""
_THREADS: Final = 4
_BUSY_S: Final = 30.0
"""Seconds that a change waits for those before it."""

T = TypeVar("T")


class _Unchanged(Exception):
    """Ends a change that has nothing to do, with its result."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result


def make_engine(url: URL) -> Engine:
    """For ``sqlite`` or ``postgresql``. A transaction of an SQLite connection with the option ``writes`` keeps all
    others from writing from its begin on."""
    if url.get_backend_name() != "sqlite":
        return create_engine(
            url, pool_size=_THREADS, pool_pre_ping=True, hide_parameters=True, connect_args={"connect_timeout": 10}
        )
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_S})

    @event.listens_for(engine, "connect")
    def own_transactions(connection: Any, record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


class SqlStore:
    """A :class:`vivavoce.gateway.store.base.Store`; made by :meth:`open`."""

    def __init__(
        self,
        engine: Engine,
        declared: Declared,
        secret: Secret,
        clock: Callable[[], datetime],
        directory: Directory,
    ) -> None:
        self._engine = engine
        self._declared = declared
        self._secret = secret
        self._clock = clock
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="store")
        self._listeners: list[Callable[[Directory], None]] = []
        self.current = directory

    @classmethod
    async def open(
        cls, url: URL, declared: Declared, secret: Secret, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> SqlStore:
        """The database is made or brought up to date. Raises StoreUnavailable, and ConfigError where its keys were
        made with another secret."""
        engine = make_engine(url)

        def prepared() -> Directory:
            with _told():
                if engine.dialect.name == "sqlite":
                    _write_ahead(engine)
                with _writing(engine) as connection:
                    migrate(connection)
                    _know(connection, secret)
                return _read(engine, declared)

        try:
            directory = await asyncio.to_thread(prepared)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, declared, secret, clock, directory)

    async def close(self) -> None:
        """To be called when nobody uses it any more."""
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()

    async def watch(self) -> None:
        """Look every second at what others have changed, until it is cancelled."""
        answers = True
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.directory()
            except Exception as error:
                # A bug too: who looks no more serves what is long gone.
                if answers:
                    what = error if isinstance(error, StoreUnavailable) else f"it cannot be read: {_kind(error)}"
                    logger.warning("store: %s; what was read last still counts", what)
                answers = False
            else:
                if not answers:
                    logger.info("store: the database answers again")
                answers = True

    # ---------------------------------------------------------------------------------------------------- reading

    async def directory(self) -> Directory:
        known = self.current

        def look() -> Directory:
            with _told():
                with self._engine.connect() as connection:
                    if connection.execute(select(STATE.c.revision)).scalar_one() == known.revision:
                        return known
                return _read(self._engine, self._declared)

        self._publish(await self._in_thread(look))
        return self.current

    def follow(self, listener: Callable[[Directory], None]) -> Callable[[], None]:
        self._listeners.append(listener)

        def end() -> None:
            with suppress(ValueError):
                self._listeners.remove(listener)

        return end

    def _publish(self, directory: Directory) -> None:
        if directory.revision <= self.current.revision:
            return
        self.current = directory
        for listener in tuple(self._listeners):
            try:
                listener(directory)
            except Exception as bug:
                logger.error("store: a bug in what follows it: %s", type(bug).__name__)

    # --------------------------------------------------------------------------------------------------- accounts

    async def put_account(
        self,
        account: Account,
        *,
        by: Actor,
        if_match: str | None = None,
        if_none_match: bool = False,
        check: Check | None = None,
    ) -> Put[Account]:
        def change(connection: Connection, before: Directory, revision: int) -> Put[Account]:
            known = before.account(account.id)
            _must_be_ours(account.id, known)
            _must_match(account.id, known, if_match, if_none_match)
            if known is not None and (known.location, known.tenant) != (account.location, account.tenant):
                raise Conflict(account.id, "an account stays in its location and its tenant")
            other = before.account_of_host(account.subdomain)
            if other is not None and not same_id(other.id, account.id):
                raise Conflict(account.id, f"the subdomain '{account.subdomain}' is another account's")
            if check is not None:
                check(before)
            stored = replace(
                account if known is None else replace(known, subdomain=account.subdomain, tags=account.tags),
                declared=False,
                etag=_etag(revision),
                system_data=self._system_data(by, known),
            )
            _put_row(connection, ACCOUNTS, account_row(stored), new=known is None)
            if known is None:
                for slot in KEY_SLOTS:
                    key = self._key(stored.id, slot, revision)
                    connection.execute(insert(KEYS).values(_key_row(key)))
            return Put(stored, known is None)

        return await self._change(change)

    async def delete_account(self, account: str, *, if_match: str | None = None) -> None:
        def change(connection: Connection, before: Directory, revision: int) -> None:
            known = _there(account, before.account(account))
            _must_be_ours(account, known)
            _must_match(account, known, if_match)
            if before.deployments(account):
                raise Conflict(account, "it has deployments: delete them first")
            key = id_key(known.id)
            connection.execute(delete(ACCOUNTS).where(ACCOUNTS.c.key == key))
            connection.execute(delete(KEYS).where(KEYS.c.account == key))
            _forget_assignments(connection, key)

        await self._change(change)

    # ------------------------------------------------------------------------------------------------ deployments

    async def put_deployment(
        self,
        record: DeploymentRecord,
        *,
        by: Actor,
        if_match: str | None = None,
        if_none_match: bool = False,
        check: Check | None = None,
    ) -> Put[DeploymentRecord]:
        def change(connection: Connection, before: Directory, revision: int) -> Put[DeploymentRecord]:
            account = _there(record.account, before.account(record.account))
            known = before.deployment(account.id, record.name)
            _must_be_ours(record.id, known)
            _must_match(record.id, known, if_match, if_none_match)
            if check is not None:
                check(before)
            stored = replace(
                record,
                account=account.id,
                name=record.name if known is None else known.name,
                declared=False,
                etag=_etag(revision),
                system_data=self._system_data(by, known),
            )
            _put_row(connection, DEPLOYMENTS, deployment_row(stored), new=known is None)
            return Put(stored, known is None)

        return await self._change(change)

    async def delete_deployment(self, account: str, name: str, *, if_match: str | None = None) -> None:
        identifier = deployment_id(account, name)

        def change(connection: Connection, before: Directory, revision: int) -> None:
            known = _there(identifier, before.deployment(account, name))
            _must_be_ours(identifier, known)
            _must_match(identifier, known, if_match)
            key = id_key(known.id)
            connection.execute(delete(DEPLOYMENTS).where(DEPLOYMENTS.c.key == key))
            _forget_assignments(connection, key)

        await self._change(change)

    # ------------------------------------------------------------------------------------------- role assignments

    async def put_role_assignment(
        self, assignment: RoleAssignment, *, by: Actor, check: Check | None = None
    ) -> Put[RoleAssignment]:
        def change(connection: Connection, before: Directory, revision: int) -> Put[RoleAssignment]:
            known = before.assignment(assignment.id)
            if known is not None and _grants(known) == _grants(assignment):
                raise _Unchanged(Put(known, False))
            _must_be_ours(assignment.id, known)
            if known is not None:
                raise Conflict(assignment.id, "a role assignment cannot be changed: delete it, and make another")
            if any(_grants(one) == _grants(assignment) for one in before.assignments):
                raise Conflict(assignment.id, "the role assignment already exists")
            if check is not None:
                check(before)
            stored = replace(
                assignment, declared=False, etag=_etag(revision), system_data=self._system_data(by, None)
            )
            _put_row(connection, ASSIGNMENTS, assignment_row(stored), new=True)
            return Put(stored, True)

        return await self._change(change)

    async def delete_role_assignment(self, assignment: str) -> None:
        def change(connection: Connection, before: Directory, revision: int) -> None:
            known = _there(assignment, before.assignment(assignment))
            _must_be_ours(assignment, known)
            connection.execute(delete(ASSIGNMENTS).where(ASSIGNMENTS.c.key == id_key(known.id)))

        await self._change(change)

    # ------------------------------------------------------------------------------------------------------- keys

    async def keys(self, account: str) -> Mapping[str, Secret]:
        directory = await self.directory()
        known = _there(account, directory.account(account))
        if known.declared:
            return self._declared.secrets(known.id)
        return {
            key.slot: derived_key(self._secret, known.id, key.slot, key.generation)
            for key in directory.keys(known.id)
        }

    async def regenerate_key(self, account: str, slot: str) -> AccountKey:
        def change(connection: Connection, before: Directory, revision: int) -> AccountKey:
            known = _there(account, before.account(account))
            _must_be_ours(account, known)
            if all(key.slot != slot for key in before.keys(known.id)):
                raise NotFound(known.id, f"it has no key '{slot}'")
            made = self._key(known.id, slot, revision)
            connection.execute(
                update(KEYS)
                .where(KEYS.c.account == id_key(known.id), KEYS.c.slot == slot)
                .values(digest=made.digest, generation=made.generation)
            )
            return made

        return await self._change(change)

    def _key(self, account: str, slot: str, generation: int) -> AccountKey:
        """A revision never comes again, so as a generation it makes a key that never was."""
        value = derived_key(self._secret, account, slot, generation).reveal()
        return AccountKey(account=account, slot=slot, digest=key_digest(value), generation=generation)

    # ------------------------------------------------------------------------------------------------------ usage

    async def record_usage(self, usages: Iterable[Usage]) -> None:
        rows = [_usage_row(one) for one in usages]
        if not rows:
            return

        def add() -> None:
            # In one order, or two processes could wait for each other.
            rows.sort(key=lambda row: (row["deployment"], row["hour"]))
            with _told(), _writing(self._engine) as connection:
                for row in rows:
                    connection.execute(_added(self._engine.dialect.name, row))

        await self._in_thread(add)

    async def forget_usage(self, before: datetime) -> int:
        def forget() -> int:
            with _told(), _writing(self._engine) as connection:
                return connection.execute(delete(USAGE).where(USAGE.c.hour < before)).rowcount

        return await self._in_thread(forget)

    async def usage(self, account: str, since: datetime, until: datetime) -> tuple[Usage, ...]:
        wanted = (
            select(USAGE)
            .where(USAGE.c.account == id_key(account), USAGE.c.hour >= since, USAGE.c.hour < until)
            .order_by(USAGE.c.hour, USAGE.c.deployment)
        )

        def read() -> tuple[Usage, ...]:
            with _told(), self._engine.connect() as connection:
                return tuple(
                    Usage(
                        deployment=row.deployment_id,
                        hour=row.hour,
                        requests=row.requests,
                        input_tokens=row.input_tokens,
                        output_tokens=row.output_tokens,
                    )
                    for row in connection.execute(wanted)
                )

        return await self._in_thread(read)

    # ------------------------------------------------------------------------------------------------- the inside

    async def _change(self, change: Callable[[Connection, Directory, int], T]) -> T:
        def run() -> tuple[T, Directory]:
            with _told(), _writing(self._engine) as connection:
                raised = update(STATE).values(revision=STATE.c.revision + 1).returning(STATE.c.revision)
                revision = connection.execute(raised).scalar_one()
                before = read_directory(connection, self._declared, revision - 1)
                result = change(connection, before, revision)
                return result, read_directory(connection, self._declared, revision)

        try:
            result, directory = await self._in_thread(run)
        except _Unchanged as unchanged:
            found: T = unchanged.result
            return found
        self._publish(directory)
        return result

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _system_data(self, by: Actor, known: Account | DeploymentRecord | None) -> SystemData:
        now = self._clock()
        before = None if known is None else known.system_data
        if before is not None:
            return replace(before, modified_by=by.id, modified_by_type=by.type, modified_at=now)
        return SystemData(
            created_by=by.id,
            created_by_type=by.type,
            created_at=now,
            modified_by=by.id,
            modified_by_type=by.type,
            modified_at=now,
        )


# ------------------------------------------------------------------------------------------------- transactions


@contextmanager
def _writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write, committed at the end of the block."""
    with engine.execution_options(writes=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{_BUSY_S:.0f}s'"))
        yield connection


def _read(engine: Engine, declared: Declared) -> Directory:
    """In one transaction that sees one moment; SQLite's do anyway."""
    seen = (
        engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="REPEATABLE READ")
    )
    with seen.connect() as connection:
        revision = connection.execute(select(STATE.c.revision)).scalar_one()
        return read_directory(connection, declared, revision)


def _write_ahead(engine: Engine) -> None:
    """Readers and a writer do not wait for each other then. It stays with the database, and is made outside of any
    transaction, when nobody else has one: SQLite does not wait for that by itself."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        finally:
            connection.close()


def _know(connection: Connection, secret: Secret) -> None:
    mark = secret_mark(secret)
    known = connection.execute(select(STATE.c.secret_mark)).scalar_one_or_none()
    if known is None:
        connection.execute(insert(STATE).values(id=1, revision=0, secret_mark=mark))
    elif known != mark:
        raise ConfigError(
            "store.secret", "it is not the secret that the keys of this database were made with, so none would open"
        )


@contextmanager
def _told() -> Iterator[None]:
    """What the database cannot do now is StoreUnavailable; what it should never have been asked stays a bug."""
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError, NotSupportedError):
        raise
    except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
        raise StoreUnavailable(f"the database cannot be used: {_kind(error)}") from error


def _kind(error: Exception) -> str:
    """Its type alone: the text may tell where the database is, and what was asked."""
    origin = getattr(error, "orig", None) or error
    return type(origin).__name__


# ---------------------------------------------------------------------------------------------------- conditions


_Stored: TypeAlias = Account | DeploymentRecord | RoleAssignment


def _there(identifier: str, known: T | None) -> T:
    if known is None:
        raise NotFound(identifier, "it does not exist")
    return known


def _must_be_ours(identifier: str, known: _Stored | None) -> None:
    if known is not None and known.declared:
        raise ReadOnly(identifier, "the configuration declares it, so it can be changed there alone")


def _must_match(identifier: str, known: _Stored | None, if_match: str | None, if_none_match: bool = False) -> None:
    if if_none_match and known is not None:
        raise PreconditionFailed(identifier, "it exists already")
    if if_match is not None and (known is None or if_match not in ("*", known.etag)):
        raise PreconditionFailed(
            identifier, "it is not there" if known is None else "it has changed since it was read"
        )


def _etag(revision: int) -> str:
    return f'"{revision:016x}"'


def _grants(assignment: RoleAssignment) -> tuple[str, str, str]:
    """Subjects of other issuers than Entra, ``NAME:SUBJECT``, may differ by case alone."""
    holder = assignment.principal_id
    return id_key(assignment.scope), assignment.role, holder if ":" in holder else holder.lower()


# ---------------------------------------------------------------------------------------------------------- rows


def _put_row(connection: Connection, table: Table, row: dict[str, Any], *, new: bool) -> None:
    if new:
        connection.execute(insert(table).values(row))
    else:
        connection.execute(update(table).where(table.c.key == row["key"]).values(row))


def _forget_assignments(connection: Connection, key: str) -> None:
    """Those at what is gone, and at what was in it."""
    scope = ASSIGNMENTS.c.scope_key
    connection.execute(delete(ASSIGNMENTS).where(or_(scope == key, scope.startswith(f"{key}/", autoescape=True))))


def _key_row(key: AccountKey) -> dict[str, Any]:
    return {
        "account": id_key(key.account),
        "slot": key.slot,
        "digest": key.digest,
        "generation": key.generation,
    }


def _usage_row(usage: Usage) -> dict[str, Any]:
    """Raises ValueError for what is no usage of a deployment in an hour."""
    parts = split_deployment_id(usage.deployment)
    if parts is None or usage.hour.utcoffset() is None or usage.hour.timestamp() % 3600:
        raise ValueError(f"no usage of a deployment in an hour: {usage.deployment} {usage.hour}")
    return {
        "deployment": id_key(usage.deployment),
        "hour": usage.hour,
        "account": id_key(parts[0]),
        "deployment_id": usage.deployment,
        "requests": usage.requests,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }


def _added(dialect: str, row: dict[str, Any]) -> Any:
    """The statement that adds a row of usage to the one that may be there."""
    new = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(USAGE).values(row)
    return new.on_conflict_do_update(
        index_elements=["deployment", "hour"],
        set_={name: USAGE.c[name] + new.excluded[name] for name in ("requests", "input_tokens", "output_tokens")},
    )
