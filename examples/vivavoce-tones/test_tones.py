import asyncio

import pytest
from vivavoce_tones import create

from vivavoce.engines.base import EngineOptionsError, SynthesisRequest


async def play(engine, text):
    return [chunk async for chunk in engine.synthesize(SynthesisRequest(text, "alloy"))]


def test_a_tone_for_each_word():
    chunks = asyncio.run(play(create({"tone_ms": 100}), "One two three."))
    assert [len(chunk.pcm) for chunk in chunks] == [4800, 4800, 4800]
    assert [word.audio_ms for chunk in chunks for word in chunk.words] == [0, 100, 200]


def test_unknown_options_are_refused():
    with pytest.raises(EngineOptionsError, match="speed"):
        create({"speed": 2})
