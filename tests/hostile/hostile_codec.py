"""Mutated client events, through codec and session, by hand: ``python tests/hostile/hostile_codec.py --seed 1``.

The corpus is what the clients of all golden scripts say. An event is changed in its structure (keys, types,
nesting, numbers at the edges, texts), sometimes in its characters too, and given to a pure session of a profile.

What must hold: nothing is raised; what comes out is valid JSON; an ``error`` has a code of the catalogue and the
client's ``event_id``; an event that is refused is answered by that one ``error``, and the configuration is what it
was.

``--atheris`` lets the fuzzer of that name (PyPI, not installed by us) look for frames instead, guided by coverage.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hostile_model import EARLY_TEXTS

from vivavoce.testing.matching import Names
from vivavoce.testing.pure_runner import PureRunner
from vivavoce.testing.script import SendEvent, SendText, Settings, load
from vivavoce.wire.client_events import Rejected
from vivavoce.wire.codec import codec_of
from vivavoce.wire.dialects.profiles import NAMES as PROFILES

SCRIPTS: Final = Path(__file__).parent.parent / "scripts"
PER_SESSION: Final = 100
"""Events that one session gets."""

FORM: Final = {
    "invalid_json",
    "invalid_event",
    "invalid_value",
    "unknown_parameter",
    "missing_required_parameter",
    "invalid_type",
    "string_above_max_length",
    "string_below_min_length",
    "decimal_below_min_value",
    "decimal_above_max_value",
    "integer_below_min_value",
    "integer_above_max_value",
    "array_above_max_length",
    "object_above_max_properties",
}
"""Codes of what can be told from a frame alone."""
STATE: Final = {
    "cannot_update_voice",
    "conversation_already_has_active_response",
    "input_audio_buffer_commit_empty",
    "input_audio_buffer_full",
    "invalid_parameter",
    "invalid_tool_call_id",
    "item_create_duplicate_item_id",
    "item_create_invalid_previous_item_id",
    "item_delete_invalid_item_id",
    "item_retrieve_invalid_item_id",
    "item_truncate_invalid_item_id",
    "response_cancel_not_active",
    "too_many_active_responses",
    "unsupported_content_type",
}
"""Codes of what does not go with what was before."""

EDGES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    4096,
    4097,
    2**31,
    2**53 + 1,
    2**63,
    -(2**63) - 1,
    2**64,
    10**30,
    10**400,
    0.6,
    1.2,
    1.2000000000000002,
    -0.0,
    5e-324,
    1e308,
    "",
    "inf",
    "null",
    "root",
    "x" * 33,
    "x" * 513,
    "x" * 5000,
    "\u0000",
    "\ud800",
    "\U0001f600" * 20,
    "e\u0301",
    "\u202e",
    "AAAA",
    "AAA",
    [],
    {},
    [[[[[[]]]]]],
    {"type": None},
    {"type": "message"},
    {"type": "item_reference", "id": "a"},
)
NAMES: Final = (
    "type",
    "event_id",
    "session",
    "item",
    "id",
    "content",
    "response",
    "input",
    "audio",
    "tools",
    "name",
)


def corpus() -> list[dict[str, Any]]:
    """Every client event of every golden script."""
    found = {}
    for path in sorted(SCRIPTS.rglob("*.rts")):
        for step in load(path).steps:
            if isinstance(step.command, SendEvent) and isinstance(step.command.value, dict):
                found[json.dumps(step.command.value)] = step.command.value
    return list(found.values())


class Mutator:
    """Frames without end, decided by ``seed``."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._corpus = corpus()

    def frame(self) -> str:
        chance = self._random
        event = copy.deepcopy(chance.choice(self._corpus))
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 5))):
            self._change(event)
        text = json.dumps(event, ensure_ascii=chance.random() < 0.5, allow_nan=True)
        if chance.random() < 0.1:
            text = self._twice(text)
        if chance.random() < 0.1:
            text = self._disturb(text)
        return text

    def _change(self, event: dict[str, Any]) -> None:
        chance = self._random
        places = _places(event)
        if not places:
            return
        holder, key = chance.choice(places)
        match chance.randrange(8):
            case 0 | 1:
                holder[key] = copy.deepcopy(chance.choice(EDGES))
            case 2:
                del holder[key]
            case 3:
                other, name = chance.choice(places)
                if isinstance(other, list) or name in other:
                    holder[key] = copy.deepcopy(other[name])
            case 4 if isinstance(holder, dict):
                name = chance.choice((*NAMES, "bogus", "", "\u00e9", "Type"))
                holder[name] = copy.deepcopy(chance.choice(EDGES))
            case 5 if isinstance(holder, list):
                holder.extend(copy.deepcopy(holder[key]) for _ in range(chance.choice((1, 20, 200))))
            case 6:
                for _ in range(chance.choice((1, 5, 20))):
                    holder[key] = [holder[key]] if chance.random() < 0.5 else {"type": holder[key]}
            case _:
                value = holder[key]
                if isinstance(value, int | float) and not isinstance(value, bool):
                    holder[key] = chance.choice(
                        (value + 1, -value, value * 16, value - 0.5 if abs(value) < 1e9 else 0.5, repr(value)[:40])
                    )
                elif isinstance(value, str):
                    holder[key] = chance.choice((value + "x", value.upper(), value * 50, value[:-1], f" {value}"))

    def _twice(self, text: str) -> str:
        """A key that stands twice in an object; the last counts."""
        at = self._random.choice([i for i, char in enumerate(text) if char == "{"])
        rest = "" if text[at + 1] == "}" else ","
        value = json.dumps(self._random.choice(EDGES))
        return f'{text[: at + 1]}"{self._random.choice(NAMES)}":{value}{rest}{text[at + 1 :]}'

    def _disturb(self, text: str) -> str:
        chance = self._random
        at = chance.randrange(len(text))
        match chance.randrange(5):
            case 0:
                return text[:at]
            case 4 if ":" in text:
                depth, at = chance.choice((99, 1000, 5000)), text.rindex(":") + 1
                return f"{text[:at]}{'[' * depth}{']' * depth}{'}' * (len(text) - len(text.rstrip('}')))}"
            case 1:
                return text[:at] + chance.choice('{}[]",:\\\u0000\ud800 ') + text[at + 1 :]
            case 2:
                return text[:at] + text[at + 1 :]
            case _:
                return text + text


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value; those far below are left out."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 500:
        one = waiting.pop()
        keys: Any = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        found += [(one, key) for key in keys]
        waiting += [one[key] for key in keys]
    return found


def _has_no_code(message: str) -> bool:
    """An error that the service tells without a code."""
    return (
        message in EARLY_TEXTS.values()
        or re.fullmatch(r"Prompt with id '.*' not found\.", message, re.DOTALL) is not None
    )


class Checker:
    """Gives frames to a session and looks at what comes of them."""

    def __init__(self, profile: str, seed: bytes) -> None:
        self.codes: Counter[str] = Counter()
        self._codec = codec_of(profile)
        self._runner = PureRunner(Settings(profile=profile), seed)
        self._runner.open()
        self._config = self._runner.config

    def check(self, frame: str) -> None:
        """Raises AssertionError, and whatever the codec or the session raise."""
        came = self._runner.perform(SendText(frame), Names())
        answers = [event for event in came if isinstance(event, dict)]
        assert len(answers) == len(came), "the session was closed"
        errors = [event["error"] for event in answers if event["type"] == "error"]
        for error in errors:
            assert set(error) == {"type", "code", "message", "param", "event_id"}
            assert error["type"] == "invalid_request_error"
            assert error["code"] in FORM | STATE or _has_no_code(error["message"]), error
            assert error["message"]
            assert error["param"] is None or isinstance(error["param"], str)
            assert len(error["message"]) < 20_000, "an error says more than anybody would read"
            self.codes[str(error["code"])] += 1
        if errors:
            assert len(answers) == 1, answers
            assert self._runner.config == self._config, "a refused event changed the session"
        else:
            self.codes["accepted"] += 1
        self._config = self._runner.config
        decoded = self._codec.decode(frame)
        if isinstance(decoded, Rejected):
            assert [error["code"] for error in errors] == [decoded.error.code]
            assert decoded.error.code in FORM
        else:
            assert all(error["event_id"] == decoded.event_id for error in errors)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Mutated client events against codec and session.")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", nargs=argparse.REMAINDER, help="what follows goes to the fuzzer")
    options = parser.parse_args(arguments)
    if options.atheris is not None:
        fuzz(options.atheris)
        return
    began, codes = time.monotonic(), run(options.events, options.seed)
    seconds = time.monotonic() - began
    for code, count in sorted(codes.items()):
        tell(f"  {count:8} {code}")
    tell(f"seed {options.seed}: {codes.total()} frames, {codes.total() / seconds:.0f}/s; no invariant broken")


def run(events: int, seed: int) -> Counter[str]:
    """How often each code, or ``accepted``, was the answer. On a failure the frame is printed."""
    mutator, codes, profiles = Mutator(seed), Counter[str](), list(PROFILES)
    for session in range(-(-events // PER_SESSION)):
        checker = Checker(profiles[session % len(profiles)], f"{seed}.{session}".encode())
        for _ in range(PER_SESSION):
            frame = mutator.frame()
            try:
                checker.check(frame)
            except Exception:
                tell(f"FAILED: seed {seed}, profile {profiles[session % len(profiles)]}:\n{frame!a}")
                raise
        codes += checker.codes
    return codes


def fuzz(arguments: list[str]) -> None:
    """Let atheris look for frames; runs until it finds one, or as long as its arguments say."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["vivavoce.wire"]):
        for name in [name for name in sys.modules if name.startswith("vivavoce.wire")]:
            del sys.modules[name]
        make = importlib.import_module("vivavoce.wire.codec").codec_of
        rejected = importlib.import_module("vivavoce.wire.client_events").Rejected
    codecs = [make(profile) for profile in PROFILES]

    def one(data: bytes) -> None:
        for codec in codecs:
            decoded = codec.decode(data)
            if isinstance(decoded, rejected) and decoded.error.code not in FORM:
                raise AssertionError(decoded.error)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
