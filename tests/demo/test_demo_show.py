"""What is printed: plain lines without codes, a live display on a terminal, and no secrets on either."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from vivavoce.demo.show import LiveDisplay, PlainDisplay, open_display

KEY = "sk-very-secret-0123456789"


def still() -> float:
    return 5.0


def plain(out: io.StringIO) -> PlainDisplay:
    return PlainDisplay(Console(file=out), still)


def test_plain_output_is_one_line_for_each_happening() -> None:
    out = io.StringIO()
    display = plain(out)
    display.note("[red]connected[/red] " + "long " * 60)
    display.doing("answering: hel")
    display.progress(1, 2)
    display.summary([("heard", "hello"), ("answered", "yes")])
    display.failed("no reason")
    assert out.getvalue() == (
        "   0.00 s  [red]connected[/red] " + ("long " * 60).strip() + "\n"
        "heard     hello\n"
        "answered  yes\n"
        "demo failed: no reason\n"
    )


def test_plain_output_is_flushed_line_by_line() -> None:
    class Watched(io.StringIO):
        flushed = ""

        def flush(self) -> None:
            self.flushed = self.getvalue()

    out = Watched()
    plain(out).note("connected")
    assert out.flushed.endswith("connected\n")


def test_plain_output_survives_a_narrow_encoding() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    PlainDisplay(Console(file=out), still).note("café")
    assert raw.getvalue().endswith(b"caf?\n")


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        ([KEY], f"x{KEY}y", "x***y"),
        (["k"], "the key k, k=k", "the key ***, ***=***"),
        (["a.b"], "a.b axb a.bc", "*** axb a.bc"),
        (["abcdefgh", "abcdefghij"], "abcdefghij abcdefgh", "*** ***"),
        ([""], "all of it", "all of it"),
        ([], "all of it", "all of it"),
    ],
)
def test_secrets_are_hidden(secrets: Sequence[str], text: str, shown: str) -> None:
    out = io.StringIO()
    display = plain(out)
    display.hide(secrets)
    display.failed(text)
    assert out.getvalue() == f"demo failed: {shown}\n"


def test_a_terminal_gets_the_live_display() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    with open_display(console, still) as display:
        assert isinstance(display, LiveDisplay)
        display.hide([KEY])
        display.progress(1.0, 2.0)
        display.doing(f"answering: \x1b[2J {KEY}")
        display.note(f"[red]heard[/red] {KEY}")
        display.summary([("answered", f"{KEY} \x07yes")])
        display.failed("because")
    shown = out.getvalue()
    assert KEY not in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown
    for text in (
        "[red]heard[/red] ***",
        "speaking",
        "1.0 / 2.0 s",
        "answering: [2J ***",
        "demo failed: ",
        "because",
    ):
        assert text in shown
    # The cursor is hidden while the display lives, and given back.
    assert shown.index("\x1b[?25l") < shown.rindex("\x1b[?25h")


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "xterm"}])
def test_no_terminal_or_a_dumb_one_gets_plain_lines(environment: dict[str, str]) -> None:
    console = Console(file=io.StringIO(), force_terminal=environment["TERM"] == "dumb", _environ=environment)
    with open_display(console, still) as display:
        assert isinstance(display, PlainDisplay)
