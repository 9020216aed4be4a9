"""What the service says of a value that the table does not allow (protocol section 6), as the table has it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from preview_table import ArrayOf, Field, Literally, Plain, Type, json_type

NAMES = {
    "boolean": "a boolean",
    "integer": "an integer",
    "number": "a decimal",
    "string": "a string",
    "base64": "a string",
    "array": "an array",
    "object": "an object",
    "null": "null",
}
UNTYPED = "The 'type' field is missing."


def unknown(param: str) -> str:
    return f"Unknown parameter: '{param}'."


def missing(param: str) -> str:
    return f"Missing required parameter: '{param}'."


def unsupported(value: str, supported: Iterable[str]) -> str:
    return f"Invalid value: '{value}'. Supported values are: {_listing(supported, 'and')}."


def wrong_type(param: str, types: tuple[Type, ...], value: Any) -> str:
    """``types`` are those that the value is none of."""
    found = NAMES[json_type(value)]
    return f"Invalid type for '{param}': expected {_expected(types)}, but got {found} instead."


def out_of_range(param: str, kind: str, limit: float, value: float) -> str:
    """``kind`` is ``integer`` or ``decimal``."""
    side, sign = ("below minimum", ">=") if value < limit else ("above maximum", "<=")
    return (
        f"Invalid '{param}': {kind} {side} value. Expected a value {sign} {_number(limit)}, "
        f"but got {_number(value)} instead."
    )


def wrong_length(param: str, limit: int, length: int) -> str:
    """Of a text."""
    word, side = ("short", "minimum") if length < limit else ("long", "maximum")
    return (
        f"Invalid '{param}': string too {word}. Expected a string with {side} length {limit}, "
        f"but got a string with length {length} instead."
    )


def off_pattern(param: str, pattern: str) -> str:
    return (
        f"Invalid '{param}': string does not match pattern. Expected a string that matches the pattern '{pattern}'."
    )


def too_many(param: str, limit: int, count: int) -> str:
    """Of the pairs of a map."""
    return (
        f"Invalid '{param}': too many properties. Expected an object with at most {limit} properties, "
        f"but got {count} properties instead."
    )


def no_audio(param: str, problem: str) -> str:
    return f"Invalid '{param}'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) but got {problem}."


def literals(types: tuple[Type, ...]) -> list[str]:
    return [one.text for one in types if isinstance(one, Literally)]


def supported(field: Field) -> list[str]:
    """The texts that a field may be."""
    return list(field.values) or literals(field.types)


def _expected(types: tuple[Type, ...]) -> str:
    some = [one for one in types if one != Plain("null")]
    if not some:
        return "null"
    texts_ = literals(types)
    if texts_ and len(texts_) == len(some):
        return "a string"
    offered = f"{'one of ' if len(texts_) > 1 else ''}{_listing(texts_, 'or')}"
    return " or ".join(dict.fromkeys(offered if isinstance(one, Literally) else _name(one) for one in some))


def _name(one: Type) -> str:
    match one:
        case Plain(kind):
            return NAMES[kind]
        case ArrayOf():
            return NAMES["array"]
        case _:
            return NAMES["object"]


def _listing(values: Iterable[str], last: str) -> str:
    quoted = [f"'{value}'" for value in values]
    if len(quoted) < 3:
        return f" {last} ".join(quoted)
    return f"{', '.join(quoted[:-1])}, {last} {quoted[-1]}"


def _number(value: float) -> str:
    return json.dumps(value) if isinstance(value, int) else f"{value:.12g}"
