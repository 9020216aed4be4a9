"""The catalogue of errors of sessions: every code, text and ``param`` that leaves this server in their events.

Blame is in the type:

* :class:`ClientFault` - the client sent something wrong: an ``error`` event, the session lives;
* :class:`ServerFault` - not the client's doing: it stands in ``response.done`` or ``transcription.failed``.

Codes and texts are the service's own (protocol section 6). What there is no session for is told in
:mod:`vivavoce.wire.refusals`, and REST requests have theirs in :mod:`vivavoce.wire.rest_errors`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

INVALID_REQUEST: Final = "invalid_request_error"
SERVER_ERROR: Final = "server_error"


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The ``error`` object of an ``error`` event; every key is always sent (protocol section 8, row 27)."""

    type: str = INVALID_REQUEST
    code: str | None
    message: str
    param: str | None = None
    event_id: str | None = None
    """``event_id`` of the client event at fault, where it had one."""


class ServerFault(msgspec.Struct, frozen=True, kw_only=True):
    """A failure on our side, as it stands in ``status_details.error`` and ``transcription.failed``."""

    type: str = SERVER_ERROR
    code: str | None
    message: str


class ClientFault(Exception):
    """A client event that cannot be accepted. It is dropped whole and answered by one ``error`` event."""

    def __init__(self, code: str | None, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def body(self, event_id: str | None) -> ErrorBody:
        """The ``error`` object, naming the client's ``event_id``."""
        return ErrorBody(code=self.code, message=self.message, param=self.param, event_id=event_id)


# ------------------------------------------------------------------------------------------ lists in texts


def listing(values: Iterable[str], last: str = "and") -> str:
    """``'a', 'b', and 'c'``, as the service writes a list of supported values."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) <= 1:
        return "".join(quoted)
    if len(quoted) == 2:
        return f"{quoted[0]} {last} {quoted[1]}"
    return f"{', '.join(quoted[:-1])}, {last} {quoted[-1]}"


# --------------------------------------------------------------------------------- the form of an event


def invalid_json(detail: str) -> ClientFault:
    return ClientFault("invalid_json", f"Invalid event: failed to parse JSON value. {detail}".rstrip())


def binary_frame() -> ClientFault:
    return ClientFault("invalid_event", "Expected a text WebSocket message; binary frames are not supported.")


def not_an_object(found: str) -> ClientFault:
    return ClientFault("invalid_event", f"Invalid event: expected an object, but got {found} instead.")


def missing_type() -> ClientFault:
    return ClientFault("invalid_event", "The 'type' field is missing.")


_SHOWN_CHARS: Final = 256


def shown(text: str) -> str:
    """What a client sent, as an error repeats it: not more than anybody would read."""
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


def unsupported_value(param: str, value: object, supported: Iterable[str]) -> ClientFault:
    return ClientFault(
        "invalid_value", f"Invalid value: '{shown(str(value))}'. Supported values are: {listing(supported)}.", param
    )


def unknown_parameter(param: str) -> ClientFault:
    param = shown(param)
    return ClientFault("unknown_parameter", f"Unknown parameter: '{param}'.", param)


def missing_parameter(param: str) -> ClientFault:
    return ClientFault("missing_required_parameter", f"Missing required parameter: '{param}'.", param)


def invalid_type(param: str, expected: str, found: str) -> ClientFault:
    return ClientFault(
        "invalid_type", f"Invalid type for '{param}': expected {expected}, but got {found} instead.", param
    )


def string_too_long(param: str, limit: int, length: int) -> ClientFault:
    return ClientFault(
        "string_above_max_length",
        f"Invalid '{param}': string too long. Expected a string with maximum length {limit}, "
        f"but got a string with length {length} instead.",
        param,
    )


def too_many_images(param: str, limit: int, count: int) -> ClientFault:
    return ClientFault(
        "array_above_max_length",
        f"Invalid '{param}': too many images. Expected at most {limit}, but got {count} instead.",
        param,
    )


def string_too_short(param: str, limit: int, length: int) -> ClientFault:
    return ClientFault(
        "string_below_min_length",
        f"Invalid '{param}': string too short. Expected a string with minimum length {limit}, "
        f"but got a string with length {length} instead.",
        param,
    )


def string_off_pattern(param: str, pattern: str) -> ClientFault:
    return ClientFault(
        "invalid_value",
        f"Invalid '{param}': string does not match pattern. Expected a string that matches the pattern "
        f"'{pattern}'.",
        param,
    )


def number_below(param: str, kind: str, limit: float, value: float) -> ClientFault:
    """``kind`` is ``integer`` or ``decimal``."""
    return ClientFault(
        f"{kind}_below_min_value",
        f"Invalid '{param}': {kind} below minimum value. Expected a value >= {_number(limit)}, "
        f"but got {_number(value)} instead.",
        param,
    )


def number_above(param: str, kind: str, limit: float, value: float) -> ClientFault:
    return ClientFault(
        f"{kind}_above_max_value",
        f"Invalid '{param}': {kind} above maximum value. Expected a value <= {_number(limit)}, "
        f"but got {_number(value)} instead.",
        param,
    )


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def not_together(one: str, other: str) -> ClientFault:
    return ClientFault("invalid_value", f"Invalid '{other}': it cannot be used together with '{one}'.", other)


def nested_too_deeply(param: str, limit: int) -> ClientFault:
    return ClientFault(
        "invalid_value", f"Invalid '{param}': nested too deeply. At most {limit} levels are supported.", param
    )


def too_many_properties(param: str, limit: int, count: int) -> ClientFault:
    return ClientFault(
        "object_above_max_properties",
        f"Invalid '{param}': too many properties. Expected an object with at most {limit} properties, "
        f"but got {count} properties instead.",
        param,
    )


def invalid_modalities(param: str, found: Iterable[str], supported: Iterable[Iterable[str]]) -> ClientFault:
    sets = [f"[{', '.join(repr(name) for name in names)}]" for names in supported]
    got = shown(f"[{', '.join(repr(name) for name in found)}]")
    return ClientFault(
        "invalid_value",
        f"Invalid modalities: {got}. Supported combinations are: {' and '.join(sets)}.",
        param,
    )


# ------------------------------------------------------------------------------------------------- audio

_AUDIO_NAMES: Final = {
    "pcm16": "mono PCM16 at 24kHz",
    "g711_ulaw": "G.711 u-law at 8kHz",
    "g711_alaw": "G.711 A-law at 8kHz",
}


def invalid_audio(param: str, audio_format: str, problem: str = "an invalid value") -> ClientFault:
    """``problem``: ``an invalid value`` or ``empty bytes``."""
    return ClientFault(
        "invalid_value",
        f"Invalid '{param}'. Expected base64-encoded audio bytes ({_AUDIO_NAMES[audio_format]}) but got {problem}.",
        param,
    )


def invalid_image(param: str, problem: str) -> ClientFault:
    wanted = "a base64-encoded data URL with an image MIME type (e.g. 'data:image/png;base64,aW1nIGJ5dGVzIGhlcmU=')"
    return ClientFault("invalid_value", f"Invalid '{param}'. Expected {wanted}, but got {problem}.", param)


def unsupported_by_model(what: str, param: str) -> ClientFault:
    return ClientFault("invalid_value", f"The model of this deployment does not support {what}.", param)


def audio_too_large(param: str, limit: int, size: int) -> ClientFault:
    return ClientFault(
        "invalid_value",
        f"Invalid '{param}': audio too large. Expected at most {limit} bytes, but got {size} bytes instead.",
        param,
    )


def buffer_full(limit_ms: int) -> ClientFault:
    return ClientFault(
        "input_audio_buffer_full",
        f"Error appending audio: the session already holds {limit_ms // 60000} minutes of audio. "
        "Clear the input buffer, or delete items.",
    )


def conversation_full(limit: int, what: str = "characters of text") -> ClientFault:
    return ClientFault(
        "conversation_full",
        f"Error adding item: the conversation would hold more than {limit} {what}. Delete items first.",
    )


def commit_too_small(ms: float) -> ClientFault:
    return ClientFault(
        "input_audio_buffer_commit_empty",
        "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
        f"but buffer only has {ms:.2f}ms of audio.",
    )


EARLY_COMMIT_TOO_SMALL: Final = ErrorBody(
    code=None, message="Error committing input audio buffer: the buffer is empty."
)
"""How the first edition of the service told :func:`commit_too_small`."""


# ------------------------------------------------------------------------------- session and conversation


def cannot_update_voice(param: str) -> ClientFault:
    return ClientFault(
        "cannot_update_voice", "Cannot update a conversation's voice if assistant audio is present.", param
    )


def model_is_fixed(param: str) -> ClientFault:
    return ClientFault("invalid_value", "Cannot update a session's model after it was created.", param)


def no_noise_reduction(param: str) -> ClientFault:
    return ClientFault("invalid_value", f"This server has no noise reduction: '{param}' can only be null.", param)


def wrong_session_kind(update: str, session: str) -> ClientFault:
    return ClientFault(
        "invalid_parameter",
        f"Passing a {update} session update event to a {session} session is not allowed.",
    )


def unknown_prompt(prompt_id: str) -> ClientFault:
    """As the service has it for its other APIs. Source: github.com/miharekar/visualizer issue 198."""
    return ClientFault(None, f"Prompt with id '{shown(prompt_id)}' not found.")


def unknown_prompt_version(prompt_id: str, version: str) -> ClientFault:
    return ClientFault(None, f"Prompt with id '{shown(prompt_id)}' and version '{shown(version)}' not found.")


def no_responses_here() -> ClientFault:
    return ClientFault(
        "invalid_parameter", "Passing a response create event to a transcription session is not allowed."
    )


def duplicate_item(item_id: str, param: str = "item.id") -> ClientFault:
    return ClientFault(
        "item_create_duplicate_item_id",
        f"Error adding item: an item with id '{shown(item_id)}' already exists.",
        param,
    )


def unknown_previous_item(item_id: str) -> ClientFault:
    return ClientFault(
        "item_create_invalid_previous_item_id",
        f"Error adding item: the previous item with id '{shown(item_id)}' does not exist.",
        "previous_item_id",
    )


def unknown_tool_call(call_id: str, param: str = "item.call_id") -> ClientFault:
    return ClientFault("invalid_tool_call_id", f"Tool call ID '{shown(call_id)}' not found in conversation.", param)


def unknown_item(verb: str, code: str, item_id: str) -> ClientFault:
    """``verb``/``code``: deleting/delete, truncating/truncate, retrieving/retrieve."""
    return ClientFault(
        f"item_{code}_invalid_item_id", f"Error {verb} item: the item with id '{shown(item_id)}' does not exist."
    )


def not_truncatable() -> ClientFault:
    return ClientFault("unsupported_content_type", "Only model output audio messages can be truncated")


def truncate_beyond_audio(have_ms: int, want_ms: int) -> ClientFault:
    return ClientFault("invalid_value", f"Audio content of {have_ms}ms is already shorter than {want_ms}ms")


def unknown_tool(name: str, param: str) -> ClientFault:
    return ClientFault("invalid_value", f"Tool choice '{shown(name)}' not found in 'tools' parameter.", param)


def unknown_reference(item_id: str, param: str) -> ClientFault:
    return ClientFault("invalid_value", f"Item with id '{shown(item_id)}' not found in conversation.", param)


# ---------------------------------------------------------------------------------------------- responses


def active_response(response_id: str) -> ClientFault:
    return ClientFault(
        "conversation_already_has_active_response",
        f"Conversation already has an active response in progress: {response_id}. "
        "Wait until the response is finished before creating a new one.",
    )


EARLY_ACTIVE_RESPONSE: Final = ErrorBody(code=None, message="Conversation already has an active response")
"""How the service told :func:`active_response` until early 2025."""


def too_many_responses(limit: int) -> ClientFault:
    return ClientFault(
        "too_many_active_responses",
        f"This session already has {limit} out-of-band responses in progress. Wait until one is finished.",
    )


def nothing_to_cancel() -> ClientFault:
    return ClientFault("response_cancel_not_active", "Cancellation failed: no active response found")


# ------------------------------------------------------------------------------------------ our own faults


def rate_limit_exceeded(model: str, name: str, seconds: float) -> ServerFault:
    return ServerFault(
        type="rate_limit_exceeded",
        code="rate_limit_exceeded",
        message=f"Rate limit reached for {model} on {name}. Please try again in {seconds:.3g}s.",
    )


def context_length_exceeded() -> ServerFault:
    message = "Your input exceeds the context window of this model. Please adjust your input and try again."
    return ServerFault(type=INVALID_REQUEST, code="context_length_exceeded", message=message)


def transcription_failed(code: str | None, item_id: str) -> ServerFault:
    return ServerFault(code=code, message=f"Input transcription failed for item '{item_id}'.")


def internal_error() -> ServerFault:
    return ServerFault(
        code=None,
        message="The server had an error while processing your request. Sorry about that!",
    )


def internal_error_body() -> ErrorBody:
    fault = internal_error()
    return ErrorBody(type=fault.type, code=fault.code, message=fault.message)


def session_expired(seconds: int) -> ErrorBody:
    """Sessions of the service last whole minutes; where a server was told otherwise, the text is true as well."""
    minutes, rest = divmod(seconds, 60)
    number, unit = (seconds, "second") if rest else (minutes, "minute")
    return ErrorBody(
        code="session_expired",
        message=f"Your session hit the maximum duration of {number} {unit}{'' if number == 1 else 's'}.",
    )
