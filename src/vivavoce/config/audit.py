"""``[audit]``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from vivavoce.config.convert import convert, table_of
from vivavoce.config.values import Text


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[audit]``: where it is written down who did what."""

    path: Text | None = None
    """A file that grows by lines of JSON; None writes them to the log. Once it is loaded it is a path as the
    process finds it."""


def read_audit(table: Mapping[str, Any], base: Path) -> AuditSettings:
    audit = convert(table_of(table, "audit"), AuditSettings, "audit")
    return audit if audit.path is None else AuditSettings(path=str(base / audit.path))
