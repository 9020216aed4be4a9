"""Turn detection: every cell, and random speech against a reference written from protocol section 7.3."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from vivavoce.audio.formats import TICKS_PER_MS
from vivavoce.core import turns
from vivavoce.core.turns import (
    ASKED_AT_MS,
    FRAME_TICKS,
    LONGEST_MS,
    Asked,
    Began,
    Ended,
    Hesitating,
    News,
    Off,
    Quiet,
    Resumed,
    Speaking,
    Turn,
)
from vivavoce.wire.session_config import Eagerness, SemanticVad, ServerVad

FRAME = FRAME_TICKS
VAD = ServerVad(threshold=0.5, prefix_padding_ms=300, silence_duration_ms=200)
LOUD, MIDDLE, SILENT = 0.5, 0.35, 0.34
SPEAKING = Speaking("item_1", 100)
HESITATING = Hesitating("item_1", 100, 50 * FRAME, 55 * FRAME)


@pytest.mark.parametrize(
    ("state", "frame", "probability", "then", "news"),
    [
        (Off(), 1, LOUD, Off(), None),
        (Off(), 1, MIDDLE, Off(), None),
        (Off(), 1, SILENT, Off(), None),
        (Quiet(), 1, LOUD, Quiet(), Began(0)),
        (Quiet(), 10, LOUD, Quiet(), Began(0)),
        (Quiet(), 11, LOUD, Quiet(), Began(20 * TICKS_PER_MS)),
        (Quiet(), 56, LOUD, Quiet(), Began(1460 * TICKS_PER_MS)),
        (Quiet(), 56, MIDDLE, Quiet(), None),
        (Quiet(), 56, SILENT, Quiet(), None),
        (SPEAKING, 56, LOUD, SPEAKING, None),
        (SPEAKING, 56, MIDDLE, SPEAKING, None),
        (SPEAKING, 56, SILENT, Hesitating("item_1", 100, 55 * FRAME, 56 * FRAME), None),
        (HESITATING, 56, LOUD, SPEAKING, None),
        (HESITATING, 56, MIDDLE, replace(HESITATING, until=56 * FRAME), None),
        (HESITATING, 56, SILENT, replace(HESITATING, until=56 * FRAME), None),
        (HESITATING, 57, LOUD, SPEAKING, None),
        (HESITATING, 57, SILENT, Quiet(), Ended("item_1", 100, 57 * FRAME)),
        (HESITATING, 57, MIDDLE, Quiet(), Ended("item_1", 100, 57 * FRAME)),
    ],
)
def test_cell(state: Turn, frame: int, probability: float, then: Turn, news: News | None) -> None:
    assert turns.hear(state, frame * FRAME, probability, VAD) == (then, news)


def test_the_cells_have_every_state() -> None:
    assert set(get_args(Turn)) == {Off, Quiet, Speaking, Hesitating}


def test_no_silence_asked_for_ends_at_the_first_silent_frame() -> None:
    vad = ServerVad(silence_duration_ms=0)
    assert turns.hear(SPEAKING, 56 * FRAME, SILENT, vad) == (Quiet(), Ended("item_1", 100, 56 * FRAME))


@pytest.mark.parametrize("silence_ms", [1, 31, 32])
def test_silence_up_to_a_frame_ends_at_the_first_silent_frame(silence_ms: int) -> None:
    vad = ServerVad(silence_duration_ms=silence_ms)
    assert turns.hear(SPEAKING, 56 * FRAME, SILENT, vad)[1] == Ended("item_1", 100, 56 * FRAME)
    assert turns.hear(SPEAKING, 56 * FRAME, SILENT, ServerVad(silence_duration_ms=33))[1] is None


@pytest.mark.parametrize(
    ("threshold", "exits"), [(0.5, 0.35), (1.0, 0.85), (0.16, 0.01), (0.1, 0.01), (0.005, 0.005), (0.0, 0.0)]
)
def test_exit_threshold(threshold: float, exits: float) -> None:
    assert turns.exit_threshold(ServerVad(threshold=threshold)) == pytest.approx(exits)


@pytest.mark.parametrize(
    ("vad", "frames"),
    [
        (ServerVad(silence_duration_ms=0), 3),
        (ServerVad(silence_duration_ms=200), 4),
        (ServerVad(silence_duration_ms=256), 4),
        (ServerVad(silence_duration_ms=320), 5),
        (ServerVad(silence_duration_ms=500), 6),
        (SemanticVad(), 6),
    ],
)
def test_a_turn_is_likely_over_after_half_of_its_silence_within_bounds(
    vad: ServerVad | SemanticVad, frames: int
) -> None:
    silences = [replace(HESITATING, until=HESITATING.silent_from + n * FRAME) for n in range(1, 30)]
    assert [turns.is_likely_over(turn, vad) for turn in silences] == [n >= frames for n in range(1, 30)]
    assert not any(turns.is_likely_over(turn, vad) for turn in (Off(), Quiet(), SPEAKING))


def test_begin_and_rename() -> None:
    assert turns.begin(Began(7), "item_1") == Speaking("item_1", 7)
    assert turns.renamed(SPEAKING, "item_2", 900) == Speaking("item_2", 900)
    assert turns.renamed(HESITATING, "item_2", 900) == replace(
        HESITATING, item_id="item_2", from_tick=900, finished=1.0
    )


# ------------------------------------------------------------------------------------------ the reference


def reference(probabilities: list[float], vad: ServerVad) -> list[tuple[int, int]]:
    """(audio_start_ms, audio_end_ms or -1) of each turn, from whole lists and without states."""
    found: list[tuple[int, int]] = []
    exits = vad.threshold - 0.15 if vad.threshold >= 0.16 else min(0.01, vad.threshold)
    at = 0
    while True:
        onset = next((i for i in range(at, len(probabilities)) if probabilities[i] >= vad.threshold), None)
        if onset is None:
            return found
        start_ms = max(0, onset * 32 - vad.prefix_padding_ms)
        end = None
        for last in range(onset + 1, len(probabilities)):
            # The silence that runs up to this frame: it begins at a frame below the exit threshold, and no frame
            # in it reaches the threshold.
            voiced = max(i for i in range(onset, last + 1) if i == onset or probabilities[i] >= vad.threshold)
            quiet = next((i for i in range(voiced + 1, last + 1) if probabilities[i] < exits), None)
            if quiet is not None and (last + 1 - quiet) * 32 >= vad.silence_duration_ms:
                end = last
                break
        if end is None:
            return [*found, (start_ms, -1)]
        found.append((start_ms, (end + 1) * 32))
        at = end + 1


@settings(max_examples=300)
@given(
    probabilities=st.lists(st.sampled_from([0.0, 0.2, 0.34, 0.35, 0.4, 0.49, 0.5, 0.51, 0.9, 1.0]), max_size=60),
    threshold=st.sampled_from([0.0, 0.2, 0.5, 0.65, 1.0]),
    padding=st.integers(0, 1000),
    silence=st.integers(0, 500),
)
def test_random_speech_against_the_reference(
    probabilities: list[float], threshold: float, padding: int, silence: int
) -> None:
    vad = ServerVad(threshold=threshold, prefix_padding_ms=padding, silence_duration_ms=silence)
    turn: Turn = Quiet()
    heard: list[tuple[int, int]] = []
    for i, probability in enumerate(probabilities):
        turn, news = turns.hear(turn, (i + 1) * FRAME, probability, vad)
        match news:
            case Began(start):
                assert turn == Quiet()
                turn = turns.begin(news, f"item_{i}")
                assert start % TICKS_PER_MS == 0
                heard.append((start // TICKS_PER_MS, -1))
            case Ended(_, start, end):
                assert turn == Quiet()
                assert end % FRAME == 0
                assert start // TICKS_PER_MS == heard[-1][0]
                heard[-1] = (heard[-1][0], end // TICKS_PER_MS)
    assert heard == reference(probabilities, vad)
    assert isinstance(turn, Quiet) == (not heard or heard[-1][1] >= 0)


# ------------------------------------------------------------------------------------------- semantic_vad

SEMANTIC = SemanticVad()


def silence(turn: Turn, frames: int, vad: SemanticVad = SEMANTIC, start: int = 55) -> tuple[Turn, list[News]]:
    """So many silent frames, the first of which begins at frame ``start``."""
    told: list[News] = []
    for i in range(1, frames + 1):
        turn, news = turns.hear(turn, (start + i) * FRAME, SILENT, vad)
        if news is not None:
            told.append(news)
    return turn, told


def test_speech_begins_as_with_server_vad() -> None:
    default = ServerVad()
    for probability in (0.0, 0.35, 0.49, 0.5, 1.0):
        for turn in (Off(), Quiet(), SPEAKING):
            for frame in (1, 56):
                wanted = turns.hear(turn, frame * FRAME, probability, default)
                assert turns.hear(turn, frame * FRAME, probability, SEMANTIC) == wanted


def test_asks_at_growing_silences_and_gives_up_at_the_longest() -> None:
    turn, told = silence(SPEAKING, 125)
    assert [news.end_tick // FRAME - 55 for news in told if isinstance(news, Asked)] == [6, 16, 32, 64]
    assert told[-1] == Ended("item_1", 100, (55 + 125) * FRAME)
    assert turn == Quiet()
    assert told[0] == Asked("item_1", 100, 55 * FRAME, (55 + 6) * FRAME)


@pytest.mark.parametrize(("eagerness", "frames"), [("low", 250), ("medium", 125), ("auto", 125), ("high", 63)])
def test_longest_wait(eagerness: Eagerness, frames: int) -> None:
    vad = SemanticVad(eagerness=eagerness)
    assert not isinstance(silence(SPEAKING, frames - 1, vad)[0], Quiet)
    assert silence(SPEAKING, frames, vad)[0] == Quiet()


@pytest.mark.parametrize(
    ("finished", "eagerness", "patience"),
    [
        (1.0, "medium", 192),
        (0.9, "medium", 230.08),
        (0.9, "high", 210.08),
        (0.9, "low", 270.08),
        (0.5, "medium", 1144),
        (0.5, "auto", 1144),
        (0.5, "high", 644),
        (0.5, "low", 2144),
        (0.1, "medium", 3276.48),
        (0.0, "low", 8000),
    ],
)
def test_patience(finished: float, eagerness: Eagerness, patience: float) -> None:
    assert turns.patience_ms(finished, eagerness) == pytest.approx(patience)


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(sorted(LONGEST_MS)))
def test_the_likelier_the_end_the_shorter_the_wait(one: float, other: float, eagerness: Eagerness) -> None:
    low, high = sorted((one, other))
    assert ASKED_AT_MS[0] <= turns.patience_ms(high, eagerness) <= turns.patience_ms(low, eagerness)
    assert turns.patience_ms(low, eagerness) <= LONGEST_MS[eagerness]


def test_a_likely_end_ends_at_the_last_frame_heard() -> None:
    turn, _ = silence(SPEAKING, 9)
    assert turns.judged(turn, "item_1", 55 * FRAME, 0.95, SEMANTIC) == (
        Quiet(),
        Ended("item_1", 100, (55 + 9) * FRAME),
    )


def test_an_unlikely_end_waits_on_and_the_latest_answer_counts() -> None:
    turn, _ = silence(SPEAKING, 6)
    turn, news = turns.judged(turn, "item_1", 55 * FRAME, 0.5, SEMANTIC)
    assert news is None
    # 1144 ms are reached with frame 36.
    assert not isinstance(silence(turn, 29, start=61)[0], Quiet)
    assert silence(turn, 30, start=61)[1][-1] == Ended("item_1", 100, (55 + 36) * FRAME)
    later, _ = silence(turn, 10, start=61)
    later, news = turns.judged(later, "item_1", 55 * FRAME, 0.0, SEMANTIC)
    assert news is None
    assert not isinstance(silence(later, 100, start=71)[0], Quiet)


def test_late_answers_change_nothing() -> None:
    waiting, _ = silence(SPEAKING, 6)
    resumed, news = turns.hear(waiting, 62 * FRAME, LOUD, SEMANTIC)
    assert (resumed, news) == (SPEAKING, Resumed("item_1"))
    anew, _ = silence(resumed, 6, start=62)
    for turn in (Off(), Quiet(), resumed, anew):
        assert turns.judged(turn, "item_1", 55 * FRAME, 1.0, SEMANTIC) == (turn, None)
    assert turns.judged(waiting, "item_2", 55 * FRAME, 1.0, SEMANTIC) == (waiting, None)
    # Meanwhile the client has gone back to server_vad, which asks nobody.
    assert turns.judged(waiting, "item_1", 55 * FRAME, 1.0, ServerVad(silence_duration_ms=900)) == (waiting, None)


def test_a_commit_by_hand_says_that_the_speaker_has_finished() -> None:
    waiting, _ = silence(SPEAKING, 3)
    assert isinstance(waiting, Hesitating)
    rest = turns.renamed(waiting, "item_2", 58 * FRAME)
    assert silence(rest, 3, start=58) == (Quiet(), [Ended("item_2", 58 * FRAME, 61 * FRAME)])
    assert turns.hear(rest, 59 * FRAME, LOUD, SEMANTIC)[0] == Speaking("item_2", 58 * FRAME)


@settings(max_examples=200)
@given(
    frames=st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 80), st.floats(0, 1), st.integers(0, 20)), max_size=8
    ),
    eagerness=st.sampled_from(sorted(LONGEST_MS)),
)
def test_random_pauses_end_when_their_answer_says(
    frames: list[tuple[int, int, float, int]], eagerness: Eagerness
) -> None:
    """Speech and pauses in turn; each pause is answered once, some frames after the first question."""
    vad = SemanticVad(eagerness=eagerness)
    turn: Turn = Quiet()
    at = 0
    for voiced, silent, finished, delay in frames:
        for _ in range(voiced):
            at += 1
            turn, news = turns.hear(turn, at * FRAME, LOUD, vad)
            if isinstance(news, Began):
                turn = turns.begin(news, "item_1")
        began = at
        ended = 0
        for i in range(1, silent + 1):
            at += 1
            turn, news = turns.hear(turn, at * FRAME, SILENT, vad)
            if not ended and isinstance(news, Ended):
                ended = i
            if i == 6 + delay:
                turn, late = turns.judged(turn, "item_1", began * FRAME, finished, vad)
                ended = ended or (i if late else 0)
        wanted = next(
            (
                i
                for i in range(1, silent + 1)
                if i * 32 >= turns.patience_ms(finished if i >= 6 + delay else 0.0, eagerness)
            ),
            0,
        )
        assert ended == wanted
