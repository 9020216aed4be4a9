"""What the scripted model says by itself: the echo, the greeting, what its instructions tell it to say, and a
function's output as speech. Pure functions of their text."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from vivavoce.engines.builtin.text_hints import split_words

GREETING = "Hello! How can I help you?"
HEARD_NOTHING = "I did not hear anything."

_DEEPEST = 32

_LEAD = r"(?:(?:please|always|only|just|simply|then|you\s+must|you\s+should)\b,?\s+)*"
_FILLER = (
    r"(?:\s+(?:always|only|just|exactly|simply|with|to\s+everything|every\s+time|to\s+the\s+user|the\s+user"
    r"|this|the\s+following|the\s+words?)\b)*"
)
_GREETED = r"(?:\s+(?:the\s+user|the\s+caller|users|callers|everyone|them)\b)?"
_QUOTED = r"\"([^\"]+)\"|“([^”]+)”|«([^»]+)»|‘(.+?)’(?!\w)|'(.+?)'(?!\w)"
_TAIL = (
    r"(?:,?\s+(?:and\s+nothing\s+(?:else|more)|every\s+time|always|to\s+the\s+user|word\s+for\s+word|verbatim))?"
)
_END = rf"(?:{_TAIL}\s*(?:[.!;]+(?=\s|$)|$)|(?<=[.!?][\"'”’»])(?=\s+(?-i:[A-Z])))"
_SAID = rf"{_FILLER}(?:\s*:\s*|\s+)(?:{_QUOTED}){_END}|{_FILLER}\s*:\s*([^\s\"'“‘«].*)"
_SAY = re.compile(rf"{_LEAD}(?:say|answer|reply|respond)\b(?:{_SAID})", re.IGNORECASE)
_GREET = re.compile(rf"{_LEAD}greet\b{_GREETED}(?:{_SAID})", re.IGNORECASE)
_BULLET = re.compile(r"\s*(?:[-*•]|\d+[.)])?\s*")
_SENTENCE = re.compile(r"[.!?;][\"'”’»]?\s+")


def directed(instructions: str) -> str | None:
    """What the instructions tell to say, by the grammar of the reference; None when they do not."""
    return _directive(_SAY, instructions)


def greeting(instructions: str) -> str:
    """What is said when there is nothing to answer."""
    return _directive(_GREET, instructions) or GREETING


def echo(text: str) -> str:
    """``You said: <text>.`` with one sentence mark at its end."""
    text = text.rstrip(" ,;:-") or text
    ended = text.rstrip("\"'”’»)").endswith((".", "!", "?", "…", "。", "！", "？"))
    return f"You said: {text}" if ended else f"You said: {text}."


def speak_output(name: str | None, output: str) -> str:
    """A function's output as a sentence without markup.

    Plain text, and JSON that is a single string or number, is said as it is. A JSON object or array is told as
    ``The result of <name> is <key> <value>, <key> <value>.``
    """
    try:
        value = msgspec.json.decode(output)
        spoken = value if isinstance(value, str) else _spoken(value) if isinstance(value, dict | list) else output
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        value = spoken = output
    subject = f"The result of {name}" if name else "The result"
    if not spoken.strip():
        return f"{subject} is empty."
    return f"{subject} is {spoken}." if isinstance(value, dict | list) else spoken.strip()


def _directive(form: re.Pattern[str], instructions: str) -> str | None:
    for line in instructions.splitlines():
        bullet = _BULLET.match(line)
        starts = [bullet.end() if bullet else 0, *(match.end() for match in _SENTENCE.finditer(line))]
        for start in starts:
            match = form.match(line, start)
            if match is not None:
                said = next(filter(None, match.groups()), "").strip()
                if said:
                    return said
    return None


def _spoken(value: Any, depth: int = 0) -> str:
    """JSON as words: members by commas, by semicolons where a member has members itself."""
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, dict):
        members = [
            f"{' '.join(split_words(key)) or key}{':' if isinstance(member, dict | list) else ''} "
            f"{_spoken(member, depth + 1)}"
            for key, member in value.items()
        ]
        nested = any(isinstance(member, dict | list) for member in value.values())
    elif isinstance(value, list):
        members = [_spoken(member, depth + 1) for member in value]
        nested = any(isinstance(member, dict | list) for member in value)
    elif isinstance(value, str):
        return " ".join(value.split()).rstrip(".") if value.strip() else "empty"
    else:
        return "none" if value is None else str(value).lower()
    return ("; " if nested else ", ").join(members) or "empty"
