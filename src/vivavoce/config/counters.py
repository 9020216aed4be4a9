"""``[counters]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from vivavoce.config.convert import convert, table_of, with_environment
from vivavoce.config.values import ConfigError, Secret, Text

_SCHEMES: Final = ("redis://", "rediss://", "unix://")


class CountersSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[counters]``: where is counted what several servers share, and what becomes of the limits without it."""

    url: Secret | None = None
    """A Redis, with user and password where it has any; None for the memory of this machine."""
    on_loss: Literal["closed", "local_share"] = "closed"
    """While it is lost, admit nothing, or let each process admit its share of every limit."""
    prefix: Text = "vivavoce"
    """Of all its keys."""


def read_counters(table: Mapping[str, Any], environ: Mapping[str, str]) -> CountersSettings:
    entry = with_environment(table_of(table, "counters"), environ, "counters")
    counters = convert(entry, CountersSettings, "counters")
    if counters.url is not None and not counters.url.reveal().startswith(_SCHEMES):
        raise ConfigError("counters.url", f"a URL that begins with {', '.join(_SCHEMES)} is expected")
    return counters
