"""huggingface/speech-to-speech with stand-in engines, on one core: ``.venv/bin/python -m bench.peers.s2s``.

Runs its own ``serve`` command with its own VAD, pipeline, queues, threads and web server, unpatched. Only the
three engines are stand-ins, registered beside its own ones: handlers of its base classes that say what
``bench.answer`` says, without delay. Runs in an environment of its own, see README.md here.
"""

# The project's environment does not have this package.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from speech_to_speech import backend_registry
from speech_to_speech.baseHandler import BaseHandler
from speech_to_speech.LLM.chat import make_assistant_message
from speech_to_speech.pipeline.history import ResponseHistory
from speech_to_speech.pipeline.messages import (
    AUDIO_RESPONSE_DONE,
    EndOfResponse,
    GenerateResponseRequest,
    LLMResponseChunk,
    Transcription,
    TTSInput,
    VADAudio,
)
from speech_to_speech.STT.base_stt_handler import BaseSTTHandler

from bench.answer import ANSWER, HEARD, SENTENCES, chunks, hum

RATE: Final = 16000
"""Of everything inside its pipeline, in Hz; it resamples at the socket."""
HUB: Final = "hub/snakers4_silero-vad_master"
"""Where torch.hub keeps what the VAD loads by that name; kept there, nothing is downloaded."""
HUBCONF: Final = """
dependencies = ["torch"]

def silero_vad(onnx=False):
    from silero_vad import load_silero_vad
    return load_silero_vad(onnx=onnx), ()
"""
NLTK: Final = ("tokenizers/punkt_tab", "taggers/averaged_perceptron_tagger_eng")
"""Looked for when it starts, used by none of the engines here."""


class Transcriber(BaseSTTHandler):
    """Hears the same words in everything."""

    def process(self, vad_audio: VADAudio) -> Iterator[Transcription]:
        yield Transcription(
            text=HEARD,
            turn_id=vad_audio.turn_id,
            turn_revision=vad_audio.turn_revision,
            speech_stopped_at_s=vad_audio.speech_end_at_s,
        )


class LanguageModel(BaseHandler):
    """Gives the same answer to everything, a chunk for each sentence as its own handlers do."""

    def setup(self, cancel_scope: Any, speculative_turns: Any, **_: Any) -> None:
        self.cancel_scope = cancel_scope
        self.speculative_turns = speculative_turns

    def process(self, request: GenerateResponseRequest) -> Iterator[LLMResponseChunk | EndOfResponse]:
        turn = {
            "turn_id": request.turn_id,
            "turn_revision": request.turn_revision,
            "cancel_generation": self.cancel_scope.generation,
            "response_key": request.response_key,
        }
        if not self.speculative_turns.is_latest(request.turn_id, request.turn_revision):
            yield EndOfResponse(**turn)
            return
        chat = request.runtime_config.chat
        anchor = chat.history_anchor_id()
        for sentence in SENTENCES:
            yield LLMResponseChunk(
                text=sentence,
                selected_language=request.selected_language,
                runtime_config=request.runtime_config,
                response=request.response,
                speech_stopped_at_s=request.speech_stopped_at_s,
                **turn,
            )
        said = [make_assistant_message(ANSWER)]
        yield EndOfResponse(
            history=ResponseHistory.capture(chat, said, after_item_id=anchor, complete=True), **turn
        )


class Synthesizer(BaseHandler):
    """Hums for as long as the text would take, at once."""

    def setup(self, should_listen: Any, cancel_scope: Any, speculative_turns: Any, **_: Any) -> None:
        self.cancel_scope = cancel_scope
        self.speculative_turns = speculative_turns
        self._chunk = np.frombuffer(hum(RATE), "<i2")

    def process(self, tts_input: TTSInput | EndOfResponse) -> Iterator[bytes | np.ndarray[Any, Any]]:
        turns, turn, revision = self.speculative_turns, tts_input.turn_id, tts_input.turn_revision
        if isinstance(tts_input, EndOfResponse):
            if not turns.wait_for_gate(turn, revision):
                if tts_input.response_key is None:
                    return
                tts_input.cleanup_only = True
            yield AUDIO_RESPONSE_DONE
            return
        if not turns.wait_for_gate(turn, revision, commit=True):
            return
        for _ in range(chunks(tts_input.text)):
            if self.cancel_scope.is_stale(tts_input.cancel_generation):
                return
            yield self._chunk


def _factory(
    handler: type[BaseHandler], **setup: bool
) -> Callable[[backend_registry.HandlerContext, Mapping[str, Any]], Any]:
    """Builds a stand-in as the registry builds the handlers that come with the package."""
    build: Callable[..., Any] = backend_registry._simple_handler_factory(__name__, handler.__name__, **setup)
    return build


def register() -> None:
    """The stand-ins, under the name ``standin``."""
    spec, nothing = backend_registry.BackendSpec, backend_registry.EmptyBackendArguments
    backend_registry.STT_BACKENDS["standin"] = spec(
        "standin", "stt", nothing, _factory(Transcriber, attach_speculative_turns=True)
    )
    backend_registry.LLM_BACKENDS["standin"] = spec(
        "standin", "llm", nothing, _factory(LanguageModel, context_kwargs=True)
    )
    backend_registry.TTS_BACKENDS["standin"] = spec(
        "standin", "tts", nothing, _factory(Synthesizer, setup_should_listen=True, context_kwargs=True)
    )


def offline(folder: Path) -> None:
    """Put where it looks for them what it would download: the VAD of the silero-vad package, and no NLTK data."""
    (folder / HUB).mkdir(parents=True)
    (folder / HUB / "hubconf.py").write_text(HUBCONF)
    for name in NLTK:
        (folder / "nltk" / name).mkdir(parents=True)
    os.environ["TORCH_HOME"] = str(folder)
    os.environ["NLTK_DATA"] = str(folder / "nltk")


def serve(port: int, sessions: int) -> None:
    """Its ``serve`` command, with a pipeline for each session; ends on SIGTERM."""
    register()
    from speech_to_speech.s2s_pipeline import run_pipeline_command

    arguments = {
        "host": "127.0.0.1",
        "port": port,
        "num_pipelines": sessions,
        # Language detection is not installed, which it would say for each sentence as a warning.
        "log_level": "error",
        "stt": "standin",
        "llm_backend": "standin",
        "tts": "standin",
        # A turn ends when the silence does, as the session asks for: no wait for speech that goes on, no model
        # that judges the end of a turn, and no transcripts of unfinished speech.
        "speculative_reopen_ms": 0,
        "unanswered_reopen_ms": 0,
        "smart_turn": False,
        "enable_live_transcription": False,
    }
    run_pipeline_command("serve", [word for name, value in arguments.items() for word in (f"--{name}", str(value))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--sessions", type=int, default=1, help="pipelines, and so sessions, at once")
    parser.add_argument("--core", type=int, help="run on this core only")
    chosen = parser.parse_args()
    if chosen.core is not None:
        os.sched_setaffinity(0, {chosen.core})
    with tempfile.TemporaryDirectory() as folder:
        offline(Path(folder))
        serve(chosen.port, chosen.sessions)


if __name__ == "__main__":
    main()
