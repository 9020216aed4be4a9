"""The catalogue of refusals: what a request is told that gets no session (protocol sections 1.3 to 1.5).

* :class:`RefusedHandshake` - said before the upgrade, as an HTTP answer (Azure paths);
* :class:`RefusedSession` - said after the upgrade, as an ``error`` event and a close frame (OpenAI paths).

What goes wrong within a session is in :mod:`vivavoce.wire.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vivavoce.wire.errors import ErrorBody, shown


class Refused(Exception):
    """No session for this request."""


class RefusedHandshake(Refused):
    """A plain HTTP answer instead of the upgrade, with the body ``{"error": {"code", "message"}}``."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


class RefusedSession(Refused):
    """Upgrade, one ``error`` event, then a close frame whose reason is ``type`` or ``type.code``."""

    def __init__(self, close_code: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.close_code = close_code
        self.error = ErrorBody(code=code, message=message)

    @property
    def reason(self) -> str:
        return self.error.type if self.error.code is None else f"{self.error.type}.{self.error.code}"


# ------------------------------------------------------------------------------ refusals, Azure paths (HTTP)


WRONG_TENANT: Final = "Tenant provided in token does not match resource token"
"""A code, though a sentence: the service has it so."""


def access_denied() -> RefusedHandshake:
    return RefusedHandshake(
        401,
        "401",
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid "
        "key for an active subscription and use a correct regional API endpoint for your resource.",
    )


def invalid_token(audience: str) -> RefusedHandshake:
    """``audience``: the one that a token should have had."""
    return RefusedHandshake(
        401,
        "401",
        f"Unauthorized. Access token is missing, invalid, audience is incorrect ({audience}), or have expired.",
    )


def permission_denied(principal: str, action: str, operation: str) -> RefusedHandshake:
    """``principal``: the object id; ``operation``: as ``GET /openai/realtime``."""
    return RefusedHandshake(
        401,
        "PermissionDenied",
        f"The principal `{principal}` lacks the required data action `{action}` "
        f"to perform `{operation}` operation.",
    )


def wrong_tenant(tenant: str) -> RefusedHandshake:
    return RefusedHandshake(
        400,
        WRONG_TENANT,
        f"Token tenant {tenant} does not match resource tenant.",
    )


def identity_unavailable(retry_after_s: int) -> RefusedHandshake:
    return RefusedHandshake(
        503,
        "503",
        "The service is temporarily unable to process your request. Please try again later.",
        _retry_after(retry_after_s),
    )


def too_many_failures(retry_after_s: int) -> RefusedHandshake:
    return RefusedHandshake(
        429,
        "429",
        "Too many requests with a wrong key or token came from your address. "
        f"Please retry after {retry_after_s} seconds.",
        _retry_after(retry_after_s),
    )


def _retry_after(seconds: int) -> dict[str, str]:
    return {"retry-after": str(seconds), "retry-after-ms": str(seconds * 1000)}


def deployment_not_found() -> RefusedHandshake:
    return RefusedHandshake(
        404,
        "DeploymentNotFound",
        "The API deployment for this resource does not exist. If you created the deployment within the last "
        "5 minutes, please wait a moment and try again.",
    )


def model_retired() -> RefusedHandshake:
    """Source: github.com/epam/ai-dial-chat issue 4403."""
    return RefusedHandshake(
        410,
        "ModelDeprecated",
        "The model associated with the deployment is deprecated and no longer available for use. Please refer to "
        "the Azure OpenAI service documentation for more information.",
    )


def operation_not_supported(detail: str) -> RefusedHandshake:
    """The code is spelled as the service spells it."""
    return RefusedHandshake(400, "OpperationNotSupported", detail)


def resource_not_found() -> RefusedHandshake:
    return RefusedHandshake(404, "404", "Resource not found")


def upgrade_required() -> RefusedHandshake:
    return RefusedHandshake(
        426,
        "UpgradeRequired",
        "This endpoint speaks WebSocket. Send an upgrade request.",
        {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
    )


def too_many_headers(limit: int) -> RefusedHandshake:
    return RefusedHandshake(
        431, "431", f"Request header fields too large: at most {limit} custom headers are accepted."
    )


def _whole(number: float) -> int:
    """Rounded up."""
    return int(-(-number // 1))


def too_many_calls(wait_s: float) -> RefusedHandshake:
    """More connections than a minute has, or a deployment without room for what they would ask; ``wait_s``: seconds
    until there is some."""
    seconds = _whole(wait_s)
    return RefusedHandshake(
        429,
        "429",
        "Requests to the realtime operation have exceeded the call rate limit of this deployment. "
        f"Please retry after {seconds} seconds.",
        {"retry-after": str(seconds), "retry-after-ms": str(_whole(wait_s * 1000))},
    )


def server_busy(retry_after_s: int) -> RefusedHandshake:
    return RefusedHandshake(
        429,
        "429",
        f"The server holds as many sessions as it may. Please retry after {retry_after_s} seconds.",
        _retry_after(retry_after_s),
    )


# ----------------------------------------------------------------------- refusals, OpenAI paths (error + close)

_CLOSE_UNAUTHORIZED: Final = 3000
_CLOSE_BAD_START: Final = 4000
_CLOSE_NO_MODEL: Final = 4004
_CLOSE_TRY_LATER: Final = 1013


def missing_bearer() -> RefusedSession:
    return RefusedSession(_CLOSE_UNAUTHORIZED, None, "Missing bearer or basic authentication in header")


def incorrect_api_key(key: str) -> RefusedSession:
    """The text repeats the key so that it can be told, but not used: its first and last few characters."""
    shown = f"{key[:3]}{'*' * 8}{key[-4:]}" if len(key) >= 16 else "*" * 8
    return RefusedSession(
        _CLOSE_UNAUTHORIZED,
        "invalid_api_key",
        f"Incorrect API key provided: {shown}. "
        "You can find your API key at https://platform.openai.com/account/api-keys.",
    )


def invalid_token_session() -> RefusedSession:
    return RefusedSession(
        _CLOSE_UNAUTHORIZED, "invalid_token", "Access token is invalid, is for another audience, or has expired."
    )


def insufficient_permissions(principal: str, action: str) -> RefusedSession:
    """``principal``: the object id."""
    return RefusedSession(
        _CLOSE_UNAUTHORIZED,
        "insufficient_permissions",
        f"You have insufficient permissions for this operation. The principal '{principal}' lacks the data action "
        f"'{action}'.",
    )


def identity_unavailable_session() -> RefusedSession:
    return RefusedSession(
        _CLOSE_TRY_LATER, "identity_unavailable", "The access token cannot be verified now. Please retry later."
    )


def too_many_failures_session(retry_after_s: int) -> RefusedSession:
    return RefusedSession(
        _CLOSE_TRY_LATER,
        "rate_limit_exceeded",
        "Too many requests with a wrong key or token came from your address. "
        f"Please retry after {retry_after_s} seconds.",
    )


def missing_model() -> RefusedSession:
    return RefusedSession(
        _CLOSE_BAD_START,
        "missing_model",
        "You must provide a model parameter, for example wss://api.openai.com/v1/realtime?model=<model>",
    )


def invalid_model(model: str) -> RefusedSession:
    return RefusedSession(_CLOSE_BAD_START, "invalid_model", f'Model "{model}" is not supported in realtime mode.')


def model_retired_session(model: str) -> RefusedSession:
    return RefusedSession(
        _CLOSE_NO_MODEL,
        "model_not_found",
        f"The model `{model}` has been deprecated, learn more here: https://platform.openai.com/docs/deprecations",
    )


def unsupported_dialect(detail: str) -> RefusedSession:
    return RefusedSession(_CLOSE_BAD_START, "unsupported_api_shape", detail)


def too_many_calls_session(model: str, wait_s: float) -> RefusedSession:
    """As :func:`too_many_calls`."""
    return RefusedSession(
        _CLOSE_TRY_LATER,
        "rate_limit_exceeded",
        f"Rate limit reached for {model} on requests. Please try again in {_whole(wait_s)}s.",
    )


def server_busy_session() -> RefusedSession:
    return RefusedSession(
        _CLOSE_TRY_LATER, "server_busy", "The server holds as many sessions as it may. Please retry later."
    )


# ------------------------------------------------------------------------------- client secrets (section 1.5)

_NAMES: Final = {"preview": "beta", "ga": "GA"}


def secret_of_another_dialect(session: str, secret: str) -> RefusedSession:
    """``session``, ``secret``: ``preview`` or ``ga``."""
    return RefusedSession(
        _CLOSE_BAD_START,
        "api_version_mismatch",
        f"API version mismatch. You cannot start a Realtime {_NAMES[session]} session with a "
        f"{_NAMES[secret]} client secret.",
    )


def secret_of_another_kind(session: str, secret: str) -> RefusedSession:
    """``session``, ``secret``: ``realtime`` or ``transcription``."""
    return RefusedSession(
        _CLOSE_BAD_START,
        "session_type_mismatch",
        f"You cannot start a {session} session with a client secret for {secret} sessions.",
    )


def secret_of_another_model(model: str) -> RefusedSession:
    return RefusedSession(
        _CLOSE_NO_MODEL,
        "model_not_found",
        f"This client secret is not for the model '{shown(model)}'.",
    )


def secret_does_not_fit(problem: str) -> RefusedSession:
    """The deployment, or the server, is no more what it was when the secret was minted."""
    return RefusedSession(
        _CLOSE_BAD_START, "invalid_client_secret", f"This client secret is of no use any more. {problem}"
    )
