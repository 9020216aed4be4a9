"""The answer to a turn that is likely over, asked for before it is (``docs/explanation/latency.md``).

Laws
----
1. It is about one silence of one turn. It falls when the silence ends otherwise than with the turn, and when
   anything changes that the response is made of.
2. A silence is considered once.
3. When its response has begun, it is over: ``StartResponse`` and ``StopResponse`` of its id say the rest.
4. Whether it comes to the same as the response is not decided here: the words of the turn are not known yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from vivavoce.core import contract as c
from vivavoce.core import turns
from vivavoce.core.context import Entry, ResponsePlan
from vivavoce.core.journal import Journal
from vivavoce.core.responses import Owed, Responses
from vivavoce.wire.session_config import SessionConfig


@dataclass(frozen=True, slots=True)
class Speculation:
    """The response that a turn would have if it ended with the present silence, and what that was made of."""

    response_id: str
    item_id: str
    silent_from: int
    config: SessionConfig
    conversation: tuple[Entry, ...]
    """Without the turn itself."""

    def stands(self, turn: turns.Turn, config: SessionConfig, conversation: tuple[Entry, ...]) -> bool:
        """The silence lasts, and nothing has changed. A snapshot is the same one until the conversation changes."""
        return (
            isinstance(turn, turns.Hesitating)
            and (turn.item_id, turn.silent_from) == (self.item_id, self.silent_from)
            and config == self.config
            and conversation is self.conversation
        )


class Speculator:
    """The speculation of one session, if it has one."""

    def __init__(self, responses: Responses, journal: Journal) -> None:
        self.made: Speculation | None = None
        self._considered = -1
        """Where the silence began that was offered last."""
        self._responses = responses
        self._journal = journal

    def has_considered(self, turn: turns.Hesitating) -> bool:
        return turn.silent_from == self._considered

    def offer(
        self, plan: ResponsePlan, turn: turns.Hesitating, config: SessionConfig, conversation: tuple[Entry, ...]
    ) -> None:
        """Ask for the response that ``plan`` describes; ``conversation`` is without the turn."""
        self._considered = turn.silent_from
        self.made = Speculation(plan.response_id, turn.item_id, turn.silent_from, config, conversation)
        self._journal.ask(c.Speculate(plan, self._responses.input_tokens(plan)))

    def review(
        self, owed: Owed | None, turn: turns.Turn, config: SessionConfig, conversation: tuple[Entry, ...]
    ) -> None:
        """Does it still stand after what has happened?"""
        made, run = self.made, self._responses.default
        if made is None:
            return
        waiting = owed is not None and owed.response_id == made.response_id
        if run is not None and run.plan.response_id == made.response_id:
            self.made = None
        elif run is not None or not (waiting or made.stands(turn, config, conversation)):
            self.drop()

    def drop(self) -> None:
        if self.made is not None:
            self._journal.ask(c.DropSpeculation(self.made.response_id))
            self.made = None
