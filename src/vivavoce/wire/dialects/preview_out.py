"""Preview dialect, to the wire: server events -> JSON frames (protocol sections 3.1, 5 and 7; events.yaml).

All keys are always sent, null where empty (protocol section 8, rows 27 and 28), in the order in which the
service prints them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from vivavoce.wire import errors, items
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
from vivavoce.wire.dialects.profiles import Profile

_AUDIO_HEAD: Final = delta_head("response.audio.delta")
_TEXT_HEAD: Final = delta_head("response.text.delta")
_TRANSCRIPT_HEAD: Final = delta_head("response.audio_transcript.delta")


class PreviewEncoder:
    """Writes server events of the preview dialect. Stateless; one per profile serves all sessions."""

    def __init__(self, profile: Profile, *, conversation_created: bool = True) -> None:
        self._profile = profile
        self._conversation_created = conversation_created
        self._early_errors: dict[str | None, errors.ErrorBody] = {}
        if profile.early_commit_error:
            self._early_errors["input_audio_buffer_commit_empty"] = errors.EARLY_COMMIT_TOO_SMALL
        if profile.early_response_error:
            self._early_errors["conversation_already_has_active_response"] = errors.EARLY_ACTIVE_RESPONSE

    def encode(self, event: se.ServerEvent, event_id: str) -> bytes | None:
        """One frame of UTF-8 JSON, or None where this dialect has no such event."""
        if isinstance(event, se.AudioDelta):
            return audio_delta(_AUDIO_HEAD, event, event_id)
        if isinstance(event, se.TranscriptDelta):
            return text_delta(_TRANSCRIPT_HEAD, event, event_id)
        if isinstance(event, se.TextDelta):
            return text_delta(_TEXT_HEAD, event, event_id)
        if isinstance(event, se.ItemRetrieved):
            return item_retrieved(event, item_out(event.item), event_id)
        if isinstance(event, se.ErrorRaised):
            event = self._as_it_was(event)
        body = self._body(event)
        if body is None:
            return None
        kind, fields = body
        return encode({"type": kind, "event_id": event_id, **fields})

    def client_secret(self, session: se.Session, value: str, expires_at: int) -> bytes:
        """The body that hands out a client secret, and shows what its sessions begin with."""
        body = self._transcription_session(session) if session.kind == "transcription" else self._session(session)
        return encode({**body, "client_secret": {"value": value, "expires_at": expires_at}})

    def secret_error(self, body: errors.ErrorBody) -> errors.ErrorBody:
        """What is wrong in the body that one is asked for with: there the settings stand in no ``session``."""
        if body.param is None:
            return body
        param = body.param.removeprefix("session.")
        return msgspec.structs.replace(
            body, param=param, message=body.message.replace(f"'{body.param}'", f"'{param}'")
        )

    def _as_it_was(self, event: se.ErrorRaised) -> se.ErrorRaised:
        early = self._early_errors.get(event.error.code)
        if early is None:
            return event
        return se.ErrorRaised(msgspec.structs.replace(early, event_id=event.error.event_id))

    def _body(self, event: se.ServerEvent) -> tuple[str, dict[str, Any]] | None:
        plain = _PLAIN.get(type(event))
        if plain is not None:
            return plain, msgspec.structs.asdict(event)
        match event:
            case se.SessionCreated(se.Session(kind="transcription") as session):
                return "transcription_session.created", {"session": self._transcription_session(session)}
            case se.SessionUpdated(se.Session(kind="transcription") as session):
                return "transcription_session.updated", {"session": self._transcription_session(session)}
            case se.SessionCreated(session):
                return "session.created", {"session": self._session(session)}
            case se.SessionUpdated(session):
                return "session.updated", {"session": self._session(session)}
            case se.ConversationCreated():
                if not self._conversation_created:
                    return None
                conversation = {"id": event.conversation_id, "object": "realtime.conversation"}
                return "conversation.created", {"conversation": conversation}
            case se.ItemAdded():
                return "conversation.item.created", {
                    "previous_item_id": event.previous_item_id,
                    "item": item_out(event.item),
                }
            case se.ItemDone() | se.IdleTimedOut():
                return None
            case se.TranscriptionDelta():
                if not self._profile.of_2025:
                    return None
                return "conversation.item.input_audio_transcription.delta", {
                    "item_id": event.item_id,
                    "content_index": event.content_index,
                    "delta": event.delta,
                    **logprobs(event.logprobs),
                }
            case se.TranscriptionCompleted():
                body: dict[str, Any] = {
                    "item_id": event.item_id,
                    "content_index": event.content_index,
                    "transcript": event.transcript,
                }
                if self._profile.of_2025:
                    body |= {"usage": transcription_usage(event.usage), **logprobs(event.logprobs)}
                return "conversation.item.input_audio_transcription.completed", body
            case se.TranscriptionFailed():
                return "conversation.item.input_audio_transcription.failed", {
                    "item_id": event.item_id,
                    "content_index": event.content_index,
                    "error": {**fault(event.error), "param": None},
                }
            case se.ResponseCreated():
                return "response.created", {"response": self._response(event.response)}
            case se.ResponseDone():
                return "response.done", {"response": self._response(event.response)}
            case se.RateLimitsUpdated():
                if event.at != self._profile.rate_limits_at:
                    return None
                return "rate_limits.updated", {"rate_limits": event.rate_limits}
            case se.ArgumentsDone():
                # ``name`` is documented for GA only, but Microsoft's preview client refuses the event without it.
                return "response.function_call_arguments.done", {
                    "response_id": event.response_id,
                    "item_id": event.item_id,
                    "output_index": event.output_index,
                    "call_id": event.call_id,
                    "name": event.name,
                    "arguments": event.arguments,
                }
            case se.ContentPartAdded():
                return "response.content_part.added", _part_event(event)
            case se.ContentPartDone():
                return "response.content_part.done", _part_event(event)
            case se.OutputItemAdded() | se.OutputItemDone():
                name = "added" if isinstance(event, se.OutputItemAdded) else "done"
                return f"response.output_item.{name}", {
                    "response_id": event.response_id,
                    "output_index": event.output_index,
                    "item": item_out(event.item),
                }
            case _:
                raise AssertionError(f"the preview dialect has no shape for {type(event).__name__}")

    def _session(self, session: se.Session) -> dict[str, Any]:
        config = session.config
        body: dict[str, Any] = {
            "id": session.id,
            "object": "realtime.session",
            "model": session.model,
            "expires_at": session.expires_at,
            "modalities": config.modalities,
            "instructions": config.instructions,
            "voice": config.voice,
            "turn_detection": self._turn_detection(config.turn_detection),
            "input_audio_format": config.input_audio_format,
            "output_audio_format": config.output_audio_format,
            "input_audio_transcription": self._transcription(config.input_audio_transcription),
            "tool_choice": tool_choice(config.tool_choice),
            "temperature": config.temperature,
            "max_response_output_tokens": max_tokens(config.max_output_tokens),
            "tools": [tool(one) for one in config.tools],
        }
        if self._profile.of_2025:
            body |= {
                "speed": config.speed,
                "input_audio_noise_reduction": noise_reduction(config.input_audio_noise_reduction),
                "include": config.include,
                "client_secret": None,
                "tracing": config.tracing,
            }
        return body

    def _transcription_session(self, session: se.Session) -> dict[str, Any]:
        config = session.config
        return {
            "id": session.id,
            "object": "realtime.transcription_session",
            "expires_at": session.expires_at,
            "modalities": config.modalities,
            "turn_detection": self._turn_detection(config.turn_detection),
            "input_audio_format": config.input_audio_format,
            "input_audio_transcription": self._transcription(config.input_audio_transcription),
            "input_audio_noise_reduction": noise_reduction(config.input_audio_noise_reduction),
            "include": config.include,
            "client_secret": None,
        }

    def _turn_detection(self, vad: sc.TurnDetection | None) -> dict[str, Any] | None:
        if vad is None:
            return None
        if isinstance(vad, sc.SemanticVad):
            return {
                "type": "semantic_vad",
                "eagerness": vad.eagerness,
                "create_response": vad.create_response,
                "interrupt_response": vad.interrupt_response,
            }
        body: dict[str, Any] = {
            "type": "server_vad",
            "threshold": vad.threshold,
            "prefix_padding_ms": vad.prefix_padding_ms,
            "silence_duration_ms": vad.silence_duration_ms,
        }
        if self._profile.shows_create_response or not vad.create_response:
            body["create_response"] = vad.create_response
        if self._profile.shows_interrupt_response or not vad.interrupt_response:
            body["interrupt_response"] = vad.interrupt_response
        return body

    def _transcription(self, transcription: sc.Transcription | None) -> dict[str, Any] | None:
        if transcription is None:
            return None
        body: dict[str, Any] = {"model": transcription.model}
        if self._profile.of_2025 or transcription.language is not None:
            body["language"] = transcription.language
        if self._profile.of_2025 or transcription.prompt is not None:
            body["prompt"] = transcription.prompt
        return body

    def _response(self, response: se.Response) -> dict[str, Any]:
        body: dict[str, Any] = {
            "object": "realtime.response",
            "id": response.id,
            "status": response.status,
            "status_details": status_details(response.status_details),
            "output": [item_out(item) for item in response.output],
        }
        if self._profile.describes_responses:
            body |= {
                "conversation_id": response.conversation_id,
                "modalities": response.modalities,
                "voice": response.voice,
                "output_audio_format": response.output_audio_format,
                "temperature": response.temperature,
                "max_output_tokens": max_tokens(response.max_output_tokens),
            }
        body["usage"] = self._usage(response.usage)
        if self._profile.describes_responses or response.metadata is not None:
            body["metadata"] = response.metadata
        return body

    def _usage(self, usage: se.Usage | None) -> dict[str, Any] | None:
        if usage is None:
            return None
        details: dict[str, Any] = {
            "cached_tokens": usage.cached_text + usage.cached_audio,
            "text_tokens": usage.input_text,
            "audio_tokens": usage.input_audio,
        }
        if self._profile.describes_responses:
            details["cached_tokens_details"] = {
                "text_tokens": usage.cached_text,
                "audio_tokens": usage.cached_audio,
            }
        return {
            "total_tokens": usage.total,
            "input_tokens": usage.input_text + usage.input_audio,
            "output_tokens": usage.output_text + usage.output_audio,
            "input_token_details": details,
            "output_token_details": {"text_tokens": usage.output_text, "audio_tokens": usage.output_audio},
        }


def item_out(item: items.Item) -> dict[str, Any]:
    """An item as the preview dialect prints it; audio bytes are never echoed."""
    body: dict[str, Any] = {
        "id": item.id,
        "object": "realtime.item",
        "type": item.__struct_config__.tag,
        "status": item.status,
    }
    match item:
        case items.MessageItem():
            body["role"] = item.role
            body["content"] = [part_out(part) for part in item.content]
        case items.FunctionCallItem():
            body |= {"name": item.name, "call_id": item.call_id, "arguments": item.arguments}
        case items.FunctionCallOutputItem():
            body |= {"call_id": item.call_id, "output": item.output}
    return body


def part_out(part: items.Part) -> dict[str, Any]:
    match part:
        case items.InputTextPart() | items.TextPart():
            return {"type": part.__struct_config__.tag, "text": part.text}
        case items.InputAudioPart() | items.AudioPart():
            return {"type": part.__struct_config__.tag, "transcript": part.transcript}
        case items.InputImagePart():
            raise AssertionError("the preview has no images")


def _part_event(event: se.ContentPartAdded | se.ContentPartDone) -> dict[str, Any]:
    return {
        "response_id": event.response_id,
        "item_id": event.item_id,
        "output_index": event.output_index,
        "content_index": event.content_index,
        "part": part_out(event.part),
    }


_PLAIN: Final[dict[type, str]] = {
    se.ErrorRaised: "error",
    se.ItemDeleted: "conversation.item.deleted",
    se.ItemTruncated: "conversation.item.truncated",
    se.InputAudioCommitted: "input_audio_buffer.committed",
    se.InputAudioCleared: "input_audio_buffer.cleared",
    se.SpeechStarted: "input_audio_buffer.speech_started",
    se.SpeechStopped: "input_audio_buffer.speech_stopped",
    se.TextDone: "response.text.done",
    se.TranscriptDone: "response.audio_transcript.done",
    se.AudioDone: "response.audio.done",
    se.ArgumentsDelta: "response.function_call_arguments.delta",
}
"""Events whose fields stand on the wire just as they are."""
