from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import UNSET

from vivavoce.cli_engines import print_table
from vivavoce.cli_prompts import prompt_table
from vivavoce.config import Config, ConfigError, load_config
from vivavoce.gateway.prompts import DeclaredPrompts
from vivavoce.gateway.resource import account_id
from vivavoce.wire.prompts import MAX_INSTRUCTIONS, PromptVersion
from vivavoce.wire.session_config import FunctionTool, NamedFunction

DESK = """
[resource]
name = "bank"
[[account]]
name = "shop"
[prompt.pmpt_desk]
default = "1"
[[prompt.pmpt_desk.version]]
version = "1"
instructions = "Greet {{guest}}, and call {{ guest }} by name."
[[prompt.pmpt_desk.version]]
version = "2"
instructions = "Welcome {{guest}} to {{the-city}}."
voice = "marin"
max_output_tokens = 200
tool_choice = "find_room"
[[prompt.pmpt_desk.version.tools]]
name = "find_room"
description = "Finds a room."
parameters = { type = "object" }
[prompt.plain]
account = "shop"
[[prompt.plain.version]]
version = "a"
instructions = "Be brief."
[[prompt.plain.version]]
version = "b"
instructions = "Be kind. {no gap}"
tools = []
tool_choice = "none"
"""


def load(text: str, folder: Path) -> Config:
    file = folder / "vivavoce.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, environ={})


def test_prompts_are_read(tmp_path: Path) -> None:
    prompts = load(DESK, tmp_path).prompts
    assert [(name, one.account, one.prompt.default) for name, one in prompts.items()] == [
        ("pmpt_desk", "bank", "1"),
        ("plain", "shop", "b"),
    ]
    first, second = prompts["pmpt_desk"].prompt.versions.values()
    assert first == PromptVersion(instructions="Greet {{guest}}, and call {{ guest }} by name.")
    assert (first.variables, second.variables) == (("guest",), ("guest", "the-city"))
    assert second == PromptVersion(
        instructions="Welcome {{guest}} to {{the-city}}.",
        voice="marin",
        tools=(FunctionTool("find_room", "Finds a room.", {"type": "object"}),),
        tool_choice=NamedFunction("find_room"),
        max_output_tokens=200,
    )
    kind = prompts["plain"].prompt.versions["b"]
    assert (kind.tools, kind.tool_choice, kind.voice) == ((), "none", UNSET)


def test_values_have_no_gaps() -> None:
    version = PromptVersion(instructions="{{a}} {{ b }} {{a}}")
    assert version.filled({"a": "{{b}}", "b": "\\1"}) == "{{b}} \\1 {{b}}"


def test_an_account_has_its_prompts_and_no_others(tmp_path: Path) -> None:
    config = load(DESK, tmp_path)
    prompts = DeclaredPrompts(config)
    subscription, group = config.resource.subscription, config.resource.resource_group
    assert list(prompts(account_id(subscription, group, "bank"))) == ["pmpt_desk"]
    assert list(prompts(account_id(subscription, group, "Shop"))) == ["plain"]
    assert list(prompts(account_id(subscription, group, "other"))) == []
    assert list(DeclaredPrompts()(account_id(subscription, group, "bank"))) == []


def test_they_are_shown_without_their_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(prompt_table(load(DESK, tmp_path).prompts))
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines()]
    assert ["pmpt_desk", "bank", "1,", "the", "default", "guest"] in rows
    assert ["pmpt_desk", "bank", "2", "guest,", "the-city", "find_room"] in rows
    assert "Greet" not in shown


VERSION = "[[prompt.p.version]]\nversion = '1'\ninstructions = 'Hi'\n"
FAULTS = [
    ("prompt = 1", "prompt", "expected a table, [prompt]"),
    ("[prompt]\np = 1", "prompt.p", "expected a table, [prompt.p]"),
    ("[prompt.'a b']", "prompt.a b", "the id of a prompt is up to 128 letters, digits, '-' and '_'"),
    ("[prompt.p]", "prompt.p.version", "is required"),
    ("[prompt.p]\nversion = []", "prompt.p.version", "a prompt has at least one version"),
    ("[prompt.p]\nversion = '1'", "prompt.p.version", "expected array, got str"),
    (
        f"[prompt.p]\nname = 'x'\n{VERSION}",
        "prompt.p.name",
        "unknown option (there are: version, default, account)",
    ),
    (f"[prompt.p]\naccount = 'x'\n{VERSION}", "prompt.p.account", "there is no account 'x' (there are: vivavoce)"),
    (f"[prompt.p]\ndefault = '2'\n{VERSION}", "prompt.p.default", "there is no version '2' (there are: 1)"),
    (VERSION + VERSION, "prompt.p.version[1].version", "there is a version '1' already"),
    ("[[prompt.p.version]]\nversion = '1'", "prompt.p.version[0].instructions", "is required"),
    ("[[prompt.p.version]]\ninstructions = 'Hi'", "prompt.p.version[0].version", "is required"),
    (f"{VERSION}voice = 'nova'", "prompt.p.version[0].voice", "'nova' is no voice"),
    (f"{VERSION}max_output_tokens = 0", "prompt.p.version[0].max_output_tokens", "expected int >= 1"),
    (f"{VERSION}max_output_tokens = 4097", "prompt.p.version[0].max_output_tokens", "expected int <= 4096"),
    (
        f"{VERSION}tool_choice = 'sail'",
        "prompt.p.version[0].tool_choice",
        "'sail' is no tool of the prompt (there are: auto, none, required)",
    ),
    (f"{VERSION}tools = [{{name = 'a b'}}]", "prompt.p.version[0].tools[0].name", "expected str matching regex"),
    (f"{VERSION}tools = [{{name = 'a', kind = 1}}]", "prompt.p.version[0].tools[0].kind", "unknown option"),
    (
        "[[prompt.p.version]]\nversion = '1'\ninstructions = 'Hi {{first name}}'",
        "prompt.p.version[0].instructions",
        "{{first name}} names no variable: a letter, then letters, digits, '_' and '-'",
    ),
    (
        f"[[prompt.p.version]]\nversion = '1'\ninstructions = '{'x' * (MAX_INSTRUCTIONS + 1)}'",
        "prompt.p.version[0].instructions",
        f"expected str of length <= {MAX_INSTRUCTIONS}",
    ),
]


@pytest.mark.parametrize(("text", "path", "problem"), FAULTS, ids=[path for _, path, _ in FAULTS])
def test_faults_name_their_place(text: str, path: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        load(text, tmp_path)
    assert fault.value.path == path
    assert fault.value.problem.startswith(problem)
