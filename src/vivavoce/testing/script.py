"""Golden scripts: one behaviour of the protocol in one plain file (``docs/reference/golden-scripts.md``).

This module reads them. What runs them: :mod:`vivavoce.testing.pure_runner` (session and codec alone),
:mod:`vivavoce.testing.socket_runner` (the server, over a WebSocket) and, by hand and against any server,
``python -m vivavoce.testing.script FILE... --url URL``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import msgspec

from vivavoce.config import ConfigError
from vivavoce.config.prompts import read_prompts
from vivavoce.engines.base import Usage
from vivavoce.wire.dialects.profiles import GA_PROFILES, NAMES
from vivavoce.wire.prompts import StoredPrompt
from vivavoce.wire.session_config import SessionKind

DEPLOYMENT: Final = "puppet"
"""Name of the deployment that the client of a script is connected to."""

SPEECH_AMPLITUDE: Final = 0.9
"""Of full scale; what ``> speech`` sounds like, and so the probability that a puppet VAD reads in it."""


class ScriptError(Exception):
    """A script cannot be read; the text begins with ``file:line``."""


# ------------------------------------------------------------------------------------------- commands


@dataclass(frozen=True, slots=True)
class SendText:
    """One text frame as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class SendEvent:
    """One client event; ``$names`` in it are filled in when it is sent."""

    value: Any


@dataclass(frozen=True, slots=True)
class SendBinary:
    data: bytes


@dataclass(frozen=True, slots=True)
class SendSound:
    """Sound of one amplitude (0..1 of full scale), in appends of 20 ms in the session's input format."""

    ms: int
    amplitude: float


@dataclass(frozen=True, slots=True)
class SendBytes:
    """One append of so many zero bytes."""

    count: int


@dataclass(frozen=True, slots=True)
class SendCharacters:
    """One user message of so many characters of text."""

    count: int


@dataclass(frozen=True, slots=True)
class ProduceText:
    text: str
    response: int | None


@dataclass(frozen=True, slots=True)
class ProduceAudio:
    ms: int
    response: int | None


@dataclass(frozen=True, slots=True)
class ProduceCall:
    name: str
    response: int | None


@dataclass(frozen=True, slots=True)
class ProduceArguments:
    text: str
    response: int | None


@dataclass(frozen=True, slots=True)
class Finish:
    reason: Literal["stop", "max_output_tokens", "content_filter"]
    response: int | None
    usage: Usage | None = None
    """What the model says it used."""


@dataclass(frozen=True, slots=True)
class Fail:
    code: str
    message: str
    type: str
    response: int | None


@dataclass(frozen=True, slots=True)
class Bug:
    """The model breaks, without a word to the client."""

    response: int | None


@dataclass(frozen=True, slots=True)
class Heard:
    """The recogniser's words for the oldest item that waits for them."""

    text: str
    logprobs: tuple[float, ...] = ()
    """How sure it is of each word; empty where it does not say."""

    def tokens(self) -> list[tuple[str, float]]:
        """Each word, with the space before it, and how sure the recogniser is of it. Raises ValueError."""
        words = _WORD.findall(self.text)
        if len(words) != len(self.logprobs):
            raise ValueError(f"{len(words)} words have {len(self.logprobs)} log probabilities")
        return list(zip(words, self.logprobs, strict=True))


@dataclass(frozen=True, slots=True)
class Unheard:
    """The recogniser fails on the oldest item that waits for its words."""

    code: str | None
    """None: by a bug."""


@dataclass(frozen=True, slots=True)
class BreakVad:
    """The VAD engine fails on the next frame that it is given."""


@dataclass(frozen=True, slots=True)
class HoldVad:
    """The VAD engine takes its time: nothing is judged until it goes on."""


@dataclass(frozen=True, slots=True)
class ReleaseVad:
    """The VAD engine goes on, and judges what has waited."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The end-of-turn engine answers the question that it was asked last."""

    probability: float


@dataclass(frozen=True, slots=True)
class MoveClock:
    seconds: float


ModelCommand: TypeAlias = ProduceText | ProduceAudio | ProduceCall | ProduceArguments | Finish | Fail | Bug
"""What the model of a response does. ``response`` counts them from 1 as they were created; None: the latest."""
EngineCommand: TypeAlias = ModelCommand | Heard | Unheard | BreakVad | HoldVad | ReleaseVad | Judged
ClientCommand: TypeAlias = SendText | SendEvent | SendBinary | SendSound | SendBytes | SendCharacters
Command: TypeAlias = ClientCommand | EngineCommand | MoveClock


# -------------------------------------------------------------------------------------------- the script


@dataclass(frozen=True, slots=True)
class ExpectEvent:
    line: int
    type: str
    pattern: dict[str, Any]
    whole: bool
    """The event has no other fields than those of the pattern, ``type`` and ``event_id``."""


@dataclass(frozen=True, slots=True)
class ExpectClosed:
    line: int
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class ExpectEffect:
    line: int
    name: str
    pattern: dict[str, Any]


Expectation: TypeAlias = ExpectEvent | ExpectClosed


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and all that must come of it, in order."""

    line: int
    text: str
    command: Command | None
    """None: the client connects."""
    expected: list[Expectation] = field(default_factory=list)
    effects: list[ExpectEffect] = field(default_factory=list)


@dataclass(slots=True)
class Settings:
    """The head of a script."""

    profile: str = "azure-2024-12-17"
    intent: SessionKind = "realtime"
    """The kind of session that the client asks for."""
    model: str = "gpt-4o-realtime-preview-2024-12-17"
    instructions: str = ""
    conversation_created: bool = True
    strict: bool = True
    session_seconds: int | None = None
    """None: as long as a session lasts in the dialect of the client."""
    tokens: int = 100_000
    """Per minute."""
    requests: int = 600
    """Per minute."""
    logprobs: bool = False
    """The recogniser can tell how sure it is of each word."""
    noise_reduction: bool = True
    heard_text: bool = True
    speculate: bool = False
    """The server has noise reduction."""
    context_window: int | None = None
    """Tokens that the model reads and writes; None for any number."""
    max_output: int | None = None
    """Those of them that it writes at most."""
    sees_images: bool = False
    """The model takes pictures."""
    message_images: int = 50
    """Of one message, at most."""
    reasons: bool = False
    """The model takes an effort to reason with."""
    prompts: dict[str, StoredPrompt] = field(default_factory=dict)
    """By id."""
    engine_rate: int = 24000
    """Hz of the sound that the puppet model makes; 8000 where a script wants G.711 as it is."""
    both: bool = False
    """It runs in the GA dialect as well (:mod:`vivavoce.testing.in_ga`)."""
    pure_only: str | None = None
    """Why a script cannot run on the server."""

    @property
    def is_ga(self) -> bool:
        """The client speaks the GA dialect."""
        return self.profile in GA_PROFILES


@dataclass(frozen=True, slots=True)
class Script:
    path: Path
    title: str
    settings: Settings
    steps: list[Step]


def load(path: Path) -> Script:
    """Read a script. Raises :class:`ScriptError`, and OSError when there is no such file."""
    return parse(path.read_text(encoding="utf-8"), path)


def parse(text: str, path: Path) -> Script:
    """The script in ``text``; ``path`` is for messages. Raises :class:`ScriptError`."""
    reader = _Reader(path)
    lines = list(_logical_lines(text))
    if not lines or not lines[0][1].startswith("#"):
        raise ScriptError(f"{path}:1: the first line is the title, a comment")
    for number, line in lines:
        try:
            reader.take(number, line)
        except ValueError as error:
            raise ScriptError(f"{path}:{number}: {error}") from error
    return Script(path, lines[0][1].lstrip("# "), reader.settings, reader.steps)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; an indented line goes on from the one before."""
    pending: tuple[int, str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if line[:1].isspace() and line.strip() and pending is not None:
            pending = (pending[0], f"{pending[1]} {line.strip()}")
            continue
        if pending is not None:
            yield pending
        pending = (number, line.rstrip()) if line.strip() else None
    if pending is not None:
        yield pending


_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
_TARGET: Final = re.compile(r"\[(\d+)\]\s*")
_WORD: Final = re.compile(r"\s*\S+")
_REASONS: Final = ("stop", "max_output_tokens", "content_filter")


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is no duration such as 320ms, 30s or 30m")
    return float(match[1]) * _SECONDS[match[2]]


def _milliseconds(text: str) -> int:
    return round(_seconds(text) * 1000)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error}") from error


def _object(text: str) -> dict[str, Any]:
    value = _json(text) if text else {}
    if not isinstance(value, dict):
        raise ValueError("a pattern is a JSON object")
    return value


def _string(text: str) -> str:
    value = _json(text)
    if not isinstance(value, str):
        raise ValueError(f"{text} is no string in quotes")
    return value


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings = Settings()
        self.steps: list[Step] = []
        self._prompts: dict[str, list[object]] = {}

    def take(self, number: int, line: str) -> None:
        mark, rest = line[0], line[1:].strip()
        if mark == "#":
            return
        if mark in ">~@":
            self.steps.append(Step(number, line, self._command(line, rest)))
        elif mark in "<!":
            if not self.steps:
                self.steps.append(Step(number, "the client connects", None))
            if mark == "<":
                self.steps[-1].expected.append(_expectation(number, line))
            else:
                name, _, pattern = rest.partition(" ")
                self.steps[-1].effects.append(ExpectEffect(number, name, _object(pattern)))
        elif self.steps:
            raise ValueError("settings stand before everything else, and other lines begin with > < ~ ! @ or #")
        else:
            name, _, value = line.partition(" ")
            self._set(name, value.strip())

    def _set(self, name: str, value: str) -> None:
        match name:
            case "profile":
                if value not in NAMES:
                    raise ValueError(f"there is no profile '{value}'")
                self.settings.profile = value
            case "intent":
                if value not in get_args(SessionKind):
                    raise ValueError(f"there is no intent '{value}'")
                self.settings.intent = cast(SessionKind, value)
            case "dialect":
                self.settings.both = {"both": True}[value]
            case "model":
                self.settings.model = value
            case "instructions":
                self.settings.instructions = _string(value)
            case "conversation_created":
                self.settings.conversation_created = {"on": True, "off": False}[value]
            case "strict":
                self.settings.strict = {"on": True, "off": False}[value]
            case "session_seconds" | "context_window" | "max_output" | "engine_rate" | "message_images":
                setattr(self.settings, name, int(value))
            case "logprobs":
                self.settings.logprobs = {"on": True, "off": False}[value]
            case "heard_text":
                self.settings.heard_text = {"on": True, "off": False}[value]
            case "noise_reduction":
                self.settings.noise_reduction = {"on": True, "off": False}[value]
            case "speculate" | "sees_images" | "reasons":
                setattr(self.settings, name, {"on": True, "off": False}[value])
            case "prompt":
                name, _, version = value.partition(" ")
                self._prompts.setdefault(name, []).append(_json(version))
                table = {name: {"version": self._prompts[name]}}
                try:
                    self.settings.prompts[name] = read_prompts({"prompt": table}, ("",))[name].prompt
                except ConfigError as wrong:
                    raise ValueError(str(wrong)) from wrong
            case "quota":
                for pair in value.split():
                    key, _, amount = pair.partition("=")
                    if key not in ("tokens", "requests"):
                        raise ValueError("quota takes tokens=N and requests=N, per minute")
                    setattr(self.settings, key, int(amount))
            case "pure-only":
                if not value:
                    raise ValueError("pure-only needs a reason")
                self.settings.pure_only = value
            case _:
                raise ValueError(f"there is no setting '{name}'")

    def _command(self, line: str, rest: str) -> Command:
        match line[0]:
            case ">":
                return _client_command(line, rest)
            case "~":
                return _engine_command(rest)
            case _:
                if not rest.startswith("+"):
                    raise ValueError("the clock is moved by '@ +30s'")
                return MoveClock(_seconds(rest[1:]))


def _expectation(number: int, line: str) -> Expectation:
    whole = line.startswith("<=")
    kind, _, rest = line[2 if whole else 1 :].strip().partition(" ")
    if kind == "closed":
        code, _, reason = rest.partition(" ")
        return ExpectClosed(number, int(code), _string(reason) if reason else "")
    return ExpectEvent(number, kind, _object(rest.strip()), whole)


def _client_command(line: str, rest: str) -> ClientCommand:
    if line.startswith(">raw"):
        return SendText(line[5:])
    if line.startswith(">binary"):
        return SendBinary(bytes.fromhex(line[7:]))
    word, *arguments = rest.split()
    match word, arguments:
        case "speech", [length]:
            return SendSound(_milliseconds(length), SPEECH_AMPLITUDE)
        case "speech", [length, amplitude]:
            return SendSound(_milliseconds(length), float(amplitude))
        case "silence", [length]:
            return SendSound(_milliseconds(length), 0.0)
        case "append", [count, "bytes"]:
            return SendBytes(int(count))
        case "message", [count, "characters"]:
            return SendCharacters(int(count))
    if not rest.startswith("{"):
        raise ValueError("a client line is JSON, speech, silence, append, message, >raw or >binary")
    return SendEvent(_json(rest))


def _engine_command(rest: str) -> EngineCommand:
    target = _TARGET.match(rest)
    response = int(target[1]) if target else None
    word, _, argument = (rest[target.end() :] if target else rest).partition(" ")
    argument = argument.strip()
    match word:
        case "text":
            return ProduceText(_string(argument), response)
        case "audio":
            return ProduceAudio(_milliseconds(argument), response)
        case "call":
            return ProduceCall(argument, response)
        case "args":
            return ProduceArguments(_string(argument), response)
        case "finish":
            return _finish(argument, response)
        case "fail":
            return _fail(argument, response)
        case "bug":
            return Bug(response)
        case "heard":
            return _heard(argument)
        case "unheard":
            return Unheard(argument or None)
        case "vad-fault":
            return BreakVad()
        case "vad-hold":
            return HoldVad()
        case "vad-go":
            return ReleaseVad()
        case "judged":
            return Judged(float(argument))
        case _:
            raise ValueError(f"engines know no '{word}'")


def _heard(argument: str) -> Heard:
    parts = re.fullmatch(r'("(?:[^"\\]|\\.)*")((?:\s+-?\d+(?:\.\d+)?)*)', argument)
    if parts is None:
        raise ValueError('what was heard is written: heard "words", or heard "words" and a number for each')
    heard = Heard(_string(parts[1]), tuple(map(float, parts[2].split())))
    if heard.logprobs:
        heard.tokens()
    return heard


def _finish(argument: str, response: int | None) -> Finish:
    reason, _, usage = argument.partition(" ")
    if reason not in _REASONS:
        raise ValueError(f"finish takes one of {', '.join(_REASONS)}, and perhaps the usage")
    return Finish(
        cast(Literal["stop", "max_output_tokens", "content_filter"], reason),
        response,
        msgspec.convert(_object(usage.strip()), Usage) if usage else None,
    )


def _fail(argument: str, response: int | None) -> Fail:
    parts = re.fullmatch(r'(\S+)\s+("(?:[^"\\]|\\.)*")(?:\s+(\S+))?', argument)
    if parts is None:
        raise ValueError('a failure is written: fail code "message" [type]')
    return Fail(parts[1], _string(parts[2]), parts[3] or "server_error", response)


if __name__ == "__main__":
    from vivavoce.testing.live_runner import main

    main()
