"""Texts of the catalogue that no client event provokes, and what the error types carry."""

from __future__ import annotations

import pytest

from vivavoce.wire import errors, refusals


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        (["a"], "'a'"),
        (["a", "b"], "'a' and 'b'"),
        (["a", "b", "c"], "'a', 'b', and 'c'"),
    ],
)
def test_listing(values: list[str], text: str) -> None:
    assert errors.listing(values) == text
    assert errors.listing(values, "or") == text.replace(" and ", " or ")


@pytest.mark.parametrize(
    ("fault", "code", "message", "param"),
    [
        (
            errors.invalid_audio("audio", "pcm16"),
            "invalid_value",
            "Invalid 'audio'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) but got an invalid value.",
            "audio",
        ),
        (
            errors.commit_too_small(0.0),
            "input_audio_buffer_commit_empty",
            "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but buffer "
            "only has 0.00ms of audio.",
            None,
        ),
        (
            errors.commit_too_small(99.98),
            "input_audio_buffer_commit_empty",
            "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but buffer "
            "only has 99.98ms of audio.",
            None,
        ),
        (
            errors.cannot_update_voice("session.voice"),
            "cannot_update_voice",
            "Cannot update a conversation's voice if assistant audio is present.",
            "session.voice",
        ),
        (
            errors.duplicate_item("x"),
            "item_create_duplicate_item_id",
            "Error adding item: an item with id 'x' already exists.",
            "item.id",
        ),
        (
            errors.unknown_previous_item("x"),
            "item_create_invalid_previous_item_id",
            "Error adding item: the previous item with id 'x' does not exist.",
            "previous_item_id",
        ),
        (
            errors.unknown_tool_call("call_x"),
            "invalid_tool_call_id",
            "Tool call ID 'call_x' not found in conversation.",
            "item.call_id",
        ),
        (
            errors.unknown_item("deleting", "delete", "x"),
            "item_delete_invalid_item_id",
            "Error deleting item: the item with id 'x' does not exist.",
            None,
        ),
        (
            errors.not_truncatable(),
            "unsupported_content_type",
            "Only model output audio messages can be truncated",
            None,
        ),
        (
            errors.truncate_beyond_audio(9250, 57340),
            "invalid_value",
            "Audio content of 9250ms is already shorter than 57340ms",
            None,
        ),
        (
            errors.active_response("resp_1"),
            "conversation_already_has_active_response",
            "Conversation already has an active response in progress: resp_1. "
            "Wait until the response is finished before creating a new one.",
            None,
        ),
        (
            errors.nothing_to_cancel(),
            "response_cancel_not_active",
            "Cancellation failed: no active response found",
            None,
        ),
    ],
)
def test_client_faults(fault: errors.ClientFault, code: str, message: str, param: str | None) -> None:
    assert fault.body("e1") == errors.ErrorBody(
        type="invalid_request_error", code=code, message=message, param=param, event_id="e1"
    )
    assert str(fault) == message


def test_session_expired() -> None:
    assert errors.session_expired(1800) == errors.ErrorBody(
        code="session_expired", message="Your session hit the maximum duration of 30 minutes."
    )


@pytest.mark.parametrize(
    ("seconds", "told"), [(1, "1 second"), (60, "1 minute"), (90, "90 seconds"), (3600, "60 minutes")]
)
def test_the_text_of_session_expired_tells_the_true_length(seconds: int, told: str) -> None:
    assert errors.session_expired(seconds).message == f"Your session hit the maximum duration of {told}."


def test_internal_error_tells_no_detail() -> None:
    body = errors.internal_error_body()
    assert (body.type, body.code, body.param, body.event_id) == ("server_error", None, None, None)
    assert body.message == errors.internal_error().message


def test_transcription_failed() -> None:
    fault = errors.transcription_failed("DeploymentNotFound", "item_1")
    assert fault.message == "Input transcription failed for item 'item_1'."
    assert (fault.type, fault.code) == ("server_error", "DeploymentNotFound")


@pytest.mark.parametrize(
    ("refused", "status", "code"),
    [
        (refusals.access_denied(), 401, "401"),
        (refusals.deployment_not_found(), 404, "DeploymentNotFound"),
        (refusals.operation_not_supported("x"), 400, "OpperationNotSupported"),
        (refusals.resource_not_found(), 404, "404"),
        (refusals.upgrade_required(), 426, "UpgradeRequired"),
        (refusals.too_many_headers(10), 431, "431"),
        (refusals.server_busy(2), 429, "429"),
        (refusals.too_many_calls(2), 429, "429"),
    ],
)
def test_refused_handshakes(refused: refusals.RefusedHandshake, status: int, code: str) -> None:
    assert (refused.status, refused.code) == (status, code)
    assert refused.message


def test_busy_says_when_to_come_back() -> None:
    assert refusals.server_busy(2).headers == {"retry-after": "2", "retry-after-ms": "2000"}
    assert refusals.too_many_calls(1.2345).headers == {"retry-after": "2", "retry-after-ms": "1235"}
    assert refusals.access_denied().headers == {}


@pytest.mark.parametrize(
    ("refused", "close_code", "reason"),
    [
        (refusals.missing_bearer(), 3000, "invalid_request_error"),
        (refusals.incorrect_api_key("k"), 3000, "invalid_request_error.invalid_api_key"),
        (refusals.missing_model(), 4000, "invalid_request_error.missing_model"),
        (refusals.invalid_model("m"), 4000, "invalid_request_error.invalid_model"),
        (refusals.unsupported_dialect("x"), 4000, "invalid_request_error.unsupported_api_shape"),
        (refusals.server_busy_session(), 1013, "invalid_request_error.server_busy"),
        (refusals.too_many_calls_session("m", 0.1), 1013, "invalid_request_error.rate_limit_exceeded"),
    ],
)
def test_refused_sessions(refused: refusals.RefusedSession, close_code: int, reason: str) -> None:
    assert (refused.close_code, refused.reason) == (close_code, reason)
    assert len(refused.reason) <= 123  # what a close frame holds
    assert (refused.error.param, refused.error.event_id) == (None, None)


@pytest.mark.parametrize("key", ["short-secret", "sixteen-letters-", "sk-abcdefghijklmnopqrstuvwxyz"])
def test_a_wrong_key_is_not_told_whole(key: str) -> None:
    message = refusals.incorrect_api_key(key).error.message
    assert message.startswith("Incorrect API key provided: ")
    assert "********" in message
    assert key not in message
    assert key[3:-4] not in message
    assert (key[:3] + "*" in message) is (len(key) >= 16)
