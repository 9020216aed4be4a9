"""The script file of the scripted model: its types, how it is read, and which rule answers.

Laws
----
1. A script is checked whole when it is read; what is wrong is a :class:`ScriptError` that names file and path.
2. Rules hold no memory: which rule answers follows from the request alone.
3. The first rule whose conditions all hold answers.

The format is described in docs/reference/scripted-model.md.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from vivavoce.engines.base import EngineError
from vivavoce.engines.builtin.text_hints import number_of

FinishReason: TypeAlias = Literal["stop", "max_output_tokens", "content_filter"]

ANY_FUNCTION = "*"
"""Value of ``when_output_of`` that stands for every function."""

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*)(?::(\w+))?\}|[{}]")
_CONVERSIONS = ("integer", "number")
_RESERVED = ("text", "output")


class ScriptError(Exception):
    """A script file cannot be used; ``path`` names the place in it, or is empty."""

    def __init__(self, file: str, path: str, problem: str) -> None:
        super().__init__(f"{file}: {path}: {problem}" if path else f"{file}: {problem}")
        self.file = file
        self.path = path
        self.problem = problem


# ---------------------------------------------------------------------------------------------- what is done


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: Mapping[str, Any] | None
    """None to have them made from the function's schema."""


@dataclass(frozen=True, slots=True)
class Wait:
    ms: int


@dataclass(frozen=True, slots=True)
class Fail:
    code: str
    message: str
    type: str = "server_error"


@dataclass(frozen=True, slots=True)
class End:
    reason: FinishReason


Action: TypeAlias = Say | Call | Wait | Fail | End


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rules look at."""

    text: str
    """The last user message; empty when there is none."""
    user_turns: int
    """User messages in the context."""
    outputs: tuple[tuple[str | None, str], ...]
    """Name and text of the function outputs that the context ends in; the name is None for an unknown call."""
    answered: bool
    """True when a function output follows the last user message."""
    calls_allowed: bool
    """False with ``tool_choice`` none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A rule that answers, with its placeholders filled in."""

    actions: tuple[Action, ...]
    word_delay_ms: int | None


# ------------------------------------------------------------------------------------------------ the file

_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=600_000)]
_Name = Annotated[str, msgspec.Meta(min_length=1)]


class _CallTable(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: _Name
    arguments: dict[str, Any] | None = None


class _FailTable(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    code: _Name
    message: _Name
    type: _Name = "server_error"


class _StepTable(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    say: str | None = None
    call: _CallTable | None = None
    wait_ms: _Milliseconds | None = None
    fail: _FailTable | None = None
    finish: FinishReason | None = None


class _RuleTable(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    when: str | None = None
    when_output_of: _Name | None = None
    turn: Annotated[int, msgspec.Meta(ge=1)] | None = None
    always: bool = False
    say: str | None = None
    call: _CallTable | None = None
    fail: _FailTable | None = None
    steps: Annotated[list[_StepTable], msgspec.Meta(min_length=1)] | None = None
    wait_ms: _Milliseconds | None = None
    finish: FinishReason | None = None
    word_delay_ms: _Milliseconds | None = None


class _ScriptTable(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    rule: Annotated[list[_RuleTable], msgspec.Meta(min_length=1)]


class _WrongError(Exception):
    """Something in the file is wrong, at ``path``."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(problem)
        self.path = path
        self.problem = problem


Values: TypeAlias = Mapping[str, str]
_Template: TypeAlias = Callable[[Values], Any]


@dataclass(frozen=True, slots=True)
class _Rule:
    when: re.Pattern[str] | None
    when_output_of: str | None
    turn: int | None
    steps: tuple[Callable[[Values], Action], ...]
    calls: bool
    word_delay_ms: int | None

    def match(self, situation: Situation) -> Values | None:
        """The values of the placeholders when all conditions hold."""
        if self.calls and not situation.calls_allowed:
            return None
        if self.turn is not None and self.turn != situation.user_turns:
            return None
        values = {"text": situation.text}
        if self.when_output_of is None:
            if situation.outputs or (self.calls and situation.answered):
                return None
        else:
            outputs = [output for name, output in situation.outputs if self.when_output_of in (ANY_FUNCTION, name)]
            if not outputs:
                return None
            values["output"] = outputs[-1]
        if self.when is None:
            return values
        found = self.when.search(situation.text)
        if found is None:
            return None
        return values | {name: group or "" for name, group in found.groupdict().items()}


class Script:
    """The rules of one file, in order."""

    def __init__(self, rules: tuple[_Rule, ...]) -> None:
        self._rules = rules

    def answer(self, situation: Situation) -> Answer | None:
        """The answer of the first rule that holds; None when none does.

        Raises :class:`EngineError` when a value does not have the type that its placeholder asks for.
        """
        for rule in self._rules:
            values = rule.match(situation)
            if values is not None:
                return Answer(tuple(step(values) for step in rule.steps), rule.word_delay_ms)
        return None


def load(file: Path) -> Script:
    """Read and check a script file. Raises :class:`ScriptError`."""
    try:
        return parse(file.read_text(encoding="utf-8"), str(file))
    except OSError as fault:
        raise ScriptError(str(file), "", f"cannot be read: {fault.strerror}") from fault
    except UnicodeDecodeError as fault:
        raise ScriptError(str(file), "", "cannot be read: it is not UTF-8") from fault


def parse(source: str, file: str = "script") -> Script:
    """Read a script from its text; ``file`` is for messages. Raises :class:`ScriptError`."""
    try:
        content = tomllib.loads(source)
    except (tomllib.TOMLDecodeError, RecursionError) as fault:
        raise ScriptError(file, "", f"is not TOML: {fault}") from fault
    try:
        table = msgspec.convert(content, _ScriptTable)
    except msgspec.ValidationError as fault:
        path, problem = explain(fault)
        raise ScriptError(file, path, problem) from fault
    try:
        return Script(tuple(_rule(rule, f"rule[{at}]") for at, rule in enumerate(table.rule)))
    except _WrongError as fault:
        raise ScriptError(file, fault.path, fault.problem) from fault


def explain(fault: msgspec.ValidationError) -> tuple[str, str]:
    """Path and problem of a fault that msgspec found."""
    problem, _, path = str(fault).partition(" - at `$")
    path = path.removesuffix("`").removeprefix(".")
    key = re.fullmatch(r"Object (contains unknown|missing required) field `(.*)`", problem)
    if key is None:
        return path, problem
    path = f"{path}.{key[2]}" if path else key[2]
    return path, "unknown key" if key[1] == "contains unknown" else "required, but missing"


# ----------------------------------------------------------------------------------------------- the rules


def _rule(table: _RuleTable, path: str) -> _Rule:
    conditions = [name for name in ("when", "when_output_of", "turn") if getattr(table, name) is not None]
    if not conditions and not table.always:
        raise _WrongError(path, "no condition: when, when_output_of, turn or always = true is needed")
    if table.always and {"when", "when_output_of"} & set(conditions):
        raise _WrongError(f"{path}.always", f"cannot stand together with {conditions[0]}")
    pattern = _pattern(table.when, f"{path}.when")
    groups = pattern.groupindex if pattern is not None else {}
    names = {"text", *groups, *(["output"] if table.when_output_of is not None else [])}
    listed = list(_steps(table, path))
    steps = tuple(_action(step, names, where) for where, step in listed)
    calls = any(step.call is not None for _, step in listed)
    return _Rule(pattern, table.when_output_of, table.turn, steps, calls, table.word_delay_ms)


def _pattern(source: str | None, path: str) -> re.Pattern[str] | None:
    if source is None:
        return None
    try:
        pattern = re.compile(source, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as fault:
        raise _WrongError(path, f"is not a regular expression: {fault}") from fault
    for name in _RESERVED:
        if name in pattern.groupindex:
            raise _WrongError(path, f"the group name {name!r} is taken by the placeholder of that name")
    return pattern


def _steps(table: _RuleTable, path: str) -> Iterator[tuple[str, _StepTable]]:
    """The steps of a rule with their paths, also of a rule in the short form."""
    actions = [name for name in ("say", "call", "fail", "steps") if getattr(table, name) is not None]
    if len(actions) > 1:
        raise _WrongError(f"{path}.{actions[1]}", f"cannot stand together with {actions[0]}; use steps for several")
    if not actions and table.finish is None:
        raise _WrongError(path, "nothing to do: say, call, fail, steps or finish is needed")
    if table.steps is not None:
        for name in ("wait_ms", "finish"):
            if getattr(table, name) is not None:
                raise _WrongError(f"{path}.{name}", "cannot stand together with steps; make it a step")
        for at, step in enumerate(table.steps):
            where = f"{path}.steps[{at}]"
            if sum(getattr(step, name) is not None for name in step.__struct_fields__) != 1:
                raise _WrongError(where, "a step has exactly one of say, call, wait_ms, fail and finish")
            if at + 1 < len(table.steps) and (step.fail is not None or step.finish is not None):
                raise _WrongError(where, "nothing can follow fail or finish")
            yield where, step
        return
    if table.fail is not None and table.finish is not None:
        raise _WrongError(f"{path}.finish", "cannot stand together with fail")
    if table.wait_ms is not None:
        yield path, _StepTable(wait_ms=table.wait_ms)
    if actions:
        yield path, _StepTable(say=table.say, call=table.call, fail=table.fail)
    if table.finish is not None:
        yield path, _StepTable(finish=table.finish)


def _action(step: _StepTable, names: set[str], path: str) -> Callable[[Values], Action]:
    """What makes the action of a step from the values of the placeholders."""
    if step.say is not None:
        say = _text(step.say, names, f"{path}.say")
        return lambda values: Say(say(values))
    if step.call is not None:
        return _call(step.call, names, f"{path}.call")
    fixed: Action
    if step.wait_ms is not None:
        fixed = Wait(step.wait_ms)
    elif step.fail is not None:
        fixed = Fail(step.fail.code, step.fail.message, step.fail.type)
    else:
        fixed = End(step.finish or "stop")
    return lambda values: fixed


def _call(table: _CallTable, names: set[str], path: str) -> Callable[[Values], Action]:
    if table.arguments is None:
        return lambda values: Call(table.name, None)
    template = _value(table.arguments, names, f"{path}.arguments")
    return lambda values: Call(table.name, template(values))


def _value(value: Any, names: set[str], path: str) -> _Template:
    """A template for a TOML value inside ``arguments``; placeholders stand in strings, not in keys."""
    if isinstance(value, dict):
        members = {key: _value(member, names, f"{path}.{key}") for key, member in value.items()}
        return lambda values: {key: member(values) for key, member in members.items()}
    if isinstance(value, list):
        items = [_value(item, names, f"{path}[{at}]") for at, item in enumerate(value)]
        return lambda values: [item(values) for item in items]
    if isinstance(value, str):
        whole = _PLACEHOLDER.fullmatch(value)
        if whole is not None and whole[2] is not None:
            return _converted(whole[1], whole[2], names, path)
        return _text(value, names, path)
    if isinstance(value, float) and not math.isfinite(value):
        raise _WrongError(path, "JSON has no infinity and no NaN")
    if not isinstance(value, bool | int | float):
        raise _WrongError(path, f"JSON has no {type(value).__name__}; write it as a string")
    return lambda values: value


def _converted(name: str, conversion: str, names: set[str], path: str) -> _Template:
    if name not in names:
        raise _WrongError(path, _unknown(name, names))
    if conversion not in _CONVERSIONS:
        raise _WrongError(path, f"unknown conversion {conversion!r}; known: {', '.join(_CONVERSIONS)}")

    def convert(values: Values) -> int | float:
        number = number_of(values[name])
        if number is None or (conversion == "integer" and number != int(number)):
            raise EngineError(
                "script_value_invalid", f"The placeholder '{name}' of {path} is not one {conversion}."
            )
        return int(number) if conversion == "integer" else number

    return convert


def _text(source: str, names: set[str], path: str) -> Callable[[Values], str]:
    parts: list[tuple[bool, str]] = []
    end = 0
    for match in _PLACEHOLDER.finditer(source):
        parts.append((False, source[end : match.start()]))
        end = match.end()
        if match[1] is None:
            if len(match[0]) == 1:
                raise _WrongError(path, f"a lone {match[0]!r}; write it twice to mean the brace itself")
            parts.append((False, match[0][0]))
            continue
        if match[2] is not None:
            raise _WrongError(path, "a conversion must be the whole of a string in arguments")
        if match[1] not in names:
            raise _WrongError(path, _unknown(match[1], names))
        parts.append((True, match[1]))
    parts.append((False, source[end:]))
    return lambda values: "".join(values[part] if named else part for named, part in parts)


def _unknown(name: str, names: set[str]) -> str:
    return f"unknown placeholder {{{name}}}; known here: {', '.join(sorted(names))}"


def compact(arguments: Mapping[str, Any]) -> str:
    """Arguments as the JSON text of a call."""
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
