"""Text is counted exactly where that is asked for; how far the estimate is off is what the documentation says."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_fakes import CONFIG, Fakes, config, serving, session

from vivavoce.config import ConfigError
from vivavoce.core.usage import Tokens, estimated_tokens
from vivavoce.engines.registry import Registry
from vivavoce.server import tokenizer

ROOT: Final = Path(__file__).parent.parent.parent
SAMPLES: Final = Path(__file__).parent / "data" / "tokens"
EXACT: Final = tokenizer.load("o200k").text


def sample(name: str) -> str:
    return (SAMPLES / f"{name.lower()}.txt").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("hello", 1),
        ("hello world", 2),
        ("Please assist the user.", 5),
        ("1234567", 3),
        ("<|endoftext|>", 7),
        ("\ud800", 1),
    ],
)
def test_the_exact_count(text: str, tokens: int) -> None:
    assert EXACT(text) == tokens


def test_a_long_text_is_counted_in_parts() -> None:
    prose = sample("English")
    assert EXACT(prose * 2000) == 2000 * EXACT(prose)
    assert EXACT("x" * 4_000_000) == 4_000_000 / 8


@given(text=st.text("ab1. \n\t,日Ж", max_size=40))
def test_parts_are_cut_where_tokens_end(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "_PIECE", 5)
        parts = list(tokenizer._pieces(text))
        counted = EXACT(text)
    assert "".join(parts) == text
    assert all(len(part) <= 5 for part in parts)
    starts = pairwise(parts)
    if all(after.startswith(" ") and not before[-1:].isspace() for before, after in starts):
        assert counted == EXACT(text)


def test_the_estimate_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bpe_openai", None)
    assert tokenizer.load("estimate").text is estimated_tokens
    with pytest.raises(ConfigError, match=r"server\.tokenizer: the package for o200k is not installed"):
        tokenizer.load("o200k")


# ------------------------------------------------------------------------------------------------ how far it is off


KINDS: Final = [
    "English", "German", "Spanish", "French", "Russian", "Arabic", "Japanese", "Chinese", "Python", "JSON",
]  # fmt: skip


def test_the_table_of_errors_is_true() -> None:
    page = (ROOT / "docs/explanation/tokens.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| ([+-]?\d+) % \|$", page, re.MULTILINE)
    measured = []
    for name in KINDS:
        text = sample(name)
        exact, estimate = EXACT(text), estimated_tokens(text)
        off = round(100 * (estimate - exact) / exact)
        assert abs(off) <= 12, f"{name}: {off} %"
        measured.append((name, str(exact), str(estimate), f"{off:+}" if off else "0"))
    assert rows == measured


# -------------------------------------------------------------------------------------------------------- a session


@pytest.mark.parametrize("name", ["estimate", "o200k"])
async def test_a_session_counts_as_configured(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vivavoce.server.app")
    fakes = Fakes()
    monkeypatch.setattr(Registry, "installed", lambda: fakes)
    tokens = Tokens(EXACT) if name == "o200k" else Tokens()
    text = "Donaudampfschifffahrtsgesellschaft, Привет!"
    assert EXACT(text) != estimated_tokens(text)
    async with serving(config(tokenizer=name)) as server, session(server) as wire:
        assert f"tokens of text are counted by: {name}" in caplog.text
        content = [{"type": "input_text", "text": text}]
        await wire.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await wire.send("response.create", response={"modalities": ["text"], "instructions": text})
        done = (await wire.until("response.done"))[-1]["response"]
        await asyncio.sleep(0)
    assert done["usage"]["input_tokens"] == 2 * tokens.text(text) + 4
    assert done["usage"]["output_tokens"] == tokens.text("Yes.")


def test_the_default_is_the_estimate() -> None:
    assert CONFIG.server.tokenizer == "estimate"
