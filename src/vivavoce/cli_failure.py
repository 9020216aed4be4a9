"""How a command of the command line says that it cannot do its work."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
"""It cannot work on this machine, or was refused."""
WRONG: Final = 2
"""The command line or the configuration is wrong."""


class Failure(Exception):
    """A command cannot do its work. The text is the line that the user sees."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
