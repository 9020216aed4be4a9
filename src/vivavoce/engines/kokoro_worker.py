"""The process in which Kokoro speaks, one synthesis at a time.

kokoro-onnx is MIT, but the phonemizer and the espeak-ng that it loads are GPL-3. They are loaded here and nowhere
else: this process is started as a program of its own, shares no memory with the server, and they exchange text and
sound over a pipe.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec
import numpy as np

from vivavoce.engines.builtin.speech_pool import Mouth, SpeakRequest, onnx_session, phrases, serve
from vivavoce.engines.builtin.worker_channel import Channel, open_worker
from vivavoce.engines.kokoro import FASTEST, SAMPLE_RATE, SLOWEST, KokoroSetup

_SENTENCE_MARKS: Final = ".!?…。！？"
_CLAUSE_MARKS: Final = ",;:—–、，；："
_CLOSING: Final = "\"'”’)]} \n\t"


class Voices:
    """The loaded model and how to speak with it."""

    def __init__(self, setup: KokoroSetup, channel: Channel) -> None:
        from kokoro_onnx import Kokoro

        session = onnx_session(channel, setup.model, threads=setup.threads, device=setup.device)
        self._setup = setup
        self._kokoro: Any = Kokoro.from_session(session, setup.voices_file)
        # The first of each takes longer than others, and may fail.
        for speaker in {speaker.language: speaker for speaker in setup.voices.values()}.values():
            self._kokoro.create("a", speaker.voice, lang=speaker.language)

    def speak(self, request: SpeakRequest, mouth: Mouth) -> None:
        """Say the text, phrase by phrase."""
        speaker = self._setup.voices[request.voice]
        speed = min(max(request.speed, SLOWEST), FASTEST)
        for phrase in phrases(request.text):
            phonemes = self._kokoro.tokenizer.phonemize(phrase, speaker.language)
            mouth.check()
            if phonemes:
                samples, _ = self._kokoro.create(phonemes, speaker.voice, speed, is_phonemes=True)
                mouth.say(samples)
                mouth.say(np.zeros(round(self._pause_s(phrase) / speed * SAMPLE_RATE), np.float32))

    def _pause_s(self, phrase: str) -> float:
        last = phrase.rstrip(_CLOSING)[-1:]
        if last and last in _SENTENCE_MARKS:
            return self._setup.sentence_pause_s
        return self._setup.clause_pause_s if last and last in _CLAUSE_MARKS else 0.0


def main() -> None:
    channel, payload = open_worker()
    setup = msgspec.json.decode(payload, type=KokoroSetup)
    try:
        logging.getLogger("kokoro_onnx").setLevel(logging.ERROR)
        logging.getLogger("phonemizer").setLevel(logging.ERROR)
        voices = Voices(setup, channel)
    except ImportError as error:
        channel.fail_start(f"the package {error.name} is not installed; install 'vivavoce[kokoro]'")
    except Exception as error:
        channel.fail_start(f"the model does not load ({type(error).__name__})")
    serve(channel, SAMPLE_RATE, voices.speak)


if __name__ == "__main__":
    main()
