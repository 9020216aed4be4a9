"""The catalogue of errors of REST requests around the sessions; that of the sessions is ``wire.errors``.

Codes and texts are those of the services' REST APIs where they are known (protocol section 1.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vivavoce.wire.errors import SERVER_ERROR, ErrorBody, shown
from vivavoce.wire.refusals import Refused


class RefusedRequest(Refused):
    """A REST answer: ``{"error": {"message", "type", "param", "code"}}``; on Azure paths ``{"error": {"code",
    "message"}}``, unless the fault is in the body of the request."""

    def __init__(
        self,
        status: int,
        error: ErrorBody,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        of_body: bool = False,
    ) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.headers = headers
        self.of_body = of_body

    def body(self, *, azure: bool) -> dict[str, object]:
        """The JSON of the answer."""
        error = self.error
        if azure and not self.of_body:
            return {"error": {"code": error.code or str(self.status), "message": error.message}}
        return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def method_not_allowed(method: str, path: str) -> RefusedRequest:
    error = ErrorBody(code=None, message=f"Invalid method for URL ({shown(method)} {path})")
    return RefusedRequest(405, error, {"Allow": "POST"})


def unsupported_media_type(found: str) -> RefusedRequest:
    message = (
        f"Unsupported content type: '{shown(found)}'. This API method only accepts 'application/json' requests."
    )
    return RefusedRequest(415, ErrorBody(code="unsupported_content_type", message=message))


def body_too_large(limit: int) -> RefusedRequest:
    message = f"The body of your request is larger than {limit} bytes."
    return RefusedRequest(413, ErrorBody(code="request_too_large", message=message), {"Connection": "close"})


def body_too_slow() -> RefusedRequest:
    message = "The body of your request did not arrive in time."
    return RefusedRequest(408, ErrorBody(code="request_timeout", message=message), {"Connection": "close"})


def body_is_no_json(detail: str) -> RefusedRequest:
    message = f"We could not parse the JSON body of your request. {detail}"
    return RefusedRequest(400, ErrorBody(code=None, message=message), of_body=True)


def body_is_no_object(found: str) -> RefusedRequest:
    message = f"Invalid body: expected an object, but got {found} instead."
    return RefusedRequest(400, ErrorBody(code="invalid_type", message=message), of_body=True)


def invalid_body(error: ErrorBody) -> RefusedRequest:
    """``error``: what is wrong in it, as an ``error`` event would tell it."""
    return RefusedRequest(400, error, of_body=True)


def too_many_client_secrets(limit: int, retry_after_s: int) -> RefusedRequest:
    error = ErrorBody(
        type="rate_limit_exceeded",
        code="rate_limit_exceeded",
        message=f"{limit} client secrets are in use. Please retry after {retry_after_s} seconds.",
    )
    return RefusedRequest(
        429, error, {"retry-after": str(retry_after_s), "retry-after-ms": str(retry_after_s * 1000)}
    )


def try_later() -> RefusedRequest:
    message = "The server cannot do this now. Please retry later."
    return RefusedRequest(503, ErrorBody(type=SERVER_ERROR, code="service_unavailable", message=message))
