"""Turns: when a person begins and ends to speak (server_vad, protocol section 7.3).

Laws
----
1. A turn is decided on audio time alone: on frames of 32 ms, never on the wall clock.
2. ``Quiet -> Speaking`` at the first frame whose probability reaches the threshold; its beginning is the onset.
3. ``Speaking -> Hesitating`` at a frame below the exit threshold; its beginning is where silence began.
   ``Hesitating -> Speaking`` at a frame that reaches the threshold. A frame between the two thresholds leaves
   things as they are.
4. ``Hesitating -> Quiet`` when the silence has lasted ``silence_duration_ms``: the turn ends at the end of that
   frame, so that it contains the silence.
5. Frames that were judged while detection is off change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from vivavoce.audio.formats import TICKS_PER_MS
from vivavoce.wire.session_config import ServerVad

FRAME_TICKS: Final = 32 * TICKS_PER_MS
_HYSTERESIS: Final = 0.15
_LEAST_EXIT: Final = 0.01


@dataclass(frozen=True, slots=True)
class Off:
    """No turn detection: the client commits by hand."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nobody speaks."""


@dataclass(frozen=True, slots=True)
class Speaking:
    item_id: str
    """Announced by ``speech_started``; the item that the turn will become."""
    from_tick: int
    """Where the audio of the item begins, padding included."""


@dataclass(frozen=True, slots=True)
class Hesitating:
    """Silence within a turn; counted from ``silent_from``."""

    item_id: str
    from_tick: int
    silent_from: int


Turn: TypeAlias = Off | Quiet | Speaking | Hesitating


@dataclass(frozen=True, slots=True)
class Began:
    """A turn began; its audio starts at ``from_tick`` (never before tick 0)."""

    from_tick: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A turn ended; its audio is ``from_tick .. end_tick``."""

    item_id: str
    from_tick: int
    end_tick: int


def exit_threshold(vad: ServerVad) -> float:
    """Below this a frame is silence; a little under the threshold, so that a voice does not flicker."""
    return min(vad.threshold, max(vad.threshold - _HYSTERESIS, _LEAST_EXIT))


def hear(turn: Turn, end_tick: int, probability: float, vad: ServerVad) -> tuple[Turn, Began | Ended | None]:
    """One judged frame -> the next state, and what it means. After ``Began`` the caller names the item
    (:func:`begin`), since only it can make ids."""
    match turn:
        case Off():
            return turn, None
        case Quiet():
            if probability < vad.threshold:
                return turn, None
            start = end_tick - FRAME_TICKS - vad.prefix_padding_ms * TICKS_PER_MS
            return turn, Began(max(0, start))
        case Speaking():
            if probability >= exit_threshold(vad):
                return turn, None
            turn = Hesitating(turn.item_id, turn.from_tick, end_tick - FRAME_TICKS)
            return _end(turn, end_tick, vad)
        case Hesitating():
            if probability >= vad.threshold:
                return Speaking(turn.item_id, turn.from_tick), None
            return _end(turn, end_tick, vad)


def begin(began: Began, item_id: str) -> Speaking:
    return Speaking(item_id, began.from_tick)


def renamed(turn: Speaking | Hesitating, item_id: str, from_tick: int) -> Speaking | Hesitating:
    """The rest of a turn whose first part the client committed by hand (protocol section 4.2)."""
    return replace(turn, item_id=item_id, from_tick=from_tick)


def _end(turn: Hesitating, end_tick: int, vad: ServerVad) -> tuple[Turn, Ended | None]:
    if end_tick - turn.silent_from < vad.silence_duration_ms * TICKS_PER_MS:
        return turn, None
    return Quiet(), Ended(turn.item_id, turn.from_tick, end_tick)
