from __future__ import annotations

from types import MappingProxyType

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from vivavoce.audio.formats import TICKS_PER_MS, Clip
from vivavoce.core import usage
from vivavoce.core.context import Entry
from vivavoce.wire import items
from vivavoce.wire.session_config import FunctionTool

WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("ms", "user", "assistant"),
    [
        (0, 0, 0),
        (49, 0, 0),
        (50, 0, 1),
        (99, 0, 1),
        (100, 1, 2),
        (2796, 27, 55),
        (2668, 26, 53),
        (3056, 30, 61),
        (2800, 28, 56),
    ],
)
def test_audio_tokens(ms: int, user: int, assistant: int) -> None:
    assert usage.user_audio_tokens(ms * TICKS_PER_MS) == user
    assert usage.assistant_audio_tokens(ms * TICKS_PER_MS) == assistant
    last = max(0, ms * TICKS_PER_MS - 1)
    assert usage.user_audio_tokens(last) == (user - 1 if ms and ms % 100 == 0 else user)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("Please assist the user.", 5),
        ("hello", 1),
        (" hello", 1),
        ("hello world", 2),
        ("don't", 1),
        ("internationalization", 3),
        ("1234567", 3),
        ("a, b", 3),
        ("\n\n", 1),
        ("!!!!", 2),
        ("日本語", 3),
        ("привет", 2),
        ("snake_case", 2),
        ("camelCase(x)", 4),
        ("a.\n\n  b", 4),
        ('{"a":1}', 5),
        ("²", 1),
    ],
)
def test_text_tokens(text: str, tokens: int) -> None:
    assert usage.estimated_tokens(text) == tokens


@given(text=st.text())
def test_nothing_is_free_and_nothing_costs_more_than_its_characters(text: str) -> None:
    assert (usage.estimated_tokens(text) == 0) == (text == "")
    assert usage.estimated_tokens(text) <= len(text)


@given(words=st.lists(WORDS, min_size=1))
def test_words_add_up(words: list[str]) -> None:
    assert usage.estimated_tokens(" ".join(words)) == usage.estimated_tokens(words[0]) + sum(
        usage.estimated_tokens(f" {word}") for word in words[1:]
    )


@given(text=st.text(), word=WORDS)
def test_more_text_is_more_tokens(text: str, word: str) -> None:
    assert usage.estimated_tokens(f"{text}. {word}") > usage.estimated_tokens(text)


@given(left=st.text(), right=st.text())
@example(left="¹", right="AAAAAAAAAAAAAAAAAAAA")
def test_cutting_a_text_changes_little(left: str, right: str) -> None:
    apart = usage.estimated_tokens(left) + usage.estimated_tokens(right)
    assert apart - 2 <= usage.estimated_tokens(left + right) <= apart + 2


@pytest.mark.parametrize(
    ("item", "tokens"),
    [
        (items.MessageItem("i", "user", ()), 4),
        (items.MessageItem("i", "user", (items.InputTextPart("Please assist the user."),)), 9),
        (items.MessageItem("i", "user", (items.InputTextPart("hello"), items.InputTextPart("hello"))), 6),
        (items.MessageItem("i", "user", (items.InputAudioPart("hello"),)), 4),
        (items.MessageItem("i", "assistant", (items.TextPart("hello"),)), 5),
        (items.MessageItem("i", "assistant", (items.AudioPart("hello"),)), 5),
        (items.MessageItem("i", "assistant", (items.AudioPart(None),)), 4),
        (items.FunctionCallItem("i", "c", "hello", "hello world"), 7),
        (items.FunctionCallOutputItem("i", "c", "hello"), 5),
    ],
)
def test_item_tokens(item: items.Item, tokens: int) -> None:
    assert usage.Tokens().item(item) == tokens


def test_prompt_tokens() -> None:
    parameters = {"type": "object"}
    schema = usage.estimated_tokens(msgspec.json.encode(parameters).decode())
    assert usage.Tokens().prompt("", ()) == 0
    assert usage.Tokens().prompt("hello", ()) == 1
    assert usage.Tokens().prompt("hello", (FunctionTool("f"),)) == 6
    assert usage.Tokens().prompt("hello", (FunctionTool("f", "hello world", parameters),)) == 8 + schema


# ------------------------------------------------------------------------------------------------ the cache


def entry(name: str, text: int, audio: int = 0, image: int = 0) -> Entry:
    return Entry(
        items.MessageItem(name, "user", (items.InputTextPart(name),)),
        clips=MappingProxyType({}),
        text_tokens=text,
        audio_tokens=audio,
        image_tokens=image,
    )


def test_first_response_has_nothing_cached() -> None:
    assert usage.PromptCache(usage.Tokens()).look_up("hello", (), (entry("a", 1000),)) == (0, 0, 0)


def test_shared_prefix_is_cached_in_blocks() -> None:
    cache = usage.PromptCache(usage.Tokens())
    first = (entry("a", 100, 30), entry("b", 10))
    cache.look_up("hello", (), first)
    assert cache.look_up("hello", (), (*first, entry("c", 500, 128))) == (64, 0, 0)  # of 111 and 30
    assert cache.look_up("hello", (), (*first, entry("c", 500, 128))) == (576, 128, 0)  # of 611 and 158
    assert cache.look_up("hello", (), first[:1]) == (64, 0, 0)  # of 101 and 30


def test_the_answer_to_a_context_is_cached_with_it() -> None:
    """With the tokens that were recorded from the service."""
    cache = usage.PromptCache(usage.Tokens())
    asked, call, output = entry("a", 63), entry("call", 22), entry("output", 18)
    assert cache.look_up("", (), (asked,)) == (0, 0, 0)
    cache.answered(call)
    assert cache.look_up("", (), (asked, call, output)) == (64, 0, 0)
    cache = usage.PromptCache(usage.Tokens())
    heard, said = entry("a", 15, 27), entry("b", 18, 42)
    assert cache.look_up("", (), (heard,)) == (0, 0, 0)
    cache.answered(said)
    assert cache.look_up("", (), (heard, said, entry("c", 10, 27))) == (0, 64, 0)
    assert cache.context_tokens((heard, said)) == (33, 69, 0)


@pytest.mark.parametrize("keeps", [True, False])
def test_words_that_were_found_in_a_sound_change_nothing(keeps: bool) -> None:
    clips = MappingProxyType({0: Clip()})
    silent, said = (items.InputAudioPart(),), (items.InputAudioPart("hello"),)
    before = Entry(items.MessageItem("a", "user", silent), clips, listened=True, text_tokens=4, audio_tokens=640)
    heard = structs.replace(
        before, item=items.MessageItem("a", "user", said), clips=clips if keeps else MappingProxyType({})
    )
    cache = usage.PromptCache(usage.Tokens())
    cache.look_up("", (), (before,))
    assert cache.look_up("", (), (heard,)) == (0, 640, 0)
    other = structs.replace(heard, item=items.MessageItem("b", "user", said))
    assert cache.look_up("", (), (other,)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("instructions", "tools", "context"),
    [
        ("other", (), (entry("a", 100), entry("b", 100))),
        ("hello", (FunctionTool("f"),), (entry("a", 100), entry("b", 100))),
        ("hello", (), (entry("b", 100), entry("a", 100))),
    ],
)
def test_another_beginning_is_not_cached(
    instructions: str, tools: tuple[FunctionTool, ...], context: tuple[Entry, ...]
) -> None:
    cache = usage.PromptCache(usage.Tokens())
    cache.look_up("hello", (), (entry("a", 100), entry("b", 100)))
    assert cache.look_up(instructions, tools, context) == (0, 0, 0)


def test_a_changed_item_ends_the_prefix() -> None:
    cache = usage.PromptCache(usage.Tokens())
    cache.look_up("", (), (entry("a", 64), entry("b", 64)))
    changed = Entry(items.MessageItem("b", "user", ()), text_tokens=64)
    assert cache.look_up("", (), (entry("a", 64), changed)) == (64, 0, 0)


TOKENS = st.integers(0, 90)


@given(
    contexts=st.lists(st.lists(st.tuples(st.sampled_from("abcd"), TOKENS, TOKENS, TOKENS), max_size=5), max_size=6)
)
def test_cached_is_a_part_of_the_input_in_multiples_of_64(
    contexts: list[list[tuple[str, int, int, int]]],
) -> None:
    cache = usage.PromptCache(usage.Tokens())
    before: list[tuple[str, int, int, int]] | None = None
    for given_context in contexts:
        context = tuple(entry(*one) for one in given_context)
        cached = cache.look_up("one two", (), context)
        whole = usage.Count()
        for one in context:
            whole = whole.plus(one)
        assert cache.context_tokens(context) == whole
        whole = whole._replace(text=whole.text + 2)
        assert all(part >= 0 and part % 64 == 0 for part in cached)
        assert all(part <= all_ for part, all_ in zip(cached, whole, strict=True))
        if before is None:
            assert cached == (0, 0, 0)
        elif before == given_context:
            assert cached == tuple(tokens // 64 * 64 for tokens in whole)
        before = given_context


@given(st.lists(st.tuples(st.lists(TOKENS, max_size=4), st.integers(0, 5)), max_size=8))
def test_what_is_left_of_a_cut_context_is_counted_and_not_cached(
    steps: list[tuple[list[int], int]],
) -> None:
    """Items come, the oldest are left out, and the rest is read: each time."""
    cache = usage.PromptCache(usage.Tokens())
    context: tuple[Entry, ...] = ()
    before: tuple[Entry, ...] = ()
    for number, (added, count) in enumerate(steps):
        context += tuple(entry(f"{number}.{i}", tokens) for i, tokens in enumerate(added))
        assert cache.context_tokens(context).text == sum(one.text_tokens for one in context)
        count = min(count, len(context))
        cache.cut(context, count)
        context = context[count:]
        assert cache.context_tokens(context).text == sum(one.text_tokens for one in context)
        shared = 0 if count or not before else sum(one.text_tokens for one in before)
        assert cache.look_up("", (), context).text == shared // 64 * 64
        before = context


@pytest.mark.parametrize(
    ("detail", "width", "height", "tokens"),
    [
        # The examples of the vision guide.
        ("high", 1024, 1024, 765),
        ("high", 2048, 4096, 1105),
        ("low", 4096, 8192, 85),
        ("auto", 1024, 1024, 765),
        ("auto", 1, 1, 255),
        ("high", 512, 512, 255),
        ("high", 513, 512, 425),
        ("high", 768, 512, 425),
        ("high", 2048, 768, 85 + 8 * 170),
        ("high", 4096, 1536, 85 + 8 * 170),
        ("high", 100_000, 1, 85 + 4 * 170),
    ],
)
def test_image_tokens(detail: items.Detail, width: int, height: int, tokens: int) -> None:
    assert usage.image_tokens(items.InputImagePart("data:", detail, width, height)) == tokens
