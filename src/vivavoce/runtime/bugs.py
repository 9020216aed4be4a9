"""Telling a bug to the log without telling what people said.

The message of an exception may quote what was being worked on: a prompt, a transcript, a key. So a bug is logged by
its type and the places that it came through, and its message is left out.
"""

from __future__ import annotations

import traceback


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
