"""When a session wants to be woken: when it expires, and when nobody has spoken for long after an answer, so that
the assistant speaks again (``idle_timeout_ms``, protocol section 7.4).

Laws
----
1. The wait for speech begins when the last response of the conversation has been heard: at its end, and as much
   later as its audio lasts, for the client plays it meanwhile.
2. Speech ends the wait, and so do a commit by hand and the next response. Each response begins one wait at most.
3. It is a wait on the clock, not on audio: nothing need come in meanwhile.
4. Where no timeout is set nobody waits, and nothing is kept for it.
"""

from __future__ import annotations

import math

from vivavoce.audio.formats import TICKS_PER_MS
from vivavoce.wire.session_config import ServerVad, TurnDetection


class Deadlines:
    """Of one session. Times are those of its clock, in seconds."""

    def __init__(self, expiry: float) -> None:
        self.expiry = expiry
        self.silent_from: int | None = None
        """Where on the audio clock the wait for speech began; None while there is none."""
        self._silent_since = math.inf

    def heard(self, now: float, tick: int, audio_ms: int) -> None:
        """A response has ended at ``now``, with ``audio_ms`` to be heard; ``tick``: the audio clock."""
        self._silent_since = now + audio_ms / 1000
        self.silent_from = tick + audio_ms * TICKS_PER_MS

    def next(self, vad: TurnDetection | None) -> float:
        """The nearest deadline, with this turn detection."""
        if not isinstance(vad, ServerVad) or vad.idle_timeout_ms is None:
            return self.speech()
        return min(self.expiry, self._silent_since + vad.idle_timeout_ms / 1000)

    def speech(self) -> float:
        """The wait is over -> the deadline that is left."""
        self._silent_since = math.inf
        self.silent_from = None
        return self.expiry
