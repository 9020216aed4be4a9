"""Turn detection: every cell, and random speech against a reference written from protocol section 7.3."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.audio.formats import TICKS_PER_MS
from vivavoce.core import turns
from vivavoce.core.turns import FRAME_TICKS, Began, Ended, Hesitating, Off, Quiet, Speaking, Turn
from vivavoce.wire.session_config import ServerVad

FRAME = FRAME_TICKS
VAD = ServerVad(threshold=0.5, prefix_padding_ms=300, silence_duration_ms=200)
LOUD, MIDDLE, SILENT = 0.5, 0.35, 0.34
SPEAKING = Speaking("item_1", 100)
HESITATING = Hesitating("item_1", 100, 50 * FRAME)


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
        (SPEAKING, 56, SILENT, Hesitating("item_1", 100, 55 * FRAME), None),
        (HESITATING, 56, LOUD, SPEAKING, None),
        (HESITATING, 56, MIDDLE, HESITATING, None),
        (HESITATING, 56, SILENT, HESITATING, None),
        (HESITATING, 57, LOUD, SPEAKING, None),
        (HESITATING, 57, SILENT, Quiet(), Ended("item_1", 100, 57 * FRAME)),
        (HESITATING, 57, MIDDLE, Quiet(), Ended("item_1", 100, 57 * FRAME)),
    ],
)
def test_cell(state: Turn, frame: int, probability: float, then: Turn, news: Began | Ended | None) -> None:
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


def test_begin_and_rename() -> None:
    assert turns.begin(Began(7), "item_1") == Speaking("item_1", 7)
    assert turns.renamed(SPEAKING, "item_2", 900) == Speaking("item_2", 900)
    assert turns.renamed(HESITATING, "item_2", 900) == Hesitating("item_2", 900, HESITATING.silent_from)


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
