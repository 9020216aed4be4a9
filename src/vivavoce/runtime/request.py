"""From the plan of a response to what an engine is asked: the one place where core and engines meet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.resample import clip_to_pcm
from vivavoce.core import contract as c
from vivavoce.core.context import Entry, ResponsePlan
from vivavoce.engines import base
from vivavoce.wire import items
from vivavoce.wire import session_config as sc

Words: TypeAlias = Callable[[Entry, int], Awaitable[str]]
"""(entry, content index) -> what was said in its audio there."""


async def generation_request(
    plan: ResponsePlan, *, hears_audio: bool, words: Words, keeps_speech: bool = False
) -> base.GenerationRequest:
    """Speech in the context becomes PCM for a model that hears, and words, awaited if need be, for one that reads.

    ``keeps_speech``: the model can do with a message of which the words are gone. Raises EngineError when the words
    cannot be had.
    """
    turns = [
        await _turn(entry, hears_audio=hears_audio, words=words, keeps_speech=keeps_speech)
        for entry in plan.context
    ]
    return base.GenerationRequest(
        instructions=plan.instructions,
        turns=tuple(turn for turn in turns if turn is not None),
        modalities=frozenset(plan.modalities),
        tools=tuple(base.Tool(tool.name, tool.description or "", tool.parameters or {}) for tool in plan.tools),
        tool_choice=_tool_choice(plan.tool_choice),
        temperature=plan.temperature,
        max_output_tokens=plan.max_output_tokens,
        parallel_tool_calls=plan.parallel_tool_calls,
        reasoning=plan.reasoning,
        session=plan.session_id,
        out_of_band=not plan.in_band,
    )


async def _turn(entry: Entry, *, hears_audio: bool, words: Words, keeps_speech: bool) -> base.Turn | None:
    match entry.item:
        case items.FunctionCallItem() as call:
            return base.ToolCall(call.call_id, call.name, call.arguments, call.id)
        case items.FunctionCallOutputItem() as output:
            return base.ToolOutput(output.call_id, output.output, output.id)
        case items.MessageItem() as message:
            content: list[base.Content] = []
            for i, part in enumerate(message.content):
                match part:
                    case items.InputTextPart() | items.TextPart():
                        content.append(base.TextInput(part.text))
                    case items.AudioPart():
                        # A truncated part has no words left (protocol section 4.6), and a model that remembers
                        # its own speech needs none. To others, those that were heard are all that is left of it.
                        said = part.transcript or (None if keeps_speech else entry.heard_text)
                        content += [base.TextInput(said)] if said else []
                    case items.InputImagePart():
                        content.append(base.ImageInput(part.image_url, part.detail))
                    case items.InputAudioPart():
                        content.append(await _speech(entry, i, hears_audio=hears_audio, words=words))
            audio_ms = entry.audio_ms if entry.has_audio else None
            if content or (keeps_speech and audio_ms is not None):
                return base.Message(message.role, tuple(content), message.id, audio_ms)
            return None


async def _speech(entry: Entry, index: int, *, hears_audio: bool, words: Words) -> base.Content:
    heard = entry.heard.get(index)
    clip = entry.clips.get(index)
    if clip is not None and hears_audio:
        rate = AudioFormat.PCM16.rate
        return base.AudioInput(await asyncio.to_thread(clip_to_pcm, clip, rate), rate, heard)
    if heard is None and clip is not None:
        heard = await words(entry, index)
    return base.TextInput(heard or "")


def _tool_choice(choice: sc.ToolChoice) -> base.ToolChoice:
    return base.NamedTool(choice.name) if isinstance(choice, sc.NamedFunction) else choice


def usage_report(response_id: str, usage: base.Usage) -> c.UsageReported:
    """What a model says it used, as the session is told."""
    read = usage.input
    tokens = None if read is None else c.InputTokens(read.text, read.audio, read.cached_text, read.cached_audio)
    return c.UsageReported(
        response_id,
        input=tokens,
        output_text=usage.output_text,
        output_audio=usage.output_audio,
    )
