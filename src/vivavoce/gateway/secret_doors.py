"""The REST paths where client secrets are asked for (protocol section 1.5), and which deployment one is for.

The path chooses the dialect of the sessions that it will open, and in the preview their kind, which in GA the body
tells. All of them take POST with a JSON object, and whoever could connect may ask, but for a client secret itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vivavoce.gateway.admission import API_VERSIONS, AZURE_PREFIX, UpgradeRequest, any_that_transcribes
from vivavoce.gateway.deployments import Catalogue, Deployment
from vivavoce.wire import refusals
from vivavoce.wire.dialects import profiles
from vivavoce.wire.dialects.profiles import Dialect
from vivavoce.wire.session_config import SessionKind

_API_VERSION: Final = API_VERSIONS[-1]
"""The only one of the preview that has secrets."""


@dataclass(frozen=True, slots=True)
class SecretDoor:
    """One of the paths."""

    path: str
    profile: str
    """Whose words requests and answers have."""
    kind: SessionKind = "realtime"
    """Of the sessions, where the body does not tell."""
    model_at: tuple[str, ...] = ("model",)
    """Keys that lead to the deployment's name in the body."""

    @property
    def is_azure(self) -> bool:
        return self.path.startswith(AZURE_PREFIX)

    @property
    def dialect(self) -> Dialect:
        return "ga" if self.profile in profiles.GA_PROFILES else "preview"

    def check_version(self, request: UpgradeRequest) -> None:
        """Raises RefusedHandshake."""
        if self.is_azure and self.dialect == "preview" and request.parameter("api-version") != _API_VERSION:
            raise refusals.resource_not_found()

    def model(self, body: object) -> str:
        """What the body calls the deployment; empty where it names none, or where that is no text."""
        for key in self.model_at:
            body = body.get(key) if isinstance(body, dict) else None
        return body if isinstance(body, str) else ""

    def find(self, model: str, catalogue: Catalogue) -> Deployment | None:
        """As the socket finds it."""
        return catalogue.by_name(model) if self.is_azure else catalogue.by_model(model)

    def deployment(self, model: str, kind: SessionKind, catalogue: Catalogue) -> Deployment:
        """Of which the secret shall be. Who names none gets the first, which OpenAI's service has for everybody;
        only on Azure a realtime session must say. Raises RefusedHandshake or RefusedSession.
        """
        if model:
            found = self.find(model, catalogue)
        elif kind == "transcription" and self.dialect == "preview":
            found = any_that_transcribes(catalogue)
        elif kind == "transcription" or not self.is_azure:
            found = next(iter(catalogue), None)
        else:
            found = None
        if found is None:
            raise refusals.deployment_not_found() if self.is_azure else refusals.invalid_model(model)
        if kind == "transcription" and self.dialect == "preview" and not _transcribes(found):
            text = f"The deployment is pinned to the profile {found.profile}, which has no transcription sessions."
            raise refusals.operation_not_supported(text) if self.is_azure else refusals.unsupported_dialect(text)
        return found


def _transcribes(deployment: Deployment) -> bool:
    return deployment.profile not in profiles.PROFILES or profiles.transcribes(deployment.profile)


SECRET_DOORS: Final = {
    door.path: door
    for door in (
        SecretDoor("/v1/realtime/client_secrets", "openai-ga", model_at=("session", "model")),
        SecretDoor("/openai/v1/realtime/client_secrets", "azure-ga", model_at=("session", "model")),
        SecretDoor("/v1/realtime/sessions", profiles.NEWEST),
        SecretDoor("/v1/realtime/transcription_sessions", profiles.NEWEST, "transcription"),
        SecretDoor("/openai/realtimeapi/sessions", profiles.NEWEST),
        SecretDoor("/openai/realtimeapi/transcription_sessions", profiles.NEWEST, "transcription"),
    )
}
