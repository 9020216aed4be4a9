"""Whole frames as they must be: every key, every value, and stand-ins for what only the server can choose.

Nothing here knows the server's own types. A frame is JSON; what is expected of it is JSON with stand-ins.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

Frame: TypeAlias = dict[str, Any]

_LENGTHS: Final = {"call": 16}
_SHOWN: Final = 600


class Mismatch(AssertionError):
    """The server said something else than it must."""


class Ids:
    """All identifiers that servers have made, over all sessions: none may come twice."""

    def __init__(self) -> None:
        self.made: set[str] = set()


@runtime_checkable
class StandIn(Protocol):
    def check(self, actual: Any, path: str, ids: Ids) -> None:
        """Raises :class:`Mismatch`."""


class Ref:
    """An identifier: the client's own, or one that the server makes, known once it was met."""

    def __init__(self, kind: str = "", value: str | None = None) -> None:
        self.kind = kind
        self.value = value

    @property
    def known(self) -> bool:
        return self.value is not None

    def check(self, actual: Any, path: str, ids: Ids) -> None:
        if self.value is not None:
            if actual != self.value:
                raise Mismatch(f"{path}: expected {self.value!r}, got {actual!r}")
            return
        form = rf"{self.kind}_[0-9A-Za-z]{{{_LENGTHS.get(self.kind, 21)}}}"
        if not isinstance(actual, str) or not re.fullmatch(form, actual):
            raise Mismatch(f"{path}: {actual!r} is no identifier {form}")
        if actual in ids.made:
            raise Mismatch(f"{path}: {actual!r} was made before")
        ids.made.add(actual)
        self.value = actual

    def __repr__(self) -> str:
        return self.value or f"<new {self.kind}>"


@dataclass(frozen=True)
class Naming:
    """A text with an identifier in it, which may not be known before this is read."""

    before: str
    ref: Ref
    after: str

    def check(self, actual: Any, path: str, ids: Ids) -> None:
        if actual != f"{self.before}{self.ref.value}{self.after}":
            raise Mismatch(f"{path}: expected {self!r}, got {actual!r}")


@dataclass(frozen=True)
class UnixTime:
    def check(self, actual: Any, path: str, ids: Ids) -> None:
        if type(actual) is not int or actual < 1_700_000_000:
            raise Mismatch(f"{path}: {actual!r} is no time")


@dataclass(frozen=True)
class Sound:
    """Base64 of so many bytes; None where it was converted, to about as much as was sent."""

    size: int | None

    def check(self, actual: Any, path: str, ids: Ids) -> None:
        try:
            size = len(base64.b64decode(actual, validate=True))
        except (binascii.Error, TypeError, ValueError):
            raise Mismatch(f"{path}: no base64") from None
        if self.size is not None and size != self.size:
            raise Mismatch(f"{path}: expected {self.size} bytes of sound, got {size}")


@dataclass(frozen=True)
class Whole:
    """A whole number from ``least`` to ``most``."""

    least: int
    most: int

    def check(self, actual: Any, path: str, ids: Ids) -> None:
        if type(actual) is not int or not self.least <= actual <= self.most:
            raise Mismatch(f"{path}: {actual!r} is not within {self.least}..{self.most}")


@dataclass(frozen=True)
class Limits:
    """The two counters of ``rate_limits.updated``."""

    requests: int
    tokens: int

    def check(self, actual: Any, path: str, ids: Ids) -> None:
        if not isinstance(actual, list) or [one.get("name") for one in actual] != ["requests", "tokens"]:
            raise Mismatch(f"{path}: expected requests and tokens, got {actual!r}")
        for one, limit in zip(actual, (self.requests, self.tokens), strict=True):
            if set(one) != {"name", "limit", "remaining", "reset_seconds"}:
                raise Mismatch(f"{path}: {one!r}")
            left = one["remaining"]
            if one["limit"] != limit or type(left) is not int or not 0 <= left <= limit:
                raise Mismatch(f"{path}: {one!r}, where the limit is {limit}")
            if abs(one["reset_seconds"] - (limit - left) * 60 / limit) > 60 / limit:
                raise Mismatch(f"{path}: {one!r} does not add up")


@dataclass(frozen=True)
class Usage:
    """Tokens of a response: audio is known, text is the server's to count, and everything adds up."""

    audio_in: tuple[int, int]
    """At least, and at most."""
    audio_out: int
    limit: int | None
    cached_details: bool

    def check(self, actual: Any, path: str, ids: Ids) -> None:
        details = {"cached_tokens": 0, "text_tokens": 0, "audio_tokens": 0}
        cached: dict[str, Any] = {"text_tokens": 0, "audio_tokens": 0}
        if self.cached_details:
            details["cached_tokens_details"] = cached  # type: ignore[assignment]
        _same_keys(
            {
                "total_tokens": 0,
                "input_tokens": 0,
                "output_tokens": 0,
                "input_token_details": details,
                "output_token_details": {"text_tokens": 0, "audio_tokens": 0},
            },
            actual,
            path,
        )
        into, out = actual["input_token_details"], actual["output_token_details"]
        if self.cached_details:
            cached = into["cached_tokens_details"]
        wrong = [
            name
            for name, holds in (
                ("input", actual["input_tokens"] == into["text_tokens"] + into["audio_tokens"]),
                ("output", actual["output_tokens"] == out["text_tokens"] + out["audio_tokens"]),
                ("total", actual["total_tokens"] == actual["input_tokens"] + actual["output_tokens"]),
                ("audio in", self.audio_in[0] <= into["audio_tokens"] <= self.audio_in[1]),
                ("audio out", out["audio_tokens"] == self.audio_out),
                ("limit", self.limit is None or actual["output_tokens"] <= self.limit),
                ("blocks of cached", into["cached_tokens"] % 64 == 0),
                ("cached", into["cached_tokens"] <= actual["input_tokens"]),
                (
                    "cached details",
                    not self.cached_details
                    or into["cached_tokens"] == cached["text_tokens"] + cached["audio_tokens"],
                ),
                ("cached text", cached["text_tokens"] <= into["text_tokens"]),
                ("cached audio", cached["audio_tokens"] <= into["audio_tokens"]),
                ("sign", min(into["text_tokens"], out["text_tokens"], into["cached_tokens"]) >= 0),
            )
            if not holds
        ]
        if wrong:
            raise Mismatch(f"{path}: {', '.join(wrong)} of {actual}; {self}")


def compare(expected: Any, actual: Any, ids: Ids, path: str = "") -> None:
    """Raises :class:`Mismatch` where ``actual`` is not exactly what is expected, keys and types included."""
    if isinstance(expected, StandIn):
        expected.check(actual, path, ids)
    elif isinstance(expected, dict):
        _same_keys(expected, actual, path, deep=False)
        for key, value in expected.items():
            compare(value, actual[key], ids, f"{path}.{key}" if path else key)
    elif isinstance(expected, list):
        if not isinstance(actual, list) or len(actual) != len(expected):
            raise Mismatch(f"{path}: expected {shown(expected)}, got {shown(actual)}")
        for i, (one, other) in enumerate(zip(expected, actual, strict=True)):
            compare(one, other, ids, f"{path}[{i}]")
    elif expected != actual or isinstance(expected, bool) is not isinstance(actual, bool):
        raise Mismatch(f"{path}: expected {shown(expected)}, got {shown(actual)}")


def _same_keys(expected: dict[str, Any], actual: Any, path: str, *, deep: bool = True) -> None:
    if not isinstance(actual, dict):
        raise Mismatch(f"{path}: expected an object, got {shown(actual)}")
    if missing := [key for key in expected if key not in actual]:
        raise Mismatch(f"{path}: {', '.join(missing)} is missing")
    if more := [key for key in actual if key not in expected]:
        raise Mismatch(f"{path}: nobody expects {', '.join(more)}")
    if deep:
        for key, value in expected.items():
            if isinstance(value, dict):
                _same_keys(value, actual[key], f"{path}.{key}")
            elif type(actual[key]) is not int:
                raise Mismatch(f"{path}.{key}: {actual[key]!r} is no whole number")


def shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"
