"""What the scripted model says by itself: tables of texts."""

from __future__ import annotations

import pytest

from vivavoce.engines.builtin.scripted_phrases import GREETING, directed, echo, greeting, speak_output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", "You said: hello."),
        ("Hello!", "You said: Hello!"),
        ("Is it?", "You said: Is it?"),
        ("Well…", "You said: Well…"),
        ('He said "no."', 'You said: He said "no."'),
        ("well,", "You said: well."),
        ("so: ", "You said: so."),
        (":", "You said: :."),
    ],
)
def test_echo(text: str, expected: str) -> None:
    assert echo(text) == expected


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ('Say "hello there".', "hello there"),
        ("say: hello there", "hello there"),
        ("Say: Hello there.", "Hello there."),
        ("SAY 'it's fine'!", "it's fine"),
        ("Always answer with 'X'", "X"),
        ('Reply exactly with "X"', "X"),
        ("Respond with: X", "X"),
        ("Please, just say “Grüß Gott” and nothing else.", "Grüß Gott"),
        ('You are a bot. You must always reply only with: "X".', "X"),
        ("Rules:\n- Be kind.\n2) Say «oui» every time.\n", "oui"),
        ('Say "Hi there." Then wait.', "Hi there."),
        ('Say "a". Say "b".', "a"),
        ('Answer the following: "X"', "X"),
        ("", None),
        ("Be brief.", None),
        ("Say hello to the user.", None),
        ('Never say "X".', None),
        ('Do not say "X".', None),
        ('If asked, say "X".', None),
        ('Say "X" when asked.', None),
        ('Say: "X" when asked.', None),
        ('Say "', None),
        ('Say ""', None),
        ("Say:", None),
        ('Essay: "X"', None),
        ('Sayings "X"', None),
        ('Greet the user with "X"', None),
    ],
)
def test_directives(instructions: str, expected: str | None) -> None:
    assert directed(instructions) == expected


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ('Greet the user with "Welcome!"', "Welcome!"),
        ("Always greet callers with: Good day", "Good day"),
        ("Greet them 'Yo'", "Yo"),
        ("Greet the user warmly.", GREETING),
        ("", GREETING),
    ],
)
def test_greeting(instructions: str, expected: str) -> None:
    assert greeting(instructions) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("It is sunny.", "It is sunny."),
        ('"sunny"', "sunny"),
        ("42", "42"),
        ("true", "true"),
        ("{broken", "{broken"),
        ("", "The result of f is empty."),
        ('""', "The result of f is empty."),
        ("{}", "The result of f is empty."),
        (
            '{"windSpeed": 3.5, "is_raining": false, "alert": null}',
            "The result of f is wind speed 3.5, is raining false, alert none.",
        ),
        ('["kitchen", "hall"]', "The result of f is kitchen, hall."),
        (
            '{"wind": {"speed": 3, "from": "north"}, "rain": null}',
            "The result of f is wind: speed 3, from north; rain none.",
        ),
        ('[{"a": 1, "b": ""}, {"a": 2, "b": []}]', "The result of f is a 1, b empty; a 2; b: empty."),
        ('{"note": "All\\nclear."}', "The result of f is note All clear."),
        ("[" * 50 + "]" * 50, "[" * 50 + "]" * 50),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_speak_output(output: str, expected: str) -> None:
    assert speak_output("f", output) == expected
