"""Strict reading of the options of the built-in engines that run in worker processes."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec
import msgspec.inspect

from vivavoce.engines.base import EngineOptionsError, JsonObject

T = TypeVar("T")

_UNKNOWN: Final = re.compile("Object contains unknown field `(.*)`")
_ENUM: Final = re.compile("Invalid enum value .*")
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
        if _ENUM.fullmatch(problem):
            # What was given may be a key in the wrong place.
            problem = f"must be one of: {', '.join(_choices(struct, path)) or 'what the documentation lists'}"
        if missing := _MISSING.fullmatch(problem):
            path, problem = missing[1], "is required"
        raise EngineOptionsError(path, problem) from None


def _choices(struct: type, option: str) -> list[str]:
    """What an option may be, when it is one of some words."""
    shape = msgspec.inspect.type_info(struct)
    assert isinstance(shape, msgspec.inspect.StructType)
    kinds = [field.type for field in shape.fields if field.encode_name == option]
    kinds += [inner for kind in kinds if isinstance(kind, msgspec.inspect.UnionType) for inner in kind.types]
    return [str(word) for kind in kinds if isinstance(kind, msgspec.inspect.LiteralType) for word in kind.values]
