"""The process in which sherpa-onnx speaks, one synthesis at a time."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from vivavoce.engines.builtin.speech_pool import Mouth, SpeakRequest, phrases, serve
from vivavoce.engines.builtin.worker_channel import Channel, open_worker
from vivavoce.engines.sherpa_onnx_tts import SherpaSetup

_OLDEST: Final = 2


def _model(setup: SherpaSetup) -> Any:
    """The configuration of the model, of its family's own kind."""
    import sherpa_onnx

    shared = {"tokens": setup.tokens, "lexicon": setup.lexicon, "length_scale": setup.length_scale}
    if setup.family == "vits":
        scales = {"noise_scale": setup.noise_scale, "noise_scale_w": setup.noise_w_scale}
        given = {name: scale for name, scale in scales.items() if scale is not None}
        return sherpa_onnx.OfflineTtsVitsModelConfig(model=setup.model, **shared, **given)
    styled = {
        "kokoro": sherpa_onnx.OfflineTtsKokoroModelConfig,
        "kitten": sherpa_onnx.OfflineTtsKittenModelConfig,
    }
    return styled[setup.family](model=setup.model, voices=setup.voices_file, **shared)


class Voices:
    """The loaded model and how to speak with it."""

    def __init__(self, setup: SherpaSetup, channel: Channel) -> None:
        import sherpa_onnx

        family = {setup.family: _model(setup)}
        config = sherpa_onnx.OfflineTtsConfig(
            model=sherpa_onnx.OfflineTtsModelConfig(**family, num_threads=setup.threads),
            rule_fsts=setup.rule_fsts,
            silence_scale=setup.silence_scale,
        )
        if not config.validate():
            channel.fail_start("sherpa-onnx refuses the files of the model; it has printed why")
        self._setup = setup
        self._tts = sherpa_onnx.OfflineTts(config)
        missing = [name for name, speaker in setup.voices.items() if speaker >= max(1, self._tts.num_speakers)]
        if missing:
            problem = f"the model has only {self._tts.num_speakers} speakers; {', '.join(missing)} has none"
            channel.fail_start(problem)
        # A model whose lexicon is not its own is no fault to the library, which then says nothing.
        known = Path(setup.lexicon.split(",")[0]).read_text(encoding="utf-8").split(maxsplit=1)[0]
        if len(self._tts.generate(known).samples) == 0:
            channel.fail_start("the model cannot say the first word of its lexicon")

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return int(self._tts.sample_rate)

    def speak(self, request: SpeakRequest, mouth: Mouth) -> None:
        """Say the text, phrase by phrase."""
        for phrase in phrases(request.text):
            self._say(phrase, self._setup.voices[request.voice], request.speed, mouth)

    def _say(self, phrase: str, speaker: int, speed: float, mouth: Mouth) -> None:
        stopped: BaseException | None = None
        pieces = 0

        def heard(samples: Any, _progress: float) -> int:
            # An exception cannot cross the library; 0 ends the synthesis.
            nonlocal stopped, pieces
            pieces += 1
            try:
                mouth.say(np.asarray(samples, np.float32))
                return 1
            except BaseException as stop:
                stopped = stop
                return 0

        mouth.check()
        made = self._tts.generate(phrase, sid=speaker, speed=speed, callback=heard)
        if stopped is not None:
            raise stopped
        if not pieces:
            # Models of the family Kitten hand over nothing on the way.
            mouth.say(np.asarray(made.samples, np.float32))


def main() -> None:
    channel, payload = open_worker()
    setup = msgspec.json.decode(payload, type=SherpaSetup)
    try:
        if int(importlib.metadata.version("sherpa-onnx").partition(".")[0]) < _OLDEST:
            channel.fail_start(f"sherpa-onnx is older than version {_OLDEST}")
        voices = Voices(setup, channel)
    except ImportError as error:
        channel.fail_start(f"the package {error.name} is not installed; install 'vivavoce[sherpa-onnx]'")
    except Exception as error:
        channel.fail_start(f"the model does not load ({type(error).__name__})")
    # The library prints the words that it does not know, and what a worker prints may be logged.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    serve(channel, voices.sample_rate, voices.speak)


if __name__ == "__main__":
    main()
