"""Where the rooms of a session write down what they want done, in order, until the session hands it over."""

from __future__ import annotations

from vivavoce.core.contract import Effect, Emit
from vivavoce.wire.server_events import ServerEvent


class Journal:
    """Effects in the order in which they were asked for."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []

    def emit(self, event: ServerEvent) -> None:
        self._effects.append(Emit(event))

    def ask(self, effect: Effect) -> None:
        self._effects.append(effect)

    def take(self) -> list[Effect]:
        """Everything written since the last take."""
        effects, self._effects = self._effects, []
        return effects
