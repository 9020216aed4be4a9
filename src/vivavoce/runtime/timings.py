"""How long the stages of each response take, told once it has ended: to whoever counts, and to the debug log.

Laws
----
1. Nothing is done here for a frame, an append or a delta, but for the first delta of a response.
2. A line of the log holds ids, a status and milliseconds, never content.

The clock of a response starts when its task does, which for a spoken turn is as good as the end of the speech: the
recogniser's share of it is in all that follows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vivavoce.core.context import ResponsePlan
from vivavoce.runtime.engines import Stages, Telemetry
from vivavoce.wire.server_events import Response

log = logging.getLogger(__name__)

_KEPT: Final = 64


@dataclass(slots=True)
class _Clock:
    started: float
    item_id: str | None
    """The item of the user that it answers."""
    first_output: float | None = None
    first_audio: float | None = None


class Timings:
    """The clocks of one session; ``now`` is in seconds."""

    def __init__(self, session_id: str, telemetry: Telemetry, now: Callable[[], float]) -> None:
        self.silent: set[str] = set()
        """Responses that run and have not been heard yet."""
        self._session_id = session_id
        self._telemetry = telemetry
        self._now = now
        self._clocks: dict[str, _Clock] = {}
        self._recognitions: dict[str, float] = {}

    def recognised(self, item_id: str, seconds: float) -> None:
        """The words of an item are known, so long after all of its sound was there."""
        self._telemetry.recognised(seconds)
        self._recognitions[item_id] = seconds
        if len(self._recognitions) > _KEPT:
            del self._recognitions[next(iter(self._recognitions))]

    def started(self, plan: ResponsePlan) -> None:
        last = plan.context[-1].item if plan.context else None
        self._clocks[plan.response_id] = _Clock(self._now(), None if last is None else last.id)
        self.silent.add(plan.response_id)

    def output(self, response_id: str) -> None:
        """It has an item: the model has said something."""
        clock = self._clocks.get(response_id)
        if clock is not None and clock.first_output is None:
            clock.first_output = self._now()

    def audio(self, response_id: str) -> None:
        """Its first sound is on its way."""
        self.silent.discard(response_id)
        clock = self._clocks.get(response_id)
        if clock is not None:
            clock.first_audio = self._now()

    def done(self, response: Response) -> None:
        """It has ended; one that was refused never started."""
        self.silent.discard(response.id)
        clock = self._clocks.pop(response.id, None)
        stages = Stages()
        if clock is not None:

            def since(at: float | None) -> float | None:
                return None if at is None else at - clock.started

            stages = Stages(
                recognition_s=None if clock.item_id is None else self._recognitions.get(clock.item_id),
                first_output_s=since(clock.first_output),
                first_audio_s=since(clock.first_audio),
                total_s=since(self._now()),
            )
        self._telemetry.responded(response.status, stages)
        if log.isEnabledFor(logging.DEBUG):
            details = response.status_details
            log.debug(
                "response %s of session %s: %s%s; recognition %s, first output %s, first audio %s, total %s",
                response.id,
                self._session_id,
                response.status,
                f" ({details.error.code})" if details is not None and details.error is not None else "",
                *map(_ms, (stages.recognition_s, stages.first_output_s, stages.first_audio_s, stages.total_s)),
            )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
