"""From the configuration to the shared state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vivavoce.config import ConfigError, CountersSettings
from vivavoce.gateway.shared.base import SharedState
from vivavoce.gateway.shared.memory import MemoryState


@asynccontextmanager
async def open_shared_state(settings: CountersSettings, instead: SharedState | None) -> AsyncIterator[SharedState]:
    """What the processes of the server share within the block. ``instead``: what they share where no Redis is
    configured, None for a process alone. Raises :class:`ConfigError`."""
    state = instead or MemoryState()
    if settings.url is not None:
        state = await _redis(settings, settings.url.reveal())
    try:
        yield state
    finally:
        await state.close()


async def _redis(settings: CountersSettings, url: str) -> SharedState:
    try:
        import redis as _installed  # noqa: F401
    except ImportError:
        raise ConfigError("counters.url", "Redis needs the extra redis: pip install 'vivavoce[redis]'") from None
    from vivavoce.gateway.shared.redis import RedisState

    try:
        state = RedisState(url, prefix=settings.prefix, on_loss=settings.on_loss)
    except ValueError:
        # Not its text, which may quote a password.
        raise ConfigError("counters.url", "this is no URL of a Redis") from None
    await state.open()
    return state
