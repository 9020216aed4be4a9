"""Profiles: how services of one dialect differ, over time or from each other (protocol section 8), as tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Dialect: TypeAlias = Literal["preview", "ga"]


@dataclass(frozen=True, slots=True)
class Profile:
    """The differences between versions of the preview service that this server reproduces."""

    name: str
    rate_limits_at: Literal["created", "done"]
    """When ``rate_limits.updated`` is told: after ``response.created`` or after ``response.done`` (row 3)."""
    shows_create_response: bool
    """``turn_detection`` carries ``create_response`` (row 23)."""
    accepts_interrupt_response: bool
    """Clients may set ``turn_detection.interrupt_response`` (protocol section 3.1: from spring 2025)."""
    shows_interrupt_response: bool
    """``turn_detection`` always carries ``interrupt_response``; otherwise only where a client set it to false."""
    describes_responses: bool
    """Responses carry conversation_id, metadata, modalities, voice, format, temperature and their token limit."""
    cancels_by_id: bool
    """``response.cancel`` may name a response, as it must for out-of-band ones (protocol section 4.9)."""
    of_2025: bool
    """Sessions carry ``speed``, ``input_audio_noise_reduction``, ``include``, ``tracing``, ``client_secret``; there
    are transcription sessions, retrieval of items, more of transcription. A strict client of 2024 closes when it
    meets an event that it does not know."""
    early_commit_error: bool
    """A commit of less than 100 ms is told as one of an empty buffer, without a code (protocol section 6)."""
    early_response_error: bool
    """A response beside the active one is refused in a short text, without a code (protocol section 6)."""
    silence_duration_ms: int = 500
    """What a client's ``turn_detection`` without ``silence_duration_ms`` means (row 2)."""


PROFILES: Final[dict[str, Profile]] = {
    profile.name: profile
    for profile in (
        Profile(
            name="azure-2024-10-01",
            rate_limits_at="done",
            shows_create_response=False,
            accepts_interrupt_response=False,
            shows_interrupt_response=False,
            describes_responses=False,
            cancels_by_id=False,
            of_2025=False,
            early_commit_error=True,
            early_response_error=True,
        ),
        Profile(
            name="azure-2024-12-17",
            rate_limits_at="created",
            shows_create_response=True,
            accepts_interrupt_response=True,
            shows_interrupt_response=False,
            describes_responses=True,
            cancels_by_id=True,
            of_2025=False,
            early_commit_error=False,
            early_response_error=True,
        ),
        Profile(
            name="azure-2025-04",
            rate_limits_at="created",
            shows_create_response=True,
            accepts_interrupt_response=True,
            shows_interrupt_response=True,
            describes_responses=True,
            cancels_by_id=True,
            of_2025=True,
            early_commit_error=False,
            early_response_error=False,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class GaProfile:
    """The differences between the services of the GA dialect."""

    name: str
    tells_rate_limits: bool
    """``rate_limits.updated`` comes after ``response.done``, with tokens alone (row 3)."""
    repeats_parts: bool
    """``response.content_part.*`` carries its ``part`` once more as ``content``."""


GA_PROFILES: Final[dict[str, GaProfile]] = {
    profile.name: profile
    for profile in (
        GaProfile(name="openai-ga", tells_rate_limits=True, repeats_parts=False),
        GaProfile(name="azure-ga", tells_rate_limits=False, repeats_parts=True),
    )
}

NAMES: Final = (*PROFILES, *GA_PROFILES)
NEWEST: Final = "azure-2025-04"
PREVIEW_SESSION_SECONDS: Final = 1800
GA_SESSION_SECONDS: Final = 3600

_SINCE: Final = (
    ("2025-04-01", NEWEST),
    ("2024-12-17", "azure-2024-12-17"),
    ("0000-00-00", "azure-2024-10-01"),
)
_USUAL: Final = "azure-2024-12-17"
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")


def transcribes(profile: str) -> bool:
    """Whether this edition of the service has transcription sessions."""
    return profile in GA_PROFILES or PROFILES[profile].of_2025


def session_seconds(profile: str) -> int:
    """How long its sessions last (protocol section 1.4)."""
    return GA_SESSION_SECONDS if profile in GA_PROFILES else PREVIEW_SESSION_SECONDS


def profile_of_version(version: str) -> str:
    """Name of the profile that a model's version lived in; of the usual one where the version is no date."""
    if _DATE.fullmatch(version) is None:
        return _USUAL
    return next(profile for since, profile in _SINCE if version >= since)
