"""The conversation against a plain list."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import structs

from vivavoce.core.context import Entry
from vivavoce.core.conversation import MAX_IMAGE_BYTES, ROOT, Conversation, MessageLimits, truncated
from vivavoce.core.entries import context_of
from vivavoce.core.usage import Tokens
from vivavoce.wire import items
from vivavoce.wire.errors import ClientFault

NAMES = [f"i{n}" for n in range(8)] + [ROOT]


def user(name: str) -> Entry:
    return Entry(items.MessageItem(name, "user", (items.InputTextPart(name),)), text_tokens=5)


def spoken(name: str, ms: int = 1000) -> Entry:
    item = items.MessageItem(name, "assistant", (items.AudioPart("one two"),))
    return Entry(item, text_tokens=6, audio_tokens=ms // 50, audio_ms=ms)


def call(name: str, call_id: str) -> Entry:
    return Entry(items.FunctionCallItem(name, call_id, "f", "{}"))


ENTRIES = st.sampled_from(NAMES).flatmap(
    lambda name: st.sampled_from([user(name), spoken(name), call(name, "call_1"), call(name, "call_2")])
)


class ConversationModel(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.conversation = Conversation("conv_1", Tokens())
        self.model: list[Entry] = []
        self.dropped: set[str] = set()
        self.last_snapshot = self.conversation.snapshot()

    def index(self, name: str | None) -> int | None:
        return next((i for i, entry in enumerate(self.model) if entry.item.id == name), None)

    def changed(self) -> None:
        """A snapshot taken earlier is not touched by what follows, and a new one is made."""
        assert self.conversation.snapshot() is not self.last_snapshot

    @rule(entry=ENTRIES, after=st.none() | st.sampled_from([*NAMES, "nobody"]))
    def add(self, entry: Entry, after: str | None) -> None:
        here = self.index(entry.item.id)
        place = self.index(after)
        if here is not None:
            with pytest.raises(ClientFault) as raised:
                self.conversation.add(entry, after)
            assert raised.value.code == "item_create_duplicate_item_id"
        elif after not in (None, ROOT) and place is None:
            with pytest.raises(ClientFault) as raised:
                self.conversation.add(entry, after)
            assert raised.value.code == "item_create_invalid_previous_item_id"
            with pytest.raises(ClientFault):
                self.conversation.check_place(after)
        else:
            if after is None:
                at = len(self.model)
            elif place is not None:
                at = place + 1
            else:
                at = 0
            previous = self.model[at - 1].item.id if at else None
            assert self.conversation.add(entry, after) == previous
            self.model.insert(at, entry)
            self.changed()

    @rule(name=st.sampled_from([*NAMES, "nobody"]))
    def delete(self, name: str) -> None:
        here = self.index(name)
        if here is None:
            with pytest.raises(ClientFault) as raised:
                self.conversation.delete(name)
            assert raised.value.code == "item_delete_invalid_item_id"
        else:
            self.conversation.delete(name)
            del self.model[here]
            if name not in self.dropped:
                self.changed()
            self.dropped.discard(name)

    @rule(count=st.integers(0, 3))
    def drop(self, count: int) -> None:
        """The oldest of the context leave it, and nothing else."""
        context = [entry.item.id for entry in self.model if entry.item.id not in self.dropped]
        self.conversation.drop_oldest(count)
        self.dropped.update(context[:count])

    @rule(entry=ENTRIES)
    def replace(self, entry: Entry) -> None:
        here = self.index(entry.item.id)
        self.conversation.replace(entry)
        if here is not None:
            self.model[here] = entry
            if entry.item.id not in self.dropped:
                self.changed()

    @rule(name=st.sampled_from([*NAMES, "nobody"]), index=st.integers(0, 1), ms=st.integers(0, 1200))
    def truncate(self, name: str, index: int, ms: int) -> None:
        here = self.index(name)
        entry = None if here is None else self.model[here]
        code = None
        if entry is None:
            code = "item_truncate_invalid_item_id"
        elif not (entry.audio_ms or entry.truncated) or index:
            code = "unsupported_content_type"
        elif ms > entry.audio_ms:
            code = "invalid_value"
        if code is not None:
            with pytest.raises(ClientFault) as raised:
                self.conversation.truncate(name, index, ms)
            assert raised.value.code == code
        else:
            assert entry is not None
            assert here is not None
            self.conversation.truncate(name, index, ms)
            item = items.MessageItem(name, "assistant", (items.AudioPart(None),), "completed")
            self.model[here] = structs.replace(
                entry, item=item, audio_ms=ms, truncated=True, text_tokens=4, audio_tokens=ms // 50
            )
            if name not in self.dropped:
                self.changed()

    @invariant()
    def agrees(self) -> None:
        names = [entry.item.id for entry in self.model]
        assert list(self.conversation) == self.model
        assert len(self.conversation) == len(self.model)
        assert [entry.item.id for entry in self.conversation] == names
        for i, name in enumerate(names):
            assert self.conversation.predecessor(name) == (names[i - 1] if i else None)
            assert name in self.conversation
            assert self.conversation.get(name) == self.model[i]
        assert "nobody" not in self.conversation
        assert self.conversation.get("nobody") is None
        calls = {e.item.call_id for e in self.model if isinstance(e.item, items.FunctionCallItem)}
        for call_id in ("call_1", "call_2"):
            assert self.conversation.has_call(call_id) == (call_id in calls)
        assert self.conversation.has_assistant_audio == any(e.audio_ms or e.truncated for e in self.model)

    @invariant()
    def snapshot(self) -> None:
        now = self.conversation.snapshot()
        assert now == tuple(entry for entry in self.model if entry.item.id not in self.dropped)
        assert self.conversation.snapshot() is now
        self.last_snapshot = now


TestConversationModel = ConversationModel.TestCase
TestConversationModel.settings = settings(max_examples=80, stateful_step_count=30)


@pytest.mark.parametrize(
    "entry",
    [
        user("a"),
        call("a", "call_1"),
        Entry(items.FunctionCallOutputItem("a", "call_1", "x")),
        Entry(items.MessageItem("a", "assistant", (items.TextPart("x"),))),
        Entry(items.MessageItem("a", "assistant", (), "in_progress")),
        spoken("a", 0),
    ],
)
def test_only_assistant_audio_can_be_truncated(entry: Entry) -> None:
    conversation = Conversation("conv_1", Tokens())
    conversation.add(entry)
    with pytest.raises(ClientFault, match="Only model output audio messages can be truncated"):
        conversation.truncate("a", 0, 0)
    assert conversation.get("a") is entry


def test_equal_length_is_fine_and_beyond_is_not() -> None:
    conversation = Conversation("conv_1", Tokens())
    conversation.add(spoken("a", 9250))
    with pytest.raises(ClientFault, match="Audio content of 9250ms is already shorter than 9251ms"):
        conversation.truncate("a", 0, 9251)
    conversation.truncate("a", 0, 9250)
    entry = conversation.get("a")
    assert entry is not None
    assert (entry.audio_ms, entry.audio_tokens, entry.truncated) == (9250, 185, True)


def test_truncating_keeps_the_status_and_other_parts() -> None:
    item = items.MessageItem("a", "assistant", (items.TextPart("x"), items.AudioPart("y")), "incomplete")
    cut = truncated(Entry(item, audio_ms=100), 50, Tokens())
    assert cut.item == items.MessageItem(
        "a", "assistant", (items.TextPart("x"), items.AudioPart(None)), "incomplete"
    )


def picture(name: str, size: int) -> Entry:
    part = items.InputImagePart("x" * size, "low", 1, 1)
    return Entry(items.MessageItem(name, "user", (part,)), image_tokens=85)


def test_pictures_have_a_bound_of_their_own() -> None:
    conversation = Conversation("conv_1", Tokens())
    half = MAX_IMAGE_BYTES // 2
    conversation.add(picture("a", half))
    conversation.add(picture("b", half))
    conversation.add(user("c"))
    with pytest.raises(ClientFault) as raised:
        conversation.add(picture("d", 1))
    assert raised.value.code == "conversation_full"
    assert raised.value.message == (
        "Error adding item: the conversation would hold more than 33554432 bytes of images. Delete items first."
    )
    conversation.delete("a")
    with pytest.raises(ClientFault):
        conversation.check_room((picture("d", half), picture("e", 1)))
    conversation.add(picture("d", half))


def test_a_message_has_a_bound_over_all_of_its_texts() -> None:
    conversation = Conversation("conv_1", Tokens(), MessageLimits(chars=10))

    def message(name: str, *texts: str) -> Entry:
        return Entry(items.MessageItem(name, "user", tuple(items.InputTextPart(text) for text in texts)))

    conversation.add(message("a", "12345", "67890"))
    with pytest.raises(ClientFault) as raised:
        conversation.add(message("b", "12345", "678901"))
    assert (raised.value.code, raised.value.param) == ("string_above_max_length", "item.content")
    assert raised.value.message == (
        "Invalid 'item.content': string too long. Expected a string with maximum length 10, "
        "but got a string with length 11 instead."
    )
    assert len(conversation) == 1
    with pytest.raises(ClientFault):
        conversation.check_room((message("c", "1"), message("d", "x" * 11)))
    call = items.FunctionCallItem("e", "call", "f", "x" * 11)
    conversation.add(Entry(call))


def test_a_message_of_one_response_alone_has_that_bound_too() -> None:
    conversation = Conversation("conv_1", Tokens(), MessageLimits(chars=3))
    item = items.MessageItem("", "user", (items.InputTextPart("1234"),))
    with pytest.raises(ClientFault, match="maximum length 3"):
        context_of([(item, "response.input[0]")], conversation, Entry)
