"""How much a model reads and writes in one response: of the service's models, what the catalogue says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vivavoce.gateway.models.catalogue import ModelVersion, shipped


@dataclass(frozen=True, slots=True)
class ModelWindow:
    """In tokens."""

    context: int
    """Read and written together."""
    output: int


_ANY_OTHER: Final = ModelWindow(128_000, 4_096)


def window_of(model: str, version: str) -> ModelWindow:
    """Of this version, or else of the newest of which that is known; of any other model one that is rarely full."""
    known = shipped().model(model)
    if known is None:
        return _ANY_OTHER
    named = known.find(version)
    candidates = [*([named] if named is not None else []), *reversed(known.versions)]
    return next((window for one in candidates if (window := _window(one)) is not None), _ANY_OTHER)


def _window(version: ModelVersion) -> ModelWindow | None:
    output = version.max_output_tokens
    if output is None:
        return None
    if version.max_input_tokens is not None:
        return ModelWindow(version.max_input_tokens + output, output)
    return None if version.context_window is None else ModelWindow(version.context_window, output)
