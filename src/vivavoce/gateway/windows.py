"""How much a model reads and writes in one response: of the service's models, what the catalogue says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vivavoce.config import ConfigError, RecipeSettings, WorkSettings
from vivavoce.gateway.models.catalogue import ModelVersion, shipped
from vivavoce.gateway.resource import Model


@dataclass(frozen=True, slots=True)
class ModelWindow:
    """In tokens."""

    context: int
    """Read and written together."""
    output: int

    @property
    def problem(self) -> str | None:
        """Why every response would fail; None where it would not."""
        if self.output < self.context:
            return None
        return f"nothing could be read: the context_window is {self.context} tokens"


_ANY_OTHER: Final = ModelWindow(128_000, 4_096)


def window_of(model: str, version: str) -> ModelWindow:
    """Of this version, or else of the newest of which that is known; of any other model one that is rarely full."""
    known = shipped().model(model)
    if known is None:
        return _ANY_OTHER
    named = known.find(version)
    candidates = [*([named] if named is not None else []), *reversed(known.versions)]
    return next((window for one in candidates if (window := _window(one)) is not None), _ANY_OTHER)


def window_under(work: WorkSettings, model: str, version: str) -> ModelWindow:
    """As it is configured, and else that of the model."""
    window = window_of(model, version)
    context = work.context_window or window.context
    return ModelWindow(context, work.max_output or min(window.output, context // 2))


def check_window(window: ModelWindow, path: str) -> None:
    """Raises ConfigError where every response would fail."""
    if window.problem is not None:
        raise ConfigError(f"{path}.max_output", window.problem)


def window_fault(model: Model, work: WorkSettings | None) -> str | None:
    """Why every response of the model would fail; None where it would not, or where nothing does its work."""
    return None if work is None else window_under(work, model.name, model.version).problem


def check_recipe_window(recipe: RecipeSettings, path: str) -> None:
    """Raises ConfigError where every response would fail of each model of the catalogue that the recipe serves, or,
    if it serves none of these, of a model that nothing is known of."""
    served = [
        window_under(recipe, model.name, version.version)
        for model in shipped()
        for version in model.versions
        if recipe.serves(model.name, version.version)
    ]
    check_window(max(served, key=lambda one: one.context, default=window_under(recipe, "", "")), path)


def _window(version: ModelVersion) -> ModelWindow | None:
    output = version.max_output_tokens
    if output is None:
        return None
    if version.max_input_tokens is not None:
        return ModelWindow(version.max_input_tokens + output, output)
    return None if version.context_window is None else ModelWindow(version.context_window, output)
