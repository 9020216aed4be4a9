"""The script tools: what they read, and above all what they do not let pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from vivavoce.testing import script as s
from vivavoce.testing import virtual_time
from vivavoce.testing.live_runner import main, playable
from vivavoce.testing.matching import Names, ScriptFailure
from vivavoce.testing.pure_runner import run_pure
from vivavoce.testing.socket_runner import run_on_server

_PATH = Path("some.rts")
_RUNNERS = pytest.mark.parametrize("run", [run_pure, run_on_server])

_CREATE = '> {"type": "response.create", "response": {"modalities": ["text"]}}\n'


def _script(body: str) -> s.Script:
    return s.parse(f"# A title\n{body}", _PATH)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("bogus 1", "some.rts:2: there is no setting 'bogus'"),
        ("profile azure-2020", "there is no profile 'azure-2020'"),
        ("pure-only", "needs a reason"),
        ("quota token=1", "quota takes"),
        ("> {nonsense", "no JSON"),
        ("> whistle 20ms", "a client line is"),
        ("> speech 20", "no duration"),
        ("@ 30s", "the clock is moved"),
        ("~ sing", "engines know no 'sing'"),
        ("~ finish early", "finish takes one of"),
        ("~ fail code", "a failure is written"),
        ("~ text hello", "no JSON"),
        ("< error [1]", "a pattern is a JSON object"),
        ("> speech 20ms\nprofile azure-2025-04", "some.rts:3: settings stand before everything else"),
    ],
)
def test_what_cannot_be_read_is_named(body: str, problem: str) -> None:
    with pytest.raises(s.ScriptError, match=r"^some\.rts:") as raised:
        _script(body)
    assert problem in str(raised.value)


def test_a_script_needs_a_title() -> None:
    with pytest.raises(s.ScriptError, match="title"):
        s.parse("> speech 20ms", _PATH)


def test_lines_go_on_when_indented_and_keep_their_number() -> None:
    steps = _script('> {"type":\n   "x"}\n< error {"error":\n     {}}\n\n! Emit\n').steps
    assert steps[0].command == s.SendEvent({"type": "x"})
    assert (steps[0].line, steps[0].expected[0].line, steps[0].effects[0].line) == (2, 4, 7)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (">raw {x ", s.SendText("{x")),
        (">binary 00ff", s.SendBinary(b"\x00\xff")),
        ("> speech 0.3s", s.SendSound(300, s.SPEECH_AMPLITUDE)),
        ("> speech 32ms 0.4", s.SendSound(32, 0.4)),
        ("> silence 1s", s.SendSound(1000, 0.0)),
        ("> append 7 bytes", s.SendBytes(7)),
        ('~ [2] text "a"', s.ProduceText("a", 2)),
        ("~ audio 100ms", s.ProduceAudio(100, None)),
        ('~ fail busy "Too \\"busy\\"." rate', s.Fail("busy", 'Too "busy".', "rate", None)),
        ('~ fail busy "No."', s.Fail("busy", "No.", "server_error", None)),
        ("~ [2] bug", s.Bug(2)),
        ('~ heard "one two" -0.5 -1', s.Heard("one two", (-0.5, -1.0))),
        ("~ unheard", s.Unheard(None)),
        ("@ +30m", s.MoveClock(1800.0)),
    ],
)
def test_commands(line: str, command: s.Command) -> None:
    assert _script(line).steps[0].command == command


@_RUNNERS
@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("> speech 320ms", "line 2: > speech 320ms"),
        ("> silence 20ms\n< input_audio_buffer.cleared", "line 3: nothing more came"),
        (
            _CREATE + "< rate_limits.updated\n< response.created",
            "expected rate_limits.updated, got response.created",
        ),
        (_CREATE + "< response.created", "more came than is listed"),
        (
            _CREATE + '< response.created {"response": {"status": "completed"}}\n< rate_limits.updated',
            'response.status: expected "completed", got "in_progress"',
        ),
        (_CREATE + '< response.created {"response": {"bogus": null}}', "response.bogus is missing"),
        (
            _CREATE + '<= response.created {"response": {"id": "*"}}\n< rate_limits.updated',
            "fields that are not listed: response.conversation_id",
        ),
        (_CREATE + '< response.created {"response": {"output": ["..."], "modalities": []}}', "expected 0 elements"),
        ("<= session.created {}\n< conversation.created", "fields that are not listed: session"),
        ("< session.created", "more came than is listed"),
        ("@ +1799s\n< error", "nothing more came"),
        (
            '> speech 320ms\n< input_audio_buffer.speech_started {"item_id": "$a"}\n> silence 224ms\n'
            '< input_audio_buffer.speech_stopped {"item_id": "$b"}',
            "is $a already, so it cannot be $b",
        ),
    ],
)
def test_what_differs_fails(body: str, problem: str, run: Callable[[s.Script], None]) -> None:
    with pytest.raises(ScriptFailure, match=r"^some\.rts:") as raised:
        run(_script(body))
    assert problem in str(raised.value)


@_RUNNERS
def test_the_end_is_compared_too(run: Callable[[s.Script], None]) -> None:
    body = "session_seconds 120\n@ +120s\n< error\n< closed {} {}\n"
    reason = '"Your session hit the maximum duration of 2 minutes."'
    run(_script(body.format(1001, reason)))
    for other in (body.format(1000, reason), body.format(1001, '"Bye."')):
        with pytest.raises(ScriptFailure, match="expected the close"):
            run(_script(other))


@_RUNNERS
def test_a_command_for_nobody_is_a_fault_of_the_script(run: Callable[[s.Script], None]) -> None:
    for command in ('~ text "a"', '~ heard "a"', '> {"type": "conversation.item.delete", "item_id": "$nobody"}'):
        with pytest.raises(s.ScriptError, match=r"^some\.rts:2:"):
            run(_script(command))


def test_an_effect_that_was_not_asked_for_fails() -> None:
    with pytest.raises(ScriptFailure, match=r"ResetVad \{\} was not asked for"):
        run_pure(_script("> speech 20ms\n! FeedVad\n! ResetVad"))


@pytest.mark.parametrize(
    ("pattern", "actual", "matches"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": None}, {}, False),
        ({"a": 0.1}, {"a": 0.1 + 1e-13}, True),
        ([1, "..."], [1, 2, 3], True),
        ([1], [1, 2], False),
        (["*", "*"], [1, 2], True),
        ("*2 bytes", "AAA=", True),
        ("*3 bytes", "AAA=", False),
        ("${x*3}", "xxx", True),
        (["$a", "$a"], [1, 1], True),
        (["$a", "$a"], [1, 2], False),
        (["$a", "$b"], ["x", "x"], False),
    ],
)
def test_patterns(pattern: object, actual: object, matches: bool) -> None:
    assert (Names().mismatch(pattern, actual) is None) is matches


def test_names_are_filled_in_and_bound_only_by_a_match() -> None:
    names = Names()
    assert names.mismatch({"a": "$x", "b": 1}, {"a": "one", "b": 2}) is not None
    assert names.mismatch({"a": "$x"}, {"a": "two"}) is None
    assert names.fill({"id": "$x", "text": "<${x}>", "n": [1, "${y*2}"]}) == {
        "id": "two",
        "text": "<two>",
        "n": [1, "yy"],
    }


@pytest.mark.parametrize(
    ("body", "lines", "whole"),
    [
        ('> speech 20ms\n>raw x\n< error\n~ text "a"\n> speech 20ms', [2, 3], False),
        ("> speech 20ms\n@ +1s", [2], False),
        ("> silence 20ms\n> speech 320ms\n< input_audio_buffer.speech_started", [2], False),
        (f"{_CREATE}< response.created\n> silence 20ms", [2], False),
        (">raw x\n< error\n>binary 00\n< error", [2, 4], True),
    ],
)
def test_a_real_service_is_asked_for_what_it_can_do(body: str, lines: list[int], whole: bool) -> None:
    steps, all_of_it = playable(_script(body))
    assert ([step.line for step in steps], all_of_it) == (lines, whole)


def test_a_server_that_is_not_there_fails_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "a.rts"
    script.write_text("# A title\n> silence 20ms\n")
    with pytest.raises(SystemExit) as left:
        main(
            [str(script), str(tmp_path / "none.rts"), "--url", "ws://127.0.0.1:1/openai/realtime", "--api-key", "k"]
        )
    assert left.value.code == 1
    assert capsys.readouterr().out.count("FAILED") == 2


def test_the_virtual_clock_stands_still_and_runs_timers_in_order() -> None:
    async def timers() -> list[str]:
        loop = asyncio.get_running_loop()
        fired: list[str] = []
        loop.call_later(20, fired.append, "second")
        loop.call_later(10, fired.append, "first")
        loop.call_later(30, fired.append, "too late")
        await asyncio.to_thread(lambda: None)
        assert (virtual_time.now(), fired) == (0.0, [])
        virtual_time.advance(25)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return fired

    assert virtual_time.run(timers()) == ["first", "second"]


def test_what_waits_for_ever_is_told() -> None:
    with pytest.raises(TimeoutError, match="nothing more happened"):
        virtual_time.run(asyncio.Event().wait(), patience_s=0.05)
