# mypy: disable-error-code="import-not-found"
# It runs with versions of openai of its own.
"""The event models of ``openai``'s GA surface, for the judges that are built upon them."""

from __future__ import annotations

from typing import Final, get_args

from openai.types.realtime import RealtimeServerEvent
from openai_events import inspect_with, models_of
from witness import Findings, Known

EVENTS: Final = models_of(get_args(get_args(RealtimeServerEvent)[0]))
KNOWN: Final = Known(
    disagreements=[],
    extras={
        **dict.fromkeys(
            ("session.expires_at", "session.id", "session.object"),
            "the model of a session has what can be set, not what is shown",
        ),
        "obfuscation": "deltas carry it, recordings show",
        "content": "Azure repeats the part, recordings show",
    },
    events={},
)


def inspect(frame: str) -> Findings:
    """Raises UnknownEvent."""
    return inspect_with(EVENTS, frame)
