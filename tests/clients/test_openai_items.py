"""The conversation, item by item, and what is refused, with the ``openai`` client (protocol sections 4.3 - 4.6)."""

from __future__ import annotations

from typing import Any

import pytest
from openai_harness import Connect, Event, Talk, kinds, sound_of

pytest_plugins = ["openai_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def answer(talk: Talk) -> str:
    """The text of a response to the conversation as it is."""
    await talk.client.response.create(response={"modalities": ["text"]})
    events = await talk.until("response.done")
    return str(events[-1].response.output[0].content[0].text)


async def create(talk: Talk, item: Any, **fields: Any) -> Event:
    await talk.client.conversation.item.create(item=item, **fields)
    return await talk.one("conversation.item.created")


async def refused(talk: Talk) -> Event:
    return (await talk.one("error")).error


async def test_items_of_each_kind(connect: Connect) -> None:
    async with connect() as talk:
        previous = None
        for role, kind in (("system", "input_text"), ("user", "input_text"), ("assistant", "text")):
            content = [{"type": kind, "text": f"I am the {role}."}]
            created = await create(talk, {"type": "message", "role": role, "content": content})
            assert created.previous_item_id == previous
            item = created.item
            assert (item.object, item.type, item.role, item.status) == (
                "realtime.item",
                "message",
                role,
                "completed",
            )
            assert [part.to_dict() for part in item.content] == content
            assert item.id.startswith("item_")
            assert len(item.id) == len("item_") + 21
            previous = item.id
        call = {"type": "function_call", "id": "my-call", "call_id": "call_1", "name": "f", "arguments": "{}"}
        created = await create(talk, call)
        assert created.item.to_dict() == {**call, "object": "realtime.item", "status": "completed"}
        assert created.previous_item_id == previous
        output = {"type": "function_call_output", "call_id": "call_1", "output": "done"}
        created = await create(talk, output)
        assert created.previous_item_id == "my-call"
        assert (created.item.call_id, created.item.output) == ("call_1", "done")
        await talk.silence()


async def test_insert_and_delete_in_the_middle(connect: Connect) -> None:
    async with connect() as talk:
        first = (await talk.say("First.")).item.id
        last = (await talk.say("Last.")).item.id
        between = await talk.say("Between.", previous_item_id=first)
        assert between.previous_item_id == first
        front = await talk.say("Front.", previous_item_id="root")
        assert front.previous_item_id is None
        assert await answer(talk) == "You said: Last."
        reply = talk.events[-1].response.output[0].id
        await talk.client.conversation.item.delete(item_id=last)
        assert (await talk.one("conversation.item.deleted")).item_id == last
        assert await answer(talk) == "You said: Between."
        # The chain closed over the gap: the reply follows what was before the deleted item.
        await talk.client.conversation.item.delete(item_id=reply)
        await talk.one("conversation.item.deleted")
        await talk.client.conversation.item.delete(item_id=talk.events[-2].response.output[0].id)
        await talk.one("conversation.item.deleted")
        assert (await talk.say("End.")).previous_item_id == between.item.id


async def test_items_added_while_a_response_runs_do_not_reach_it(connect: Connect) -> None:
    async with connect() as talk:
        await talk.say("Tell me a story.")
        await talk.client.response.create(response={"modalities": ["text"]})
        story = await talk.until(*["response.text.delta"] * 9)
        added = await talk.say("Hello.")
        assert added.previous_item_id == story[2].item.id
        await talk.client.response.cancel()
        await talk.until("response.done")
        assert await answer(talk) == "You said: Hello."


@pytest.mark.parametrize("fields", [{"item_id": "nothing"}, {"item_id": "x" * 32}])
async def test_unknown_items(connect: Connect, fields: dict[str, str]) -> None:
    async with connect() as talk:
        await talk.client.conversation.item.delete(**fields, event_id="d")
        error = await refused(talk)
        assert (error.code, error.param, error.event_id) == ("item_delete_invalid_item_id", None, "d")
        assert error.message == f"Error deleting item: the item with id '{fields['item_id']}' does not exist."
        await talk.client.conversation.item.truncate(**fields, content_index=0, audio_end_ms=0, event_id="t")
        error = await refused(talk)
        assert (error.code, error.event_id) == ("item_truncate_invalid_item_id", "t")


async def test_refused_items(connect: Connect) -> None:
    async with connect() as talk:
        message: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]}
        kept = await create(talk, {**message, "id": "mine"})
        assert kept.item.id == "mine"
        item = talk.client.conversation.item
        cases: list[tuple[dict[str, Any], str, str | None]] = [
            ({"item": {**message, "id": "mine"}}, "item_create_duplicate_item_id", None),
            ({"item": {**message, "id": "x" * 33}}, "string_above_max_length", "item.id"),
            ({"item": message, "previous_item_id": "nothing"}, "item_create_invalid_previous_item_id", None),
            (
                {"item": {"type": "function_call_output", "call_id": "call_x", "output": ""}},
                "invalid_tool_call_id",
                "item.call_id",
            ),
            (
                {"item": {**message, "role": "assistant"}},
                "invalid_value",
                "item.content[0].type",
            ),
        ]
        for number, (fields, code, param) in enumerate(cases):
            await item.create(**fields, event_id=f"case-{number}")
            error = await refused(talk)
            assert (error.type, error.code, error.event_id) == ("invalid_request_error", code, f"case-{number}")
            assert param is None or error.param == param
        assert (await talk.say("Next.")).previous_item_id == "mine"


async def test_truncate(connect: Connect) -> None:
    async with connect() as talk:
        user = (await talk.say("One, two, three, four.")).item.id
        await talk.client.response.create()
        events = await talk.until("response.done")
        reply = events[-1].response.output[0].id
        length = len(sound_of(events)) // 48
        truncate = talk.client.conversation.item.truncate
        await truncate(item_id=reply, content_index=0, audio_end_ms=length + 1000, event_id="far")
        error = await refused(talk)
        assert (error.code, error.event_id) == ("invalid_value", "far")
        assert error.message == f"Audio content of {length}ms is already shorter than {length + 1000}ms"
        await truncate(item_id=user, content_index=0, audio_end_ms=0)
        assert (await refused(talk)).code == "unsupported_content_type"
        # Equal length is fine, and it may be cut again.
        for end in (length, 500):
            await truncate(item_id=reply, content_index=0, audio_end_ms=end)
            event = await talk.one("conversation.item.truncated")
            assert (event.item_id, event.content_index, event.audio_end_ms) == (reply, 0, end)
        await talk.client.response.create(response={"modalities": ["text"]})
        last = (await talk.until("response.done"))[-1].response
        assert last.usage.input_token_details.audio_tokens == 500 // 50


async def test_clear(connect: Connect, question: bytes) -> None:
    async with connect() as talk:
        await talk.client.session.update(session={"turn_detection": None})  # type: ignore[typeddict-item]  # the protocol's way to switch it off, which the client's types leave out
        await talk.one("session.updated")
        await talk.speak(question)
        await talk.client.input_audio_buffer.clear()
        await talk.one("input_audio_buffer.cleared")
        await talk.client.input_audio_buffer.commit(event_id="empty")
        error = await refused(talk)
        assert (error.code, error.event_id) == ("input_audio_buffer_commit_empty", "empty")


async def test_audio_that_is_none(connect: Connect) -> None:
    async with connect() as talk:
        for audio in ("no base64!", "", "AAAA"):
            await talk.client.input_audio_buffer.append(audio=audio, event_id="a")
            error = await refused(talk)
            assert (error.code, error.param, error.event_id) == ("invalid_value", "audio", "a")


async def test_events_of_later_editions_are_refused_by_name(connect: Connect) -> None:
    async with connect() as talk:
        await talk.client.conversation.item.retrieve(item_id="x", event_id="later")
        error = await refused(talk)
        assert (error.code, error.param, error.event_id) == ("invalid_value", "type", "later")
        assert error.message.startswith("Invalid value: 'conversation.item.retrieve'. Supported values are: ")
        assert kinds(talk.events)[-1:] == ["error"]
