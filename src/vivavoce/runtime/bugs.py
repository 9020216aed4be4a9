"""Telling a bug to the log without telling what people said.

The message of an exception may quote what was being worked on: a prompt, a transcript, a key. So a bug is logged by
its type and the places that it came through, and its message is left out.
"""

from __future__ import annotations

import traceback

from vivavoce.engines.base import EngineError


def outline(error: BaseException) -> str:
    """The types and frames of ``error``, of its causes and of the members of a group; no messages."""
    lines = [f"{type(error).__module__}.{type(error).__qualname__}"]
    lines += [
        f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
    ]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        lines += ["after", *("  " + line for line in outline(cause).splitlines())]
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            lines += ["with", *("  " + line for line in outline(inner).splitlines())]
    return "\n".join(lines)


def engine_error(raised: BaseException) -> EngineError | None:
    """The engine's own fault in ``raised``, if that is all there is."""
    if isinstance(raised, EngineError):
        return raised
    if isinstance(raised, BaseExceptionGroup):
        faults = [engine_error(inner) for inner in raised.exceptions]
        return faults[0] if all(fault is not None for fault in faults) else None
    return None
