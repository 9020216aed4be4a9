"""The engine conformance kit: does an engine keep the promises of :mod:`vivavoce.engines.base`?

With pytest, and no plug-in of it::

    from vivavoce.testing import conformance

    SUBJECT = conformance.Subject(kind="synthesizer", create=create, options={"tone_ms": 50})

    @pytest.mark.parametrize("check", conformance.checks(SUBJECT), ids=str)
    def test_conforms(check):
        check()

In a test that is a coroutine, ``await check.run()``. Without pytest, ``conformance.report(SUBJECT)`` tells what is
broken, in a list of lines that is empty when nothing is.

Every check makes its own engines, so that none depends on another; what a check starts it also closes.
"""

from __future__ import annotations

import asyncio
from typing import Final

from vivavoce.testing.conformance import hearing, life, models, speaking
from vivavoce.testing.conformance.subject import Check, Checks, Kind, NotConforming, Subject

__all__ = ["Check", "Kind", "NotConforming", "Subject", "checks", "report"]

_OF_KIND: Final[dict[Kind, Checks]] = {
    "vad": hearing.VAD,
    "transcriber": hearing.TRANSCRIBER,
    "end_of_turn": hearing.END_OF_TURN,
    "language_model": models.LANGUAGE_MODEL,
    "synthesizer": speaking.SYNTHESIZER,
    "speech_model": models.SPEECH_MODEL,
}


def checks(subject: Subject) -> tuple[Check, ...]:
    """All that an engine of this kind must pass; ``str(check)`` is its name."""
    works = (*life.ALL, *(() if subject.kind == "vad" else life.STREAMS), *_OF_KIND[subject.kind])
    return tuple(Check(work.__name__, subject, work) for work in works)


def report(subject: Subject) -> list[str]:
    """Run all checks in event loops of their own; a line for each that is broken."""
    return asyncio.run(_report(subject))


async def _report(subject: Subject) -> list[str]:
    broken = []
    for check in checks(subject):
        try:
            await check.run()
        except NotConforming as fault:
            broken.append(f"{check}: {fault}")
        except Exception as bug:
            broken.append(f"{check}: {type(bug).__name__}: {bug}")
    return broken
