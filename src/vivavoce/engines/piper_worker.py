"""The process in which Piper speaks, one synthesis at a time, with every model of the configuration loaded.

piper-tts and the espeak-ng inside it are GPL-3. They are loaded here and nowhere else: this process is started as a
program of its own, shares no memory with the server, and they exchange text and sound over a pipe.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import msgspec

from vivavoce.engines.builtin.speech_pool import Mouth, SpeakRequest, onnx_session, phrases, serve
from vivavoce.engines.builtin.worker_channel import Channel, open_worker
from vivavoce.engines.piper import PiperSetup


class Voices:
    """The loaded models and how to speak with them."""

    def __init__(self, setup: PiperSetup, channel: Channel) -> None:
        self._setup = setup
        self._channel = channel
        models = {speaker.model for speaker in setup.voices.values()}
        self._loaded = {model: self._load(model) for model in sorted(models)}

    def _load(self, model: str) -> Any:
        from piper import PiperVoice
        from piper.config import PiperConfig

        config = PiperConfig.from_dict(json.loads(Path(f"{model}.json").read_bytes()))
        session = onnx_session(self._channel, model, threads=self._setup.threads, device=self._setup.device)
        voice = PiperVoice(session=session, config=config)
        for _ in voice.synthesize("a"):
            # The first inference takes longer than others, and may fail.
            pass
        return voice

    def speak(self, request: SpeakRequest, mouth: Mouth) -> None:
        """Say the text, phrase by phrase."""
        from piper.config import SynthesisConfig

        speaker = self._setup.voices[request.voice]
        voice = self._loaded[speaker.model]
        scale = self._setup.length_scale or voice.config.length_scale
        how = SynthesisConfig(
            speaker_id=speaker.speaker,
            length_scale=scale / request.speed,
            noise_scale=self._setup.noise_scale,
            noise_w_scale=self._setup.noise_w_scale,
            volume=self._setup.volume,
        )
        for phrase in phrases(request.text):
            # Two brackets would begin phonemes.
            for sentence in voice.synthesize(phrase.replace("[[", "[ ["), how):
                mouth.say(sentence.audio_float_array)
            mouth.check()


def main() -> None:
    channel, payload = open_worker()
    setup = msgspec.json.decode(payload, type=PiperSetup)
    try:
        logging.getLogger("piper").setLevel(logging.ERROR)
        voices = Voices(setup, channel)
    except ImportError as error:
        channel.fail_start(f"the package {error.name} is not installed; install 'vivavoce[piper]'")
    except Exception as error:
        channel.fail_start(f"a voice does not load ({type(error).__name__})")
    serve(channel, setup.sample_rate, voices.speak)


if __name__ == "__main__":
    main()
