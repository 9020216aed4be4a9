"""Turns: when a person begins and ends to speak (server_vad and semantic_vad, protocol sections 7.3 and 7.4).

Laws
----
1. A turn is decided on audio time alone: on frames of 32 ms, never on the wall clock.
2. ``Quiet -> Speaking`` at the first frame whose probability reaches the threshold; its beginning is the onset.
3. ``Speaking -> Hesitating`` at a frame below the exit threshold; its beginning is where silence began.
   ``Hesitating -> Speaking`` at a frame that reaches the threshold. A frame between the two thresholds leaves
   things as they are.
4. ``Hesitating -> Quiet`` when the silence has lasted long enough: the turn ends at the end of that frame, so that
   it contains the silence. With server_vad that is ``silence_duration_ms``.
5. With semantic_vad it is :func:`patience_ms`: the likelier it is that the speaker has finished, the shorter. The
   question is asked at :data:`ASKED_AT_MS` of a silence; its latest answer counts, from the moment it is here.
   An answer about another silence than the present one changes nothing.
6. Frames that were judged while detection is off change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from vivavoce.audio.formats import TICKS_PER_MS
from vivavoce.wire.session_config import Eagerness, SemanticVad, ServerVad, TurnDetection

FRAME_TICKS: Final = 32 * TICKS_PER_MS
ASKED_AT_MS: Final = (192, 512, 1024, 2048, 4096)
"""Silence after which semantic_vad asks whether the speaker has finished: whole frames. The first is as much as
the sounds of speech itself may have (a held stop), so no turn ends earlier; later on the recogniser knows more."""
LONGEST_MS: Final[dict[Eagerness, int]] = {"low": 8000, "medium": 4000, "high": 2000, "auto": 4000}
"""Silence after which a semantic_vad turn ends whatever was said (protocol section 7.4)."""
LIKELY_OVER_MS: Final = (96, 192)
"""Silence after which a turn is likely over: half of what ends it, within these bounds (whole frames). Hardly a
word has a silence of the second within, and few have one of the first."""
_ASKED_AT: Final = frozenset(ms * TICKS_PER_MS for ms in ASKED_AT_MS)
_HYSTERESIS: Final = 0.15
_LEAST_EXIT: Final = 0.01


@dataclass(frozen=True, slots=True)
class Off:
    """No turn detection: the client commits by hand."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nobody speaks."""


class Speaking(Struct, frozen=True):
    item_id: str
    """Announced by ``speech_started``; the item that the turn will become."""
    from_tick: int
    """Where the audio of the item begins, padding included."""


class Hesitating(Struct, frozen=True):
    """Silence within a turn; counted from ``silent_from``."""

    item_id: str
    from_tick: int
    silent_from: int
    until: int
    """The end of the last frame that was heard."""
    finished: float = 0.0
    """Probability that the speaker has finished, as judged last; 0 before."""


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


@dataclass(frozen=True, slots=True)
class Asked:
    """Has the speaker finished? The silence from ``silent_from`` to ``end_tick`` is long enough to ask."""

    item_id: str
    from_tick: int
    silent_from: int
    end_tick: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """The speaker goes on: an answer about the silence before would come too late."""

    item_id: str


News: TypeAlias = Began | Asked | Resumed | Ended


def patience_ms(finished: float, eagerness: Eagerness) -> float:
    """The silence that ends a turn of semantic_vad, where the speaker has finished with this probability.

    From the first question's silence, when that is certain, up to the longest wait, when it is certain that more is
    to come. It falls off with the square of the doubt, so that a likely end is answered about as fast as with
    server_vad (0.9: 230 ms of medium eagerness) while an open question costs a second (0.5: 1144 ms).
    """
    doubt = 1.0 - min(max(finished, 0.0), 1.0)
    return ASKED_AT_MS[0] + (LONGEST_MS[eagerness] - ASKED_AT_MS[0]) * doubt * doubt


def exit_threshold(vad: TurnDetection) -> float:
    """Below this a frame is silence; a little under the threshold, so that a voice does not flicker."""
    return min(vad.threshold, max(vad.threshold - _HYSTERESIS, _LEAST_EXIT))


def hear(turn: Turn, end_tick: int, probability: float, vad: TurnDetection) -> tuple[Turn, News | None]:
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
            if probability >= vad.threshold or probability >= exit_threshold(vad):
                return turn, None
            return _wait(Hesitating(turn.item_id, turn.from_tick, end_tick - FRAME_TICKS, end_tick), vad)
        case Hesitating():
            if probability >= vad.threshold:
                asked = isinstance(vad, SemanticVad) and turn.until - turn.silent_from >= min(_ASKED_AT)
                return Speaking(turn.item_id, turn.from_tick), Resumed(turn.item_id) if asked else None
            return _wait(Hesitating(turn.item_id, turn.from_tick, turn.silent_from, end_tick, turn.finished), vad)


def judged(
    turn: Turn, item_id: str, silent_from: int, finished: float, vad: TurnDetection
) -> tuple[Turn, Ended | None]:
    """An answer to :class:`Asked` -> the next state, and whether the turn has ended with the last frame heard."""
    if not isinstance(turn, Hesitating) or not isinstance(vad, SemanticVad):
        return turn, None
    if (turn.item_id, turn.silent_from) != (item_id, silent_from):
        return turn, None
    known = replace(turn, finished=finished)
    return _end(known) if _is_over(known, vad) else (known, None)


def is_likely_over(turn: Turn, vad: TurnDetection) -> bool:
    """The silence is long enough to believe that the turn ends with it, though it has not yet."""
    if not isinstance(turn, Hesitating):
        return False
    least, most = LIKELY_OVER_MS
    half = vad.silence_duration_ms // 2 if isinstance(vad, ServerVad) else most
    return turn.until - turn.silent_from >= min(max(half, least), most) * TICKS_PER_MS


def begin(began: Began, item_id: str) -> Speaking:
    return Speaking(item_id, began.from_tick)


def renamed(turn: Speaking | Hesitating, item_id: str, from_tick: int) -> Speaking | Hesitating:
    """The rest of a turn whose first part the client committed by hand (protocol section 4.2).

    By that the client has said of a silence under way that the speaker has finished.
    """
    if isinstance(turn, Hesitating):
        return replace(turn, item_id=item_id, from_tick=from_tick, finished=1.0)
    return replace(turn, item_id=item_id, from_tick=from_tick)


def _wait(turn: Hesitating, vad: TurnDetection) -> tuple[Turn, Asked | Ended | None]:
    if _is_over(turn, vad):
        return _end(turn)
    if isinstance(vad, SemanticVad) and turn.until - turn.silent_from in _ASKED_AT:
        return turn, Asked(turn.item_id, turn.from_tick, turn.silent_from, turn.until)
    return turn, None


def _is_over(turn: Hesitating, vad: TurnDetection) -> bool:
    patience = vad.silence_duration_ms if isinstance(vad, ServerVad) else patience_ms(turn.finished, vad.eagerness)
    return turn.until - turn.silent_from >= patience * TICKS_PER_MS


def _end(turn: Hesitating) -> tuple[Turn, Ended]:
    return Quiet(), Ended(turn.item_id, turn.from_tick, turn.until)
