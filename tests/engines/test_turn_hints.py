"""The built-in judge of the end of a turn: words of four languages, and voices that are made up of sines."""

from __future__ import annotations

import numpy as np
import pytest

from vivavoce.engines.base import EndOfTurn, EngineError, EngineOptionsError, Float32, Pause
from vivavoce.engines.builtin.turn_hints import create, probability
from vivavoce.engines.builtin.turn_prosody import SAMPLE_RATE, ending
from vivavoce.engines.builtin.turn_words import LANGUAGES, completeness

FALL, LEVEL, RISE = 85.0, 120.0, 180.0


def voice(end_hz: float, *, held_ms: int = 0) -> Float32:
    """A buzz of eight harmonics that wanders about 120 Hz in four syllables, and ends at ``end_hz``."""
    syllables = [(110.0, 150.0), (150.0, 105.0), (105.0, 140.0), (130.0, end_hz)]
    parts: list[Float32] = []
    for start, stop in syllables:
        parts += [buzz(np.linspace(start, stop, SAMPLE_RATE // 4)), np.zeros(SAMPLE_RATE // 20, np.float32)]
    parts[-1] = buzz(np.full(SAMPLE_RATE * max(held_ms, 60) // 1000, end_hz))
    return np.concatenate(parts)


def buzz(pitch: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Float32:
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    sound = np.sum([np.sin(k * phase) / k for k in range(1, 9)], axis=0) / 4
    return np.asarray(sound, np.float32)


def pcm(samples: Float32, silence_ms: int) -> bytes:
    quiet = np.zeros(SAMPLE_RATE * silence_ms // 1000, np.float32)
    return (np.concatenate([samples, quiet]) * 32767).astype("<i2").tobytes()


def pause(
    words: str | None, end_hz: float | None = None, *, held_ms: int = 0, language: str | None = None
) -> Pause:
    sound = b"" if end_hz is None else pcm(voice(end_hz, held_ms=held_ms), 192)
    return Pause(words, language, sound, 192)


# -------------------------------------------------------------------------------------------------------- words

UNFINISHED = {
    "en": ["i want to go to the station because", "um", "well um", "turn on the light and", "what i", "my name is",
           "i would like", "can you tell me the", "it's", "i have been waiting for", "so then we went to"],
    "de": ["ich möchte zum", "ähm", "das ist weil", "kannst du mir die", "ich will nach", "und dann", "heute ist"],
    "es": ["quiero ir a la", "eh", "me gusta pero", "puedes decirme el", "voy a", "porque"],
    "fr": ["je voudrais aller à la", "euh", "parce que", "est-ce que tu peux me donner le", "il est", "et puis"],
}  # fmt: skip
FINISHED = {
    "en": ["what is the weather like today", "turn on the light", "yes", "yes please", "no thank you", "stop",
           "tell me a story", "where are you now", "never mind", "i would like a coffee please", "is it raining"],
    "de": ["wie wird das wetter", "mach das licht aus bitte", "ja", "nein danke", "genau"],
    "es": ["qué tiempo hace hoy", "enciende la luz por favor", "sí", "no gracias"],
    "fr": ["quel temps fait il aujourd'hui", "allume la lumière s'il te plaît", "oui", "non merci", "d'accord"],
}  # fmt: skip


def test_the_tables_are_tried_in_every_language() -> None:
    assert set(UNFINISHED) == set(FINISHED) == set(LANGUAGES)


@pytest.mark.parametrize(("language", "words"), [(name, words) for name in LANGUAGES for words in UNFINISHED[name]])
def test_words_that_want_more(language: str, words: str) -> None:
    assert completeness(words, language) <= -2
    assert probability(pause(words, language=language)) < 0.15


@pytest.mark.parametrize(("language", "words"), [(name, words) for name in LANGUAGES for words in FINISHED[name]])
def test_words_that_are_complete(language: str, words: str) -> None:
    assert completeness(words, language) >= 1.5
    assert probability(pause(words, language=language)) > 0.8


def test_words_that_may_be_either() -> None:
    """A preposition ends a statement seldom, and a question now and then."""
    asked, said = (completeness(words, "en") for words in ("where are you coming to", "i am going to go to"))
    assert -1 < asked < 0
    assert said <= -2
    assert -1 < completeness("blue", "en") < 0 < completeness("the blue one there", "en") < 1


@pytest.mark.parametrize(
    ("words", "odds"),
    [("It is late", 0.5), ("It is late.", 1.5), ("It is late!", 1.5), ("It is late?", 2.5), ("It is late,", -1.5),
     ("It is late...", -1.5), ("It is late…", -1.5), ("IT IS LATE", 0.5)],
)  # fmt: skip
def test_marks_of_a_recogniser_that_punctuates(words: str, odds: float) -> None:
    assert completeness(words, "en") == odds


def test_nothing_is_claimed_of_other_languages_or_of_no_words() -> None:
    assert completeness("minulla on", "fi") == 0
    assert [probability(pause(words)) for words in ("", None)] == [0.5, 0.5]
    assert probability(pause("because", language="fi")) == 0.5


def test_a_language_with_its_country_and_the_default_of_the_options() -> None:
    assert probability(pause("weil", language="de-AT")) == probability(pause("weil", language="de")) < 0.1
    assert probability(pause("weil"), "de") < 0.1 < probability(pause("weil"))


# -------------------------------------------------------------------------------------------------------- voice


@pytest.mark.parametrize(("end_hz", "low", "high"), [(FALL, -9, -0.8), (LEVEL, -0.4, 0.4), (RISE, 0.5, 9)])
def test_height_of_the_end(end_hz: float, low: float, high: float) -> None:
    found = ending(voice(end_hz))
    assert found is not None
    assert low <= found.height <= high


@pytest.mark.parametrize("held_ms", [200, 500])
def test_a_sound_that_is_held(held_ms: int) -> None:
    found = ending(voice(LEVEL, held_ms=held_ms))
    assert found is not None
    assert abs(found.drawn_out_ms - held_ms) <= 90


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros(100, np.float32),
        np.zeros(SAMPLE_RATE, np.float32),
        np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32),
        buzz(np.full(800, 120.0)),
    ],
    ids=["nothing", "less than a window", "silence", "noise", "too short"],
)
def test_no_voice_tells_nothing(samples: Float32) -> None:
    assert ending(samples) is None


def test_a_fall_speaks_for_the_end_and_a_level_voice_against_it() -> None:
    words = "it was a nice day"
    fell, level, held = (
        probability(pause(words, hz, held_ms=ms)) for hz, ms in ((FALL, 0), (LEVEL, 0), (LEVEL, 500))
    )
    assert fell > 0.8 > probability(pause(words)) > 0.55 > level > held > 0.3


def test_a_rise_asks_after_complete_words_and_holds_the_floor_otherwise() -> None:
    asked = "is it raining"
    assert probability(pause(asked, RISE)) > probability(pause(asked))
    assert probability(pause(None, RISE)) < 0.5 < probability(pause(None, FALL))


def test_the_silence_itself_is_not_judged() -> None:
    sound = voice(FALL)
    assert probability(Pause(None, None, pcm(sound, 192), 192)) == probability(
        Pause(None, None, pcm(sound, 2048), 2048)
    )


# ------------------------------------------------------------------------------------------------------- engine


async def test_the_engine_answers_while_it_runs() -> None:
    engine = create({"language": "de"})
    assert isinstance(engine, EndOfTurn)
    with pytest.raises(EngineError) as fault:
        await engine.judge(pause("weil"))
    assert fault.value.code == "engine_unavailable"
    await engine.start()
    try:
        assert await engine.judge(pause("weil", FALL)) == probability(pause("weil", FALL), "de")
    finally:
        await engine.close()
        await engine.close()


@pytest.mark.parametrize(("options", "path"), [({"speed": 1}, "speed"), ({"language": "fi"}, "language")])
def test_options_are_checked(options: dict[str, object], path: str) -> None:
    with pytest.raises(EngineOptionsError) as fault:
        create(options)
    assert fault.value.path == path
