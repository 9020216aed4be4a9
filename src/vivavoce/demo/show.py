"""What the person at the terminal sees: a live display, or plain lines where the output is no terminal.

Laws
----
1. Everything printed passes through :meth:`_Display._clean`: no secret, and no control code that a server,
   a transcript or a file name brings along.
2. Plain output is one line per happening, flushed at once, without any control code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Row = tuple[str, str]
"""A name and its value in the summary."""

_SHORT_SECRET: Final = 8
_BAR_WIDTH: Final = 36


class Display(Protocol):
    """Where the demo tells what happens."""

    def hide(self, secrets: Sequence[str]) -> None:
        """Print ``***`` in place of these from now on."""

    def note(self, text: str) -> None:
        """Something happened."""

    def doing(self, text: str) -> None:
        """Something is under way; shown only while it lasts."""

    def progress(self, done_s: float, total_s: float) -> None:
        """So much of the question has been sent."""

    def summary(self, rows: Sequence[Row]) -> None:
        """The figures of a conversation that succeeded."""

    def failed(self, reason: str) -> None:
        """The reason for the exit code."""


class _Display:
    """What both displays share: the clock in front of each line, and cleaning."""

    def __init__(self, console: Console, now: Callable[[], float]) -> None:
        self._console = console
        self._now = now
        self._start = now()
        self._secrets: re.Pattern[str] | None = None

    def hide(self, secrets: Sequence[str]) -> None:
        # A short key (somebody's `--api-key k`) is hidden only where it stands alone: as a part of words it
        # says nothing, and every line would be full of stars.
        forms = [
            re.escape(s) if len(s) >= _SHORT_SECRET else rf"(?<!\w){re.escape(s)}(?!\w)"
            for s in sorted(set(secrets), key=len, reverse=True)
            if s
        ]
        self._secrets = re.compile("|".join(forms)) if forms else None

    def _clean(self, text: str) -> str:
        hidden = self._secrets.sub("***", text) if self._secrets else text
        return " ".join("".join(c if c.isprintable() else " " for c in hidden).split())

    def _stamp(self) -> str:
        return f"{self._now() - self._start:7.2f} s  "


class PlainDisplay(_Display):
    """Lines of text, one per happening."""

    def note(self, text: str) -> None:
        self._line(self._stamp() + self._clean(text))

    def doing(self, text: str) -> None:
        """Nothing: what is only under way gets its line when it has happened."""

    def progress(self, done_s: float, total_s: float) -> None:
        """Nothing: the end of the question gets a line of its own."""

    def summary(self, rows: Sequence[Row]) -> None:
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            self._line(f"{name:<{width}}  {self._clean(value)}")

    def failed(self, reason: str) -> None:
        self._line("demo failed: " + self._clean(reason))

    def _line(self, text: str) -> None:
        out = self._console.file
        encoding = getattr(out, "encoding", None) or "utf-8"
        out.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        out.flush()


class LiveDisplay(_Display):
    """Lines above a region that is redrawn: a bar of the audio sent, and what is under way."""

    def __init__(self, console: Console, now: Callable[[], float]) -> None:
        super().__init__(console, now)
        self._done_s = 0.0
        self._total_s = 0.0
        self._doing = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The region that is redrawn."""
        if self._total_s:
            row = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=self._total_s, completed=self._done_s, width=_BAR_WIDTH)
            row.add_row(Text("speaking"), bar, Text(f"{self._done_s:.1f} / {self._total_s:.1f} s"))
            yield row
        yield Text(self._doing, style="italic")

    def note(self, text: str) -> None:
        line = Text(self._stamp(), style="dim")
        line.append(self._clean(text), style="none")
        self._console.print(line)

    def doing(self, text: str) -> None:
        self._doing = self._clean(text)

    def progress(self, done_s: float, total_s: float) -> None:
        self._done_s, self._total_s = done_s, total_s

    def summary(self, rows: Sequence[Row]) -> None:
        table = Table.grid(padding=(0, 2))
        for name, value in rows:
            table.add_row(Text(name, style="bold"), Text(self._clean(value)))
        self._console.print()
        self._console.print(table)

    def failed(self, reason: str) -> None:
        line = Text("demo failed: ", style="bold red")
        line.append(self._clean(reason), style="none")
        self._console.print(line)


@contextmanager
def open_display(console: Console, now: Callable[[], float]) -> Iterator[Display]:
    """The display that fits ``console``; ``now`` gives seconds. The terminal is restored at the end."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainDisplay(console, now)
        return
    display = LiveDisplay(console, now)
    with Live(display, console=console, refresh_per_second=12, transient=True):
        yield display
