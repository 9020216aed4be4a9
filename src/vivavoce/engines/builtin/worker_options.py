"""Strict reading of the options of the built-in engines that run in worker processes."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from vivavoce.engines.base import EngineOptionsError, JsonObject

T = TypeVar("T")

_UNKNOWN: Final = re.compile("Object contains unknown field `(.*)`")
_MISSING: Final = re.compile("Object missing required field `(.*)`")


def convert_options(options: JsonObject, struct: type[T]) -> T:
    """``options`` as a ``struct``; raises :class:`EngineOptionsError` that names the option at fault."""
    try:
        return msgspec.convert(dict(options), type=struct)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$")
        path = where.rstrip("`").removeprefix(".")
        if unknown := _UNKNOWN.fullmatch(problem):
            path, problem = unknown[1], "unknown option"
        if missing := _MISSING.fullmatch(problem):
            path, problem = missing[1], "is required"
        raise EngineOptionsError(path, problem) from None
