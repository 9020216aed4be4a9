"""Where the rooms of a session write down what they want done, in order, until the session hands it over."""

from __future__ import annotations

from collections.abc import Callable

from vivavoce.core.contract import Effect, Emit
from vivavoce.wire.server_events import ServerEvent


class Journal:
    """Effects in the order in which they were asked for."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self.ask: Callable[[Effect], None] = self._effects.append

    def emit(self, event: ServerEvent) -> None:
        self.ask(Emit(event))

    def take(self) -> list[Effect]:
        """Everything written since the last take."""
        if not self._effects:
            return []
        effects = self._effects[:]
        del self._effects[:]
        return effects
