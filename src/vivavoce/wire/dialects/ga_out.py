"""GA dialect, to the wire: server events -> JSON frames (protocol sections 3.3, 5, 7 and 8.1; events.yaml).

All keys are always sent, null where empty, in the order in which the service prints them.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
import pybase64

from vivavoce.wire import items
from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc
from vivavoce.wire.dialects.encoder import (
    audio_delta,
    delta_head,
    encode,
    fault,
    item_retrieved,
    logprobs,
    max_tokens,
    noise_reduction,
    status_details,
    text_delta,
    tool,
    tool_choice,
    transcription_usage,
)
from vivavoce.wire.dialects.ga_shapes import RATE
from vivavoce.wire.dialects.profiles import GaProfile
from vivavoce.wire.errors import ErrorBody

_AUDIO_HEAD: Final = delta_head("response.output_audio.delta")
_TEXT_HEAD: Final = delta_head("response.output_text.delta")
_TRANSCRIPT_HEAD: Final = delta_head("response.output_audio_transcript.delta")
_BLOCK: Final = 16
"""Characters of a delta and its padding come in multiples of this."""


class GaEncoder:
    """Writes server events of the GA dialect. Stateless; one per profile serves all sessions."""

    def __init__(self, profile: GaProfile) -> None:
        self._profile = profile

    def encode(self, event: se.ServerEvent, event_id: str) -> bytes | None:
        """One frame of UTF-8 JSON, or None where this dialect has no such event."""
        if isinstance(event, se.AudioDelta):
            return audio_delta(_AUDIO_HEAD, event, event_id)
        if isinstance(event, se.TranscriptDelta):
            return text_delta(_TRANSCRIPT_HEAD, event, event_id, _padding(event, event_id))
        if isinstance(event, se.TextDelta):
            return text_delta(_TEXT_HEAD, event, event_id, _padding(event, event_id))
        if isinstance(event, se.ItemRetrieved):
            return item_retrieved(event, item_out(event.item), event_id)
        body = self._body(event)
        if body is None:
            return None
        kind, fields = body
        frame = {"type": kind, "event_id": event_id, **fields}
        if kind.endswith(".delta"):
            frame["obfuscation"] = obfuscation(len(fields["delta"]), event_id)
        return encode(frame)

    def client_secret(self, session: se.Session, value: str, expires_at: int) -> bytes:
        """The body that hands out a client secret, and shows what its sessions begin with."""
        return encode({"value": value, "expires_at": expires_at, "session": _session(session)})

    def secret_error(self, body: ErrorBody) -> ErrorBody:
        """What is wrong in the body that one is asked for with."""
        return _error(body)

    def _body(self, event: se.ServerEvent) -> tuple[str, dict[str, Any]] | None:
        plain = _PLAIN.get(type(event))
        if plain is not None:
            return plain, msgspec.structs.asdict(event)
        match event:
            case se.ErrorRaised():
                return "error", {"error": _error(event.error)}
            case se.SessionCreated(session):
                return "session.created", {"session": _session(session)}
            case se.SessionUpdated(session):
                return "session.updated", {"session": _session(session)}
            case se.ConversationCreated():
                return None
            case se.ItemAdded():
                return "conversation.item.added", _placed(event)
            case se.ItemDone():
                return "conversation.item.done", _placed(event)
            case se.TranscriptionDelta():
                return "conversation.item.input_audio_transcription.delta", {
                    "item_id": event.item_id,
                    "content_index": event.content_index,
                    "delta": event.delta,
                    **logprobs(event.logprobs),
                }
            case se.TranscriptionCompleted():
                return "conversation.item.input_audio_transcription.completed", {
                    "item_id": event.item_id,
                    "content_index": event.content_index,
                    "transcript": event.transcript,
                    "usage": transcription_usage(event.usage),
                    **logprobs(event.logprobs),
                }
            case se.TranscriptionFailed():
                return "conversation.item.input_audio_transcription.failed", {
                    "item_id": event.item_id,
                    "content_index": event.content_index,
                    "error": {**fault(event.error), "param": None},
                }
            case se.ResponseCreated():
                return "response.created", {"response": _response(event.response)}
            case se.ResponseDone():
                return "response.done", {"response": _response(event.response)}
            case se.RateLimitsUpdated():
                return self._rate_limits(event)
            case se.ArgumentsDone():
                return "response.function_call_arguments.done", {
                    "response_id": event.response_id,
                    "item_id": event.item_id,
                    "output_index": event.output_index,
                    "call_id": event.call_id,
                    "name": event.name,
                    "arguments": event.arguments,
                }
            case se.ContentPartAdded():
                return "response.content_part.added", self._part_event(event)
            case se.ContentPartDone():
                return "response.content_part.done", self._part_event(event)
            case se.OutputItemAdded():
                return "response.output_item.added", _output_item(event)
            case se.OutputItemDone():
                return "response.output_item.done", _output_item(event)
            case _:
                raise AssertionError(f"the GA dialect has no shape for {type(event).__name__}")

    def _rate_limits(self, event: se.RateLimitsUpdated) -> tuple[str, dict[str, Any]] | None:
        if event.at != "done" or not self._profile.tells_rate_limits:
            return None
        return "rate_limits.updated", {"rate_limits": [one for one in event.rate_limits if one.name == "tokens"]}

    def _part_event(self, event: se.ContentPartAdded | se.ContentPartDone) -> dict[str, Any]:
        part = _streamed(event.part)
        body = {
            "response_id": event.response_id,
            "item_id": event.item_id,
            "output_index": event.output_index,
            "content_index": event.content_index,
            "part": part,
        }
        if self._profile.repeats_parts:
            body["content"] = part
        return body


def obfuscation(length: int, event_id: str) -> str:
    """Padding for a delta of so many characters, so that the length of a frame does not tell it.

    Made of the event's id, which says nothing; scattered, or compression would take it out again.
    """
    letters = pybase64.b64encode(hashlib.blake2b(event_id.encode(), digest_size=12).digest(), altchars=b"0A")
    return letters[: _BLOCK - length % _BLOCK].decode()


def _padding(event: se.TextDelta | se.TranscriptDelta, event_id: str) -> bytes:
    return f',"obfuscation":"{obfuscation(len(event.delta), event_id)}"'.encode()


def item_out(item: items.Item) -> dict[str, Any]:
    """An item as the GA dialect prints it; audio bytes are never echoed."""
    body: dict[str, Any] = {"id": item.id, "type": item.__struct_config__.tag}
    match item:
        case items.MessageItem():
            body |= {
                "status": item.status,
                "role": item.role,
                "content": [part_out(part) for part in item.content],
            }
        case items.FunctionCallItem():
            body |= {
                "status": item.status,
                "name": item.name,
                "call_id": item.call_id,
                "arguments": item.arguments,
            }
        case items.FunctionCallOutputItem():
            body |= {"call_id": item.call_id, "output": item.output}
    return body


def part_out(part: items.Part) -> dict[str, Any]:
    """A part as it stands in an item."""
    match part:
        case items.InputTextPart():
            return {"type": "input_text", "text": part.text}
        case items.InputAudioPart():
            return {"type": "input_audio", "transcript": part.transcript}
        case items.InputImagePart():
            return {"type": "input_image", "image_url": part.image_url, "detail": part.detail}
        case items.TextPart():
            return {"type": "output_text", "text": part.text}
        case items.AudioPart():
            return {"type": "output_audio", "transcript": part.transcript}


def _streamed(part: items.OutputPart) -> dict[str, Any]:
    """A part as ``response.content_part.*`` prints it: there it has kept the names of the preview."""
    if isinstance(part, items.TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "audio", "transcript": part.transcript}


def _placed(event: se.ItemAdded | se.ItemDone) -> dict[str, Any]:
    return {"previous_item_id": event.previous_item_id, "item": item_out(event.item)}


def _output_item(event: se.OutputItemAdded | se.OutputItemDone) -> dict[str, Any]:
    return {
        "response_id": event.response_id,
        "output_index": event.output_index,
        "item": item_out(event.item),
    }


def _session(session: se.Session) -> dict[str, Any]:
    config = session.config
    if session.kind == "transcription":
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": session.id,
            "expires_at": session.expires_at,
            "audio": {"input": _audio_input(config)},
            "include": config.include,
        }
    asked: dict[str, Any] = {}
    # Sessions of models that have not these settings are recorded without them.
    if config.parallel_tool_calls is not None:
        asked["parallel_tool_calls"] = config.parallel_tool_calls
    if config.reasoning is not None:
        asked["reasoning"] = {"effort": config.reasoning}
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session.id,
        "model": session.model,
        "output_modalities": _modalities(config.modalities),
        "instructions": config.instructions,
        "tools": [tool(one) for one in config.tools],
        "tool_choice": tool_choice(config.tool_choice),
        "max_output_tokens": max_tokens(config.max_output_tokens),
        "tracing": config.tracing,
        "truncation": _truncation(config.truncation),
        "prompt": config.prompt,
        "expires_at": session.expires_at,
        "audio": {
            "input": _audio_input(config),
            "output": {
                "format": _format(config.output_audio_format),
                "voice": config.voice,
                "speed": config.speed,
            },
        },
        "include": config.include,
        **asked,
    }


def _truncation(truncation: sc.Truncation) -> str | dict[str, Any]:
    if not isinstance(truncation, sc.RetentionRatio):
        return truncation
    shown: dict[str, Any] = {"type": "retention_ratio", "retention_ratio": truncation.retention_ratio}
    if truncation.post_instructions is not None:
        shown["token_limits"] = {"post_instructions": truncation.post_instructions}
    return shown


def _audio_input(config: sc.SessionConfig) -> dict[str, Any]:
    return {
        "format": _format(config.input_audio_format),
        "transcription": _transcription(config.input_audio_transcription),
        "noise_reduction": noise_reduction(config.input_audio_noise_reduction),
        "turn_detection": _turn_detection(config.turn_detection),
    }


def _transcription(transcription: sc.Transcription | None) -> dict[str, Any] | None:
    return None if transcription is None else msgspec.structs.asdict(transcription)


def _turn_detection(vad: sc.TurnDetection | None) -> dict[str, Any] | None:
    match vad:
        case None:
            return None
        case sc.ServerVad():
            return {
                "type": "server_vad",
                "threshold": vad.threshold,
                "prefix_padding_ms": vad.prefix_padding_ms,
                "silence_duration_ms": vad.silence_duration_ms,
                "idle_timeout_ms": vad.idle_timeout_ms,
                "create_response": vad.create_response,
                "interrupt_response": vad.interrupt_response,
            }
        case sc.SemanticVad():
            return {
                "type": "semantic_vad",
                "eagerness": vad.eagerness,
                "create_response": vad.create_response,
                "interrupt_response": vad.interrupt_response,
            }


def _response(response: se.Response) -> dict[str, Any]:
    return {
        "object": "realtime.response",
        "id": response.id,
        "status": response.status,
        "status_details": status_details(response.status_details),
        "output": [item_out(item) for item in response.output],
        "conversation_id": response.conversation_id,
        "output_modalities": _modalities(response.modalities),
        "max_output_tokens": max_tokens(response.max_output_tokens),
        "audio": {
            "output": {"format": _format(response.output_audio_format), "voice": response.voice},
        },
        "usage": _usage(response.usage),
        "metadata": response.metadata,
    }


def _usage(usage: se.Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "total_tokens": usage.total,
        "input_tokens": usage.input,
        "output_tokens": usage.output_text + usage.output_audio,
        "input_token_details": {
            "text_tokens": usage.input_text,
            "audio_tokens": usage.input_audio,
            "image_tokens": usage.input_image,
            "cached_tokens": usage.cached,
            "cached_tokens_details": {
                "text_tokens": usage.cached_text,
                "audio_tokens": usage.cached_audio,
                "image_tokens": usage.cached_image,
            },
        },
        "output_token_details": {"text_tokens": usage.output_text, "audio_tokens": usage.output_audio},
    }


def _modalities(modalities: tuple[sc.Modality, ...]) -> list[str]:
    return ["audio"] if "audio" in modalities else ["text"]


def _format(name: sc.AudioFormatName) -> dict[str, Any]:
    return {"type": "audio/pcm", "rate": RATE} if name == "pcm16" else {"type": _G711[name]}


def _error(body: ErrorBody) -> ErrorBody:
    """Where the core names a setting, it has a place of its own here. What the decoder refuses is in its place."""
    path = _PLACES.get(body.param or "") if body.code != "unknown_parameter" else None
    if path is None or body.param is None:
        return body
    return msgspec.structs.replace(body, param=path, message=body.message.replace(f"'{body.param}'", f"'{path}'"))


_G711: Final = {"g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_PLACES: Final = {
    "session.voice": "session.audio.output.voice",
    "session.input_audio_noise_reduction": "session.audio.input.noise_reduction",
    "response.voice": "response.audio.output.voice",
}
_PLAIN: Final[dict[type, str]] = {
    se.ItemDeleted: "conversation.item.deleted",
    se.ItemTruncated: "conversation.item.truncated",
    se.InputAudioCommitted: "input_audio_buffer.committed",
    se.InputAudioCleared: "input_audio_buffer.cleared",
    se.SpeechStarted: "input_audio_buffer.speech_started",
    se.SpeechStopped: "input_audio_buffer.speech_stopped",
    se.IdleTimedOut: "input_audio_buffer.timeout_triggered",
    se.TextDone: "response.output_text.done",
    se.TranscriptDone: "response.output_audio_transcript.done",
    se.AudioDone: "response.output_audio.done",
    se.ArgumentsDelta: "response.function_call_arguments.delta",
}
"""Events whose fields stand on the wire just as they are."""
