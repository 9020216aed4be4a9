"""Outputs of functions that come while a response runs, in dialects that take them when it has ended."""

from __future__ import annotations

from vivavoce.core.conversation import Conversation
from vivavoce.wire import client_events as ce
from vivavoce.wire import items


class HeldOutputs:
    """Items to come, oldest first. Their text counts for what the conversation may hold."""

    def __init__(self) -> None:
        self.events: list[ce.ItemCreate] = []
        """Looked at whenever something may follow from an input, so it is no property."""
        self._chars = 0

    def hold(self, event: ce.ItemCreate, output: items.FunctionCallOutputItem, conversation: Conversation) -> None:
        """Raises ClientFault where there will be no room for it."""
        conversation.check_more(self._chars + len(output.output))
        self.events.append(event)
        self._chars += len(output.output)

    def take(self) -> list[ce.ItemCreate]:
        """All of them; none is left."""
        events, self.events, self._chars = self.events, [], 0
        return events
