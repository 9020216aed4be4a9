"""What a client can know from the events it has seen: formats, responses, and items that wait for their words."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.g711 import from_samples
from vivavoce.testing.matching import Names
from vivavoce.testing.script import ModelCommand, SendBytes, SendCharacters, SendEvent, SendSound, SendText

APPEND_MS: Final = 20
_FULL_SCALE: Final = 32767
_GA_FORMATS: Final = {
    "audio/pcm": AudioFormat.PCM16,
    "audio/pcmu": AudioFormat.G711_ULAW,
    "audio/pcma": AudioFormat.G711_ALAW,
}


class Ledger:
    """Fed with every server event in order, by :meth:`note`."""

    def __init__(self) -> None:
        self.responses: list[str] = []
        """As they were created."""
        self.ended: set[str] = set()
        self.unheard: list[str] = []
        """Items whose transcription is to come, oldest first."""
        self.input_format = AudioFormat.PCM16
        self._transcribes = False

    def note(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case (
                "session.created"
                | "session.updated"
                | "transcription_session.created"
                | "transcription_session.updated"
            ):
                self._note_session(event["session"])
            case "response.created":
                self.responses.append(event["response"]["id"])
            case "response.done":
                self.ended.add(event["response"]["id"])
            case "input_audio_buffer.committed" if self._transcribes:
                self.unheard.append(event["item_id"])
            case (
                "conversation.item.deleted"
                | "conversation.item.input_audio_transcription.completed"
                | "conversation.item.input_audio_transcription.failed"
            ) if event["item_id"] in self.unheard:
                self.unheard.remove(event["item_id"])

    def _note_session(self, session: dict[str, Any]) -> None:
        if "audio" in session:
            heard = session["audio"]["input"]
            self.input_format = _GA_FORMATS[heard["format"]["type"]]
            self._transcribes = heard["transcription"] is not None
        else:
            self.input_format = AudioFormat(session["input_audio_format"])
            self._transcribes = session["input_audio_transcription"] is not None

    def response_of(self, command: ModelCommand) -> str:
        """The id of the response that ``command`` is for. Raises ValueError when there is none."""
        number = command.response or len(self.responses)
        if not 1 <= number <= len(self.responses):
            raise ValueError(f"there is no response {number}")
        return self.responses[number - 1]

    def next_unheard(self) -> str:
        """The item whose words come next. Raises ValueError when none waits."""
        if not self.unheard:
            raise ValueError("no item waits for its words")
        return self.unheard[0]


def frames(
    command: SendText | SendEvent | SendSound | SendBytes | SendCharacters, names: Names, fmt: AudioFormat
) -> Iterator[str]:
    """The text frames of one client line."""
    match command:
        case SendText():
            yield command.text
        case SendEvent():
            yield json.dumps(names.fill(command.value), ensure_ascii=False)
        case SendBytes():
            yield _append(bytes(command.count))
        case SendCharacters():
            part = {"type": "input_text", "text": "x" * command.count}
            item = {"type": "message", "role": "user", "content": [part]}
            yield json.dumps({"type": "conversation.item.create", "item": item})
        case SendSound():
            data = sound(command.ms, command.amplitude, fmt)
            step = APPEND_MS * fmt.bytes_per_ms
            for at in range(0, len(data), step):
                yield _append(data[at : at + step])


def sound(ms: int, amplitude: float, fmt: AudioFormat) -> bytes:
    """``ms`` milliseconds of one value, ``amplitude`` times full scale."""
    return from_samples(np.full(ms * fmt.rate // 1000, round(amplitude * _FULL_SCALE), np.int16), fmt)


def _append(data: bytes) -> str:
    audio = base64.b64encode(data).decode("ascii")
    return f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}'
