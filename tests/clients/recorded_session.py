"""A session with a bit of everything, for recordings: speech, a tool, a cut, a cancel, an error.

As a program it makes ``data/session.jsonl`` anew, where the server has changed what it says on purpose:
``python tests/clients/recorded_session.py``.
"""

from __future__ import annotations

import asyncio
import base64
import tempfile
from pathlib import Path
from typing import Any, Final

from openai_harness import MODEL, STORY, Talk, config, joined, spoken_question, talking

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.resample import convert
from vivavoce.record.proxy import RecordOptions, recording
from vivavoce.record.upstream import target_of
from vivavoce.server.app import running

FILE: Final = Path(__file__).parent / "data" / "session.jsonl"
TRANSCRIBED: Final = "conversation.item.input_audio_transcription.completed"
TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}


async def converse(talk: Talk) -> None:
    """Everything; the last event is the error."""
    client = talk.client
    await client.session.update(
        session={
            "input_audio_format": "g711_ulaw",
            "output_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "whisper-1"},
            "tools": [TOOL],
        }
    )
    await talk.one("session.updated")
    sound = convert(spoken_question(), AudioFormat.PCM16, AudioFormat.G711_ULAW)
    for at in range(0, len(sound), 4000):
        await client.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + 4000]).decode())
    await talk.until("response.done", TRANSCRIBED)

    await talk.say("What is the weather?")
    await client.response.create()
    call = (await talk.until("response.done"))[-1].response.output[0]
    await client.conversation.item.create(
        item={"type": "function_call_output", "call_id": call.call_id, "output": '{"sky": "blue"}'}
    )
    await talk.one("conversation.item.created")
    await client.response.create()
    reply = (await talk.until("response.done"))[-1].response.output[0]
    await client.conversation.item.truncate(item_id=reply.id, content_index=0, audio_end_ms=100)
    await talk.one("conversation.item.truncated")

    await talk.say("Tell me a story.")
    await client.response.create(response={"modalities": ["text"]})
    while joined(talk.events, "response.text.delta") != STORY:
        await talk.next()
    await client.response.cancel()
    await talk.until("response.done")
    await client.conversation.item.delete(item_id="item_of_nobody", event_id="my-delete")
    await talk.one("error")


async def make(file: Path) -> None:
    """A recording of it, on a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        async with running(config(Path(folder)), host="127.0.0.1", port=0) as server:
            options = RecordOptions(target=target_of(f"ws://127.0.0.1:{server.port}"), out=file)
            async with recording(options, host="127.0.0.1", port=0) as port, talking(port, MODEL) as talk:
                await converse(talk)


if __name__ == "__main__":
    FILE.unlink(missing_ok=True)
    asyncio.run(make(FILE))
