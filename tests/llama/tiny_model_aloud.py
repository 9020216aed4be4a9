"""The model of the tests in the real llama.cpp: it answers what its maker says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_cpp import Llama
from tiny_gguf import CALL, COUNT, HELLO, SIDES, SUNNY, write_model

WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_model(path)
    made = Llama(str(path), n_ctx=1024, verbose=False)
    yield made
    made.close()


def answer(llama: Any, content: str, **options: Any) -> str:
    reply = llama.create_chat_completion([{"role": "user", "content": content}], max_tokens=12, **options)
    return str(reply["choices"][0]["message"]["content"])


def test_what_it_answers(llama: Any) -> None:
    assert answer(llama, "hi") == HELLO
    assert answer(llama, "the weather") == HELLO
    assert answer(llama, "the weather", tools=[WEATHER]) == CALL
    assert answer(llama, "count").split() == [*COUNT, *COUNT, *COUNT[:2]]


def test_after_a_tool(llama: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "the weather"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
    ]
    assert llama.create_chat_completion(turns)["choices"][0]["message"]["content"] == SUNNY


def test_chance_follows_the_seed(llama: Any) -> None:
    throws = [answer(llama, "dice", seed=seed, temperature=1.0) for seed in range(8)]
    assert throws == [answer(llama, "dice", seed=seed, temperature=1.0) for seed in range(8)]
    assert len(set(throws)) > 3
    assert set(throws) <= set(SIDES)
