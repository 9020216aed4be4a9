"""Who did what, to which resource, and how it ended.

Laws
----
1. A record has the fields of :class:`Record`, :class:`Actor` and :class:`Details`, and no others. None of them is
   for a key, a token, a body or anything that a person said; a :class:`vivavoce.config.Secret` in one is a
   TypeError.
2. Texts are bounded and printable ASCII, and what has the form of a secret is ``***``: names come from requests,
   and people paste a token where a name belongs.
3. One record is one line of JSON, appended and flushed; nothing that was written is touched again. Other tools
   rotate the file: when it has been moved away, the next record begins a new one.
4. The work that is recorded does not fail because its record does; what could not be written is told in the log.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from vivavoce.config import AuditSettings, ConfigError
from vivavoce.gateway.principals import Principal

log = logging.getLogger(__name__)
_record_log = logging.getLogger("vivavoce.audit")

ActorKind: TypeAlias = Literal["key", "entra", "oidc", "ephemeral", "anonymous", "server"]
Outcome: TypeAlias = Literal["done", "refused", "failed"]
"""``refused``: the actor may not, or asked for what cannot be. ``failed``: it was begun and did not end well."""

MAX_TEXT_CHARS: Final = 512
"""Of one text of a record; the rest of a longer one is cut off."""
HIDDEN: Final = "***"
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")
_FORM_OF_A_SECRET: Final = re.compile(
    r"eyJ[\w-]{6,}(\.[\w-]*){1,4}"  # a JSON web token, whole or cut short
    r"|\b[es]k[_-][\w-]{8,}"  # an ephemeral secret of ours, a key of OpenAI's
    r"|\bBearer\s+\S+"
    r"|(?<=://)[^/?#\s]*@",  # the user information of a URL
    re.IGNORECASE,
)


class Actor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who acted, as far as it is known."""

    kind: ActorKind
    id: str = ""
    """What logs call it: ``key:`` and a digest, an object id."""
    tenant: str | None = None
    oid: str | None = None
    appid: str | None = None


ANONYMOUS: Final = Actor(kind="anonymous")


def actor_of(principal: Principal) -> Actor:
    """A principal as an actor."""
    return Actor(
        kind=principal.kind,
        id=principal.id,
        tenant=principal.tenant,
        oid=principal.oid,
        appid=principal.appid,
    )


SERVER: Final = Actor(kind="server", id="vivavoce")
"""The server itself, by a policy that somebody set before."""


class Details(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What else is worth knowing. A new detail is a new field, so that somebody has thought about it."""

    status: int | None = None
    """HTTP status, or close code, of the answer."""
    code: str | None = None
    """Error code of the answer."""
    reason: str | None = None
    """Our own words, never those of a caller or a library."""
    sku: str | None = None
    capacity: int | None = None
    """In units of the sku."""
    model: str | None = None
    version: str | None = None
    version_before: str | None = None
    version_upgrade_option: str | None = None
    source_account: str | None = None
    """ARM id."""
    key_slot: str | None = None
    """``key1`` or ``key2``."""
    role: str | None = None
    scope: str | None = None
    principal_id: str | None = None
    principal_type: str | None = None
    count: int | None = None
    seconds: float | None = None


_NO_DETAILS: Final = Details()


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The request by which it was done."""

    request_id: str
    client_request_id: str | None = None
    address: str | None = None
    """Of the peer of the connection, which may be a proxy."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the audit."""

    time: str
    """UTC, with milliseconds: ``2025-02-13T08:00:00.000Z``."""
    action: str
    """As Azure's roles name it: ``Microsoft.CognitiveServices/accounts/deployments/write``."""
    target: str
    """ARM id of what it was done to, or the path of the request."""
    outcome: Outcome
    actor: Actor
    details: Details = _NO_DETAILS
    request_id: str | None = None
    client_request_id: str | None = None
    address: str | None = None


class Audit:
    """Writes records; made by :func:`open_audit`."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        """``write`` takes a line without its end; ``clock`` gives Unix seconds."""
        self._write = write
        self._clock = clock

    def record(
        self,
        actor: Actor,
        action: str,
        target: str,
        outcome: Outcome,
        details: Details = _NO_DETAILS,
        caller: Caller | None = None,
    ) -> None:
        """Write one record. ``caller`` is None for what the server does by itself."""
        at = dt.datetime.fromtimestamp(self._clock(), dt.UTC)
        record = Record(
            time=at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z",
            action=action,
            target=target,
            outcome=outcome,
            actor=actor,
            details=details,
            request_id=None if caller is None else caller.request_id,
            client_request_id=None if caller is None else caller.client_request_id,
            address=None if caller is None else caller.address,
        )
        self._write(msgspec.json.encode(_clean(msgspec.to_builtins(record))).decode())


def _clean(value: object) -> object:
    if isinstance(value, dict):
        return {name: _clean(inner) for name, inner in value.items()}
    return clean_text(value) if isinstance(value, str) else value


def clean_text(text: str) -> str:
    """The text as an audit may hold it."""
    shown = _UNPRINTABLE.sub("?", text[: 4 * MAX_TEXT_CHARS])
    # First what is hidden, then the cut: half a secret has its form no more.
    return _FORM_OF_A_SECRET.sub(HIDDEN, shown)[:MAX_TEXT_CHARS]


@contextmanager
def open_audit(settings: AuditSettings, clock: Callable[[], float] = time.time) -> Iterator[Audit]:
    """The audit that the configuration asks for, until the end of the block. Raises :class:`ConfigError`."""
    if settings.path is None:
        yield Audit(lambda line: _record_log.info("%s", line), clock)
        return
    try:
        handler = _AuditFile(settings.path)
    except OSError as error:
        problem = f"{settings.path} cannot be written: {error.strerror or type(error).__name__}"
        raise ConfigError("audit.path", problem) from None
    try:
        yield Audit(handler.append, clock)
    finally:
        handler.close()


class _AuditFile(WatchedFileHandler):
    """A file that grows by whole lines, also when several processes share it: each is one write at its end."""

    def __init__(self, path: str) -> None:
        super().__init__(path, encoding="ascii")

    def append(self, line: str) -> None:
        self.handle(logging.makeLogRecord({"msg": line, "args": None}))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            # It was moved away, and a new one cannot be opened.
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in logging
        fault = sys.exc_info()[1]
        log.error("not written to the audit (%s): %s", type(fault).__name__, record.getMessage())

    def _open(self) -> TextIOWrapper:
        # Before it is opened: it tells who came from where.
        Path(self.baseFilename).touch(mode=0o600)
        return super()._open()
