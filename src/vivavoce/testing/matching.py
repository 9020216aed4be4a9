"""What a script expects against what came: patterns, names, and a difference that can be read.

Laws
----
1. A pattern object matches when each of its keys is there and matches; a pattern array matches element by element,
   up to an optional last ``"..."``. Numbers are equal to the ninth digit, true is not 1.
2. ``"$name"`` takes the value it meets first, and equals it from then on; ``"${name}"`` within a longer string
   stands for the value. A name is bound only when the whole event matches, and no two names stand for one value.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from vivavoce.testing.script import Expectation, ExpectClosed, ExpectEffect, ExpectEvent, Script, Step

REST: Final = "..."
_NAME: Final = re.compile(r"\$([A-Za-z_]\w*)")
_INSERT: Final = re.compile(r"\$\{([^}*]+)(?:\*(\d+))?\}")
_BYTES: Final = re.compile(r"\*(\d+) bytes")
_EVENT_ID: Final = re.compile(r"event_[0-9A-Za-z]{21}")
_SHOWN: Final = 400


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection was closed by the server."""

    code: int
    reason: str


Event: TypeAlias = dict[str, Any]
Actual: TypeAlias = Event | Closed


class ScriptFailure(AssertionError):
    """A script and what it ran on disagree."""


class Names:
    """What the ``$names`` of a script stand for."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def fill(self, value: Any) -> Any:
        """``value`` with every name replaced. Raises KeyError for one that stands for nothing yet."""
        if isinstance(value, str):
            whole = _NAME.fullmatch(value)
            return self._values[whole[1]] if whole else self._insert(value)
        if isinstance(value, dict):
            return {self._insert(key): self.fill(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.fill(inner) for inner in value]
        return value

    def _insert(self, text: str) -> str:
        return _INSERT.sub(lambda m: m[1] * int(m[2]) if m[2] else str(self._values[m[1]]), text)

    def mismatch(self, pattern: Any, actual: Any) -> str | None:
        """None when ``actual`` matches, and then its names are bound; otherwise where and how it does not."""
        bound: dict[str, Any] = {}
        problem = self._compare(pattern, actual, "", bound)
        if problem is None:
            self._values |= bound
        return problem

    def _compare(self, pattern: Any, actual: Any, path: str, bound: dict[str, Any]) -> str | None:
        if isinstance(pattern, dict):
            return self._compare_objects(pattern, actual, path, bound)
        if isinstance(pattern, list):
            return self._compare_arrays(pattern, actual, path, bound)
        if isinstance(pattern, str):
            return self._compare_strings(pattern, actual, path, bound)
        return None if _equal(pattern, actual) else _difference(path, pattern, actual)

    def _compare_objects(
        self, pattern: dict[str, Any], actual: Any, path: str, bound: dict[str, Any]
    ) -> str | None:
        if not isinstance(actual, dict):
            return _difference(path, pattern, actual)
        for written, inner in pattern.items():
            key = self._insert(written)
            here = f"{path}.{key}" if path else key
            if key not in actual:
                return f"{here} is missing"
            problem = self._compare(inner, actual[key], here, bound)
            if problem is not None:
                return problem
        return None

    def _compare_arrays(self, pattern: list[Any], actual: Any, path: str, bound: dict[str, Any]) -> str | None:
        if not isinstance(actual, list):
            return _difference(path, pattern, actual)
        open_end = bool(pattern) and pattern[-1] == REST
        wanted = pattern[:-1] if open_end else pattern
        if len(actual) < len(wanted) or (len(actual) > len(wanted) and not open_end):
            return f"{path}: expected {len(wanted)} elements, got {len(actual)}: {_shown(actual)}"
        for i, inner in enumerate(wanted):
            problem = self._compare(inner, actual[i], f"{path}[{i}]", bound)
            if problem is not None:
                return problem
        return None

    def _compare_strings(self, pattern: str, actual: Any, path: str, bound: dict[str, Any]) -> str | None:
        if pattern == "*":
            return None
        size = _BYTES.fullmatch(pattern)
        if size:
            return _compare_size(int(size[1]), actual, path)
        name = _NAME.fullmatch(pattern)
        if name:
            known = bound | self._values
            if name[1] not in known:
                other = next((key for key, value in known.items() if _equal(value, actual)), None)
                if other is not None:
                    return f"{path}: {_shown(actual)} is ${other} already, so it cannot be ${name[1]}"
                bound[name[1]] = actual
                return None
            return None if _equal(known[name[1]], actual) else _difference(path, known[name[1]], actual)
        text = self._insert(pattern)
        return None if text == actual else _difference(path, text, actual)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)


def _compare_size(size: int, actual: Any, path: str) -> str | None:
    try:
        have = len(base64.b64decode(actual, validate=True))
    except (binascii.Error, TypeError, ValueError):
        return f"{path}: expected {size} bytes in base64, got {_shown(actual)}"
    return None if have == size else f"{path}: expected {size} bytes in base64, got {have} bytes"


def _difference(path: str, expected: Any, actual: Any) -> str:
    return f"{path or 'the event'}: expected {_shown(expected)}, got {_shown(actual)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


class Judge:
    """Compares a run with its script; :class:`ScriptFailure` says where they part."""

    def __init__(self, script: Script) -> None:
        self.names = Names()
        self._script = script
        self._event_ids: set[str] = set()

    def check(self, step: Step, actual: list[Actual], *, open_end: bool = False) -> None:
        """All that came of ``step``. ``open_end``: what comes after the expected events is nobody's concern."""
        expected = self.expected(step)
        for i, wanted in enumerate(expected):
            if i >= len(actual):
                self._fail(step, expected, actual, i, f"line {wanted.line}: nothing more came")
            problem = self._mismatch(wanted, actual[i])
            if problem is not None:
                self._fail(step, expected, actual, i, f"line {wanted.line}: {problem}")
        if len(actual) > len(expected) and not open_end:
            self._fail(step, expected, actual, len(expected), "more came than is listed")
        for event in actual:
            self._check_event_id(step, event)

    def check_effects(self, step: Step, effects: list[tuple[str, Any]]) -> None:
        """Each effect that the script names was asked for; ``effects`` are names and fields."""
        for wanted in step.effects:
            if all(self._effect_problem(wanted, *effect) for effect in effects):
                asked = "\n".join(f"    {name} {_shown(fields)}" for name, fields in effects) or "    none"
                raise ScriptFailure(
                    f"{self._script.path}:{wanted.line}: {wanted.name} {_shown(wanted.pattern)} was not asked for\n"
                    f"  after line {step.line}: {step.text}\n  effects:\n{asked}"
                )

    def _effect_problem(self, wanted: ExpectEffect, name: str, fields: Any) -> str | None:
        return "another effect" if name != wanted.name else self.names.mismatch(wanted.pattern, fields)

    def expected(self, step: Step) -> list[Expectation]:
        """What must come of ``step``: what the script lists, or on connecting, if it lists nothing, the usual."""
        if step.command is not None or step.expected:
            return step.expected
        settings = self._script.settings
        if settings.is_ga:
            kinds = ["session.created"]
        elif settings.intent == "transcription":
            kinds = ["transcription_session.created"]
        else:
            kinds = ["session.created"] + ["conversation.created"] * settings.conversation_created
        return [ExpectEvent(step.line, kind, {}, whole=False) for kind in kinds]

    def _mismatch(self, wanted: Expectation, actual: Actual) -> str | None:
        if isinstance(wanted, ExpectClosed):
            if isinstance(actual, Closed) and (actual.code, actual.reason) == (wanted.code, wanted.reason):
                return None
            return f"expected the close {wanted.code} {wanted.reason!r}, got {describe(actual)}"
        if isinstance(actual, Closed) or actual.get("type") != wanted.type:
            return f"expected {wanted.type}, got {describe(actual)}"
        if wanted.whole:
            more = sorted(_paths_beyond(wanted.pattern, actual, ("type", "event_id")))
            if more:
                return f"fields that are not listed: {', '.join(more)}"
        return self.names.mismatch(wanted.pattern, actual)

    def _check_event_id(self, step: Step, event: Actual) -> None:
        if isinstance(event, Closed):
            return
        event_id = event.get("event_id")
        if not isinstance(event_id, str) or event_id in self._event_ids:
            raise ScriptFailure(f"{self._script.path}:{step.line}: event_id {event_id!r} is missing or not unique")
        if not _EVENT_ID.fullmatch(event_id):
            raise ScriptFailure(f"{self._script.path}:{step.line}: event_id {event_id!r} has not the known form")
        self._event_ids.add(event_id)

    def _fail(self, step: Step, expected: list[Expectation], actual: list[Actual], at: int, problem: str) -> None:
        lines = [f"{self._script.path}:{step.line}: {problem}", f"  after line {step.line}: {step.text[:_SHOWN]}"]
        for i in range(max(len(expected), len(actual))):
            wanted = _wanted(expected[i]) if i < len(expected) else "nothing"
            came = describe(actual[i]) if i < len(actual) else "nothing"
            if i < at:
                lines.append(f"     {came[:100]}")
            else:
                lines += [f"   - expected {wanted}", f"   + got      {came}"]
        raise ScriptFailure("\n".join(lines))


def _wanted(expectation: Expectation) -> str:
    if isinstance(expectation, ExpectClosed):
        return f"line {expectation.line}: closed {expectation.code} {expectation.reason!r}"
    pattern = _shown(expectation.pattern) if expectation.pattern else ""
    return f"line {expectation.line}: {expectation.type} {pattern}"


def describe(actual: Actual) -> str:
    """One event or close in one line."""
    if isinstance(actual, Closed):
        return f"closed {actual.code} {actual.reason!r}"
    rest = {key: value for key, value in actual.items() if key not in ("type", "event_id")}
    return f"{actual.get('type')} {_shown(rest)}"


def _paths_beyond(pattern: Mapping[str, Any], actual: Mapping[str, Any], free: tuple[str, ...] = ()) -> list[str]:
    """Fields of ``actual``, at any depth, that the pattern does not name."""
    found = [key for key in actual if key not in pattern and key not in free]
    for key, inner in pattern.items():
        value = actual.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            found += [f"{key}.{path}" for path in _paths_beyond(inner, value)]
        elif isinstance(inner, list) and isinstance(value, list):
            for i, (one, other) in enumerate(zip(inner, value, strict=False)):
                if isinstance(one, dict) and isinstance(other, dict):
                    found += [f"{key}[{i}].{path}" for path in _paths_beyond(one, other)]
    return found
