"""What the Python judges share: cases, their results, and sounds. Standard library only, for it runs in any
environment.

A judge prints one JSON line for each case: ``{"case", "ok", "detail"}``. The runner reads them (``run.py``).
"""

from __future__ import annotations

import array
import asyncio
import json
import logging
import os
import ssl
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar

KEY: Final = os.environ["JUDGE_KEY"]
PORT: Final = int(os.environ["JUDGE_PORT"])
"""Of a server that speaks plain ``ws://`` on the loopback address."""
TLS_PORT: Final = int(os.environ.get("JUDGE_TLS_PORT", "0"))
SOUNDS: Final = Path(os.environ["JUDGE_SOUNDS"])
FRAMES: Final = Path(os.environ["JUDGE_FRAMES"])
"""Every server frame of every golden script of the preview dialect (``golden_frames.py``)."""
FRAMES_GA: Final = Path(os.environ["JUDGE_FRAMES_GA"])
"""The same of the GA dialect."""

MODEL: Final = "gpt-4o-realtime-preview"
"""The deployment as it comes, of December 2024."""
MODEL_2025: Final = "gpt-4o-realtime-preview-2025"
"""The deployment with the profile of April 2025."""
FORGETFUL: Final = "gpt-4o-realtime-preview-forgetful"
"""The deployment whose model reads 300 tokens at most."""
CALLER: Final = "gpt-4o-realtime-preview-caller"
"""The deployment that calls get_weather for Rome when it hears :func:`question`, if it may."""
HEARD: Final = "hello can you tell me what you heard me say"
"""What is said in :func:`question`, as the recogniser hears it."""
ECHO: Final = f"You said: {HEARD}."
STORY: Final = "Once upon a time there was a king. He"
"""What the model says to "story" before it falls silent for ten minutes."""

PIXEL: Final = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABAQAAAAA3bvkkAAAACklEQVR42mNgAAAAAgAB5Sfe/AAAAABJRU5ErkJggg=="
)
"""A picture, which takes 255 tokens; the model says of it that it is "a picture"."""

CASE_S: Final = 60.0
"""When a case hangs, not when it is slow."""
RATE: Final = 24_000

Check = Callable[[], Awaitable[str | None]]
_Check = TypeVar("_Check", bound=Check)
_Error = TypeVar("_Error", bound=BaseException)
_cases: list[tuple[str, Check]] = []


def case(name: str, *, when: bool = True) -> Callable[[_Check], _Check]:
    """A coroutine function that raises if the server fails the case, and may return what is worth telling.

    ``when`` is false where this version of the client has no such thing.
    """

    def register(check: _Check) -> _Check:
        if when:
            _cases.append((name, check))
        return check

    return register


def tell(name: str, ok: bool, detail: str = "", seconds: float = 0.0) -> None:
    line = {"case": name, "ok": ok, "detail": detail, "seconds": round(seconds, 2)}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the cases, those only that are named on the command line if any are."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    wanted = sys.argv[1:]
    for name, check in _cases:
        if wanted and name not in wanted:
            continue
        began = time.monotonic()
        try:
            detail = asyncio.run(asyncio.wait_for(check(), CASE_S))
        except Exception as error:
            traceback.print_exc()
            tell(name, False, _reason(error), time.monotonic() - began)
        else:
            tell(name, True, detail or "", time.monotonic() - began)


class Raised(Generic[_Error]):
    """What a block raised; set when it is left."""

    error: _Error


@contextmanager
def raising(kind: type[_Error] | tuple[type[_Error], ...]) -> Iterator[Raised[_Error]]:
    """The block must raise an error of this kind, or of one of these."""
    raised = Raised[_Error]()
    try:
        yield raised
    except kind as error:
        raised.error = error
    else:
        raise AssertionError(f"no {kind} came")


async def eventually(condition: Callable[[], bool]) -> None:
    """Come back when it holds; the time limit of the case ends the wait for what never comes."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.005)


def _reason(error: BaseException) -> str:
    where = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in where if Path(frame.filename).parent == Path(__file__).parent]
    place = f" at {Path(own[-1].filename).name}:{own[-1].lineno}: {own[-1].line}" if own else ""
    return f"{type(error).__name__}: {str(error)[:500]}{place}"


# ---------------------------------------------------------------------------------------------------- sound


def question() -> bytes:
    """A spoken question, pcm16 at 24 kHz, with a second of silence after it."""
    return (SOUNDS / "question.pcm").read_bytes()


def telephone_question() -> bytes:
    """The same as G.711 u-law at 8 kHz."""
    return (SOUNDS / "question.ulaw").read_bytes()


def loudness(sound: bytes) -> float:
    """RMS of pcm16, 1.0 for full scale."""
    samples = array.array("h", sound)
    return float((sum(value * value for value in samples) / max(1, len(samples))) ** 0.5 / 32768)


def check_speech(sound: bytes, *, at_least_ms: int) -> None:
    """Raises AssertionError unless it is ``at_least_ms`` of audible pcm16 at 24 kHz."""
    ms = len(sound) // (2 * RATE // 1000)
    assert ms >= at_least_ms, f"{ms} ms of audio, not {at_least_ms}"
    assert loudness(sound) > 0.01, f"loudness is {loudness(sound):.4f}"


# ---------------------------------------------------------------------------------------------------- frames

Disagreement = tuple[str, str, str]
"""Event type (or a prefix of it with ``*``), what the fault starts with, and whose mistake it is and why."""


class UnknownEvent(Exception):
    """The client has no model for the event."""


class Findings(NamedTuple):
    """What a client's models find in a frame."""

    faults: list[str]
    """As ``place: problem``."""
    extras: list[str]
    """Paths of fields that they have no place for, and that the client keeps or drops."""


class Known(NamedTuple):
    """What is known to be missing or wrong in a client's models, with reasons."""

    disagreements: list[Disagreement]
    extras: dict[str, str]
    """Path of a field: why they lack it."""
    events: dict[str, str]
    """Type of an event: why they lack it."""


def judge_frames(inspect: Callable[[str], Findings], known: Known, frames: Path = FRAMES) -> str:
    """Put every golden frame in a file before the client's own models -> what came of it.

    Raises AssertionError when something is found that is not known, and when a known disagreement is not met.
    """
    total = valid = excused = skipped = extended = 0
    met: dict[str, int] = {}
    wrong: dict[str, int] = {}
    for line in frames.read_text().splitlines():
        record = json.loads(line)
        kind = record["frame"]["type"]
        total += 1
        try:
            findings = inspect(json.dumps(record["frame"]))
        except UnknownEvent:
            skipped += 1
            reason = f"{kind}: {known.events[kind]}" if kind in known.events else None
            _note(reason, f"{kind} is not known", met, wrong)
            continue
        reasons = [_excuse(kind, fault, known.disagreements) for fault in findings.faults]
        for fault, reason in zip(findings.faults, reasons, strict=True):
            _note(reason, f"{record['script']}.rts: {kind} {fault}", met, wrong)
        for path in findings.extras:
            _note(known.extras.get(path), f"{record['script']}.rts: {kind} has the unknown {path}", met, wrong)
        valid += not reasons
        extended += not reasons and bool(findings.extras)
        excused += bool(reasons) and all(reasons)
    for reason in {reason for _, _, reason in known.disagreements} - set(met):
        _count(wrong, f"not met: {reason}")
    assert not wrong, "; ".join(f"{count} x {fault}" for fault, count in wrong.items())
    told = (
        f"{total} frames: {valid} valid ({extended} with fields that are new to the client), "
        f"{excused} valid but for mistakes of the client, {skipped} of types that are new to it"
    )
    return "; ".join([told, *(f"{count} x {reason}" for reason, count in sorted(met.items()))])


def _note(reason: str | None, what: str, met: dict[str, int], wrong: dict[str, int]) -> None:
    _count(met, reason) if reason else _count(wrong, what)


def _count(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1


def _excuse(kind: str, fault: str, disagreements: list[Disagreement]) -> str | None:
    for event, start, reason in disagreements:
        if (kind == event or (event.endswith("*") and kind.startswith(event[:-1]))) and fault.startswith(start):
            return reason
    return None


def trusting() -> ssl.SSLContext:
    """TLS that trusts the authority that the runner made for this run."""
    return ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
