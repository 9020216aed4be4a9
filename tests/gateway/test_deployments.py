from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vivavoce.config import Config, ConfigError, load_config
from vivavoce.engines.base import (
    EndOfTurnCapabilities,
    EngineError,
    EngineOptionsError,
    LanguageModelCapabilities,
    SpeechModelCapabilities,
    SynthesisRequest,
    Synthesizer,
    SynthesizerCapabilities,
    TranscriberCapabilities,
    VadCapabilities,
)
from vivavoce.engines.registry import Engine, EngineKind, EngineUnavailable, Registry
from vivavoce.gateway import deployments as module
from vivavoce.gateway.deployments import (
    Catalogue,
    Deployment,
    EngineKey,
    EngineStartError,
    build_engines,
    open_deployments,
    open_engines,
)
from vivavoce.gateway.limiting import SpillOver
from vivavoce.gateway.quota import Asked, Denied, Quota
from vivavoce.gateway.resource import DeploymentRecord, Model, Sku
from vivavoce.gateway.shared.memory import MemoryState
from vivavoce.gateway.store.declared import Declared
from vivavoce.gateway.windows import window_fault
from vivavoce.wire.server_events import Usage
from vivavoce.wire.session_config import VOICES

ALL_VOICES: dict[str, str] = {voice: voice for voice in VOICES}
CAPABILITIES: dict[EngineKind, object] = {
    "vad": VadCapabilities(16000, 512, 320),
    "transcriber": TranscriberCapabilities(16000, True),
    "end_of_turn": EndOfTurnCapabilities(16000, 8000, reads_words=True),
    "language_model": LanguageModelCapabilities(),
    "synthesizer": SynthesizerCapabilities(22050, voices=ALL_VOICES),
    "speech_model": SpeechModelCapabilities(24000, voices=frozenset(VOICES)),
}
USUAL = {
    "vad": "silero",
    "transcriber": "pocketsphinx",
    "end_of_turn": "turn_hints",
    "language_model": "scripted",
    "synthesizer": "espeak",
}

CLOSED = [f"close {name}" for name in reversed(USUAL.values())]

Step = Callable[[], Awaitable[None]]


async def at_once() -> None: ...


@dataclass
class Bench(Registry):
    """A registry of fake engines that writes down what happens to them."""

    log: list[str] = field(default_factory=list)
    made: list[tuple[str, Mapping[str, object], Path | None]] = field(default_factory=list)
    starts: dict[str, Step] = field(default_factory=dict)
    closes: dict[str, Step] = field(default_factory=dict)
    faults: dict[str, Exception] = field(default_factory=dict)
    capabilities: dict[str, object] = field(default_factory=dict)
    session_aware: set[str] = field(default_factory=set)

    def names(self, kind: EngineKind) -> tuple[str, ...]:
        return (USUAL.get(kind, "native"), f"other-{kind}")

    def create(
        self, kind: EngineKind, name: str, options: Mapping[str, object], *, base: Path | None = None
    ) -> Engine:
        if name in self.faults:
            raise self.faults[name]
        self.made.append((name, options, base))

        async def start() -> None:
            await self.starts.get(name, at_once)()
            self.log.append(f"start {name}")

        async def close() -> None:
            self.log.append(f"close {name}")
            await self.closes.get(name, at_once)()

        async def end_session(session: str) -> None: ...

        return SimpleNamespace(
            **({"end_session": end_session} if name in self.session_aware else {}),
            name=name,
            version="1",
            start=start,
            close=close,
            capabilities=self.capabilities.get(name, CAPABILITIES[kind]),
        )


def configured(text: str, folder: Path) -> Config:
    file = folder / "c.toml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, environ={})


@pytest.fixture
def bench() -> Bench:
    return Bench()


USUAL_CONFIG = load_config(None, environ={})

# ---------------------------------------------------------------------------------------------------- catalogue


def test_a_deployment_tells_its_model_and_limits(tmp_path: Path) -> None:
    text = """
    [[deployment]]
    name = "a"
    capacity = 2
    [[deployment]]
    name = "b"
    version = ""
    capacity = 3
    requests_per_minute = 7
    """
    a, b = map(Deployment.of, configured(text, tmp_path).deployments)
    assert (a.reported_model, a.tokens_per_minute, a.requests_per_minute) == (
        "gpt-4o-realtime-preview-2024-12-17", 2000, 12,
    )  # fmt: skip
    assert (b.reported_model, b.tokens_per_minute, b.requests_per_minute) == ("gpt-4o-realtime-preview", 3000, 7)
    assert a.engines == USUAL


@pytest.mark.parametrize(
    ("options", "max_input", "max_output"),
    [
        ("", 16_000, 4096),
        ("version = ''", 32_000, 4096),
        ("model = 'gpt-4o-mini-realtime-preview'", 128_000, 4096),
        ("model = 'gpt-realtime'", 28_672, 4096),
        ("model = 'gpt-realtime'\nversion = '2025-08-28'", 28_672, 4096),
        ("model = 'of-our-own'", 123_904, 4096),
        ("context_window = 8192", 4096, 4096),
        ("context_window = 4096", 2048, 2048),
        ("context_window = 4096\nmax_output = 4000", 96, 4000),
        ("model = 'gpt-realtime'\nmax_output = 100", 32_668, 100),
    ],
)
def test_what_a_model_reads_and_writes(options: str, max_input: int, max_output: int, tmp_path: Path) -> None:
    config = configured(f"[[deployment]]\nname = 'a'\n{options}\n", tmp_path)
    deployment = Deployment.of(config.deployments[0])
    assert (deployment.max_input, deployment.max_output) == (max_input, max_output)


def test_a_window_has_room_for_what_is_read(bench: Bench, tmp_path: Path) -> None:
    text = "[[deployment]]\nname = 'a'\ncontext_window = 4096\nmax_output = 4096\n"
    with pytest.raises(ConfigError) as fault:
        build_engines(configured(text, tmp_path), bench)
    assert str(fault.value) == "deployment[0].max_output: nothing could be read: the context_window is 4096 tokens"


@pytest.mark.parametrize(
    ("options", "context"),
    [
        ("models = ['gpt-realtime']\nmax_output = 32_768", 32_768),
        ("models = ['my-own']\nmax_output = 128_000", 128_000),
        ("models = ['*']\ncontext_window = 8192\nmax_output = 8192", 8192),
        ("models = ['gpt-realtime', 'gpt-4o-realtime-preview']\nmax_output = 36_000", None),
        ("models = ['gpt-realtime']\nmax_output = 32_767", None),
        ("models = ['gpt-realtime']\ncontext_window = 50_000\nmax_output = 40_000", None),
        ("models = ['*']\ncontext_window = 8192", None),
    ],
)
def test_a_recipe_has_room_for_some_model(options: str, context: int | None, bench: Bench, tmp_path: Path) -> None:
    config = configured(f"[recipe.r]\n{options}\n", tmp_path)
    if context is None:
        build_engines(config, bench)
        return
    with pytest.raises(ConfigError) as fault:
        build_engines(config, bench)
    assert str(fault.value) == (
        f"recipe.r.max_output: nothing could be read: the context_window is {context} tokens"
    )


def test_the_window_of_a_recipe_is_that_of_the_model(tmp_path: Path) -> None:
    recipe = configured("[recipe.r]\nmodels = ['*']\nmax_output = 36_000\n", tmp_path).recipes["r"]
    fault = "nothing could be read: the context_window is 32768 tokens"
    assert window_fault(Model("gpt-realtime", "2025-08-28"), recipe) == fault
    assert window_fault(Model("gpt-4o-realtime-preview", "2025-06-03"), recipe) is None
    assert window_fault(Model("gpt-realtime", "2025-08-28"), None) is None


def test_a_model_is_found_by_deployment_then_model_then_reported_name(tmp_path: Path) -> None:
    text = """
    [[deployment]]
    name = "first"
    model = "m"
    version = "1"
    [[deployment]]
    name = "second"
    model = "m-1"
    version = ""
    [[deployment]]
    name = "m"
    model = "x"
    version = "2"
    """
    catalogue = Catalogue(map(Deployment.of, configured(text, tmp_path).deployments))

    def found(model: str) -> str | None:
        deployment = catalogue.by_model(model)
        return None if deployment is None else deployment.name

    names = ["first", "second", "m", "x", "m-1", "x-2", "m-2", ""]
    assert [found(name) for name in names] == ["first", "second", "m", "m", "second", "m", None, None]
    assert [catalogue.by_name(name) is not None for name in names] == [True, True, True] + [False] * 5
    assert [deployment.name for deployment in catalogue] == ["first", "second", "m"]


# ----------------------------------------------------------------------------------------------- engines by name

NAMED = """
[[deployment]]
name = "a"
language_model = "teller"
[[deployment]]
name = "b"
language_model = "teller"
[[deployment]]
name = "c"
[engine.teller]
kind = "language_model"
type = "scripted"
script = "bank.toml"
"""


def test_engines_are_made_once_each_with_their_options(bench: Bench, tmp_path: Path) -> None:
    config = configured(NAMED, tmp_path)
    engines = build_engines(config, bench)
    assert bench.made == [
        ("silero", {}, tmp_path),
        ("pocketsphinx", {}, tmp_path),
        ("turn_hints", {}, tmp_path),
        ("scripted", {"script": "bank.toml"}, tmp_path),
        ("espeak", {}, tmp_path),
        ("scripted", {}, tmp_path),
    ]
    a, b, c = (engines.recipe(Deployment.of(settings)) for settings in config.deployments)
    assert a == b
    assert a.language_model is b.language_model
    assert a.language_model is not c.language_model
    assert a.synthesizer is c.synthesizer


def test_a_deployment_with_a_speech_model_makes_neither_language_model_nor_synthesizer(
    bench: Bench, tmp_path: Path
) -> None:
    config = configured("[[deployment]]\nname = 'a'\nspeech_model = 'native'", tmp_path)
    engines = build_engines(config, bench)
    assert [name for name, _, _ in bench.made] == ["silero", "pocketsphinx", "turn_hints", "native"]
    recipe = engines.recipe(Deployment.of(config.deployments[0]))
    assert recipe.speech_model is not None
    assert (recipe.speech_model.name, recipe.language_model, recipe.synthesizer) == ("native", None, None)


def test_a_configured_engine_may_have_the_name_of_its_plug_in(bench: Bench, tmp_path: Path) -> None:
    build_engines(configured("[engine.espeak]\nkind = 'synthesizer'\ntype = 'espeak'\nrate = 3", tmp_path), bench)
    assert bench.made[-1] == ("espeak", {"rate": 3}, tmp_path)


def test_a_configured_engine_of_another_kind_hides_no_plug_in(bench: Bench, tmp_path: Path) -> None:
    build_engines(configured("[engine.espeak]\nkind = 'vad'\ntype = 'silero'", tmp_path), bench)
    assert bench.made[-1] == ("espeak", {}, tmp_path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[[deployment]]\nname = 'a'\n[[deployment]]\nname = 'b'\n[[deployment]]\nname = 'c'\nsynthesizer = 'x'",
            "deployment[2].synthesizer: there is no synthesizer 'x' (there are: espeak, other-synthesizer)",
        ),
        (
            "[[deployment]]\nname = 'a'\nvad = 'teller'\n"
            "[engine.teller]\nkind = 'language_model'\ntype = 'scripted'",
            "deployment[0].vad: there is no vad 'teller' (there are: other-vad, silero); "
            "[engine.teller] is a language_model",
        ),
        (
            "[[deployment]]\nname = 'a'\nvad = 'x'\n[engine.mine]\nkind = 'vad'\ntype = 'silero'",
            "deployment[0].vad: there is no vad 'x' (there are: mine, other-vad, silero)",
        ),
        (
            "[[deployment]]\nname = 'a'\nvad = 'mine'\n[engine.mine]\nkind = 'vad'\ntype = 'x'",
            "engine.mine.type: there is no vad 'x' (there are: other-vad, silero)",
        ),
    ],
)
def test_unknown_engines_name_their_place(text: str, line: str, bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        build_engines(configured(text, tmp_path), bench)
    assert str(fault.value) == line
    assert bench.made == []


ONE = "[[deployment]]\nname = 'a'\nvad = 'mine'\n[engine.mine]\nkind = 'vad'\ntype = 'silero'\nx = 1"


@pytest.mark.parametrize(
    ("fault", "text", "line"),
    [
        (EngineOptionsError("x", "is odd"), ONE, "engine.mine.x: is odd"),
        (EngineOptionsError("", "is odd"), ONE, "engine.mine: is odd"),
        (EngineOptionsError("url", "is required"), "", "deployment[0].vad.url: is required"),
        (EngineUnavailable("vad", "silero", "boom"), ONE, "engine.mine.type: vad 'silero': boom"),
        (EngineUnavailable("vad", "silero", "boom"), "", "deployment[0].vad: vad 'silero': boom"),
    ],
)
def test_faults_of_engines_name_their_place(
    fault: Exception, text: str, line: str, bench: Bench, tmp_path: Path
) -> None:
    bench.faults["silero"] = fault
    with pytest.raises(ConfigError) as raised:
        build_engines(configured(text, tmp_path), bench)
    assert str(raised.value) == line


def test_a_synthesizer_must_have_every_voice_of_the_protocol(bench: Bench) -> None:
    voices: dict[str, str] = {voice: "v" for voice in VOICES if voice not in ("ash", "verse")}
    bench.capabilities["espeak"] = SynthesizerCapabilities(22050, voices=voices)
    with pytest.raises(ConfigError) as fault:
        build_engines(USUAL_CONFIG, bench)
    assert str(fault.value) == "deployment[0].synthesizer: synthesizer 'espeak' has no voice for ash, verse"


SPECULATING = "[[deployment]]\nname = 'a'\nspeculate = true\n"


@pytest.mark.parametrize(
    ("text", "capabilities", "problem"),
    [
        ("speech_model = 'native'", None, "a speech_model keeps what it is asked: it cannot be asked in vain"),
        (
            "",
            LanguageModelCapabilities(hears_audio=True),
            "language_model 'scripted' hears the speech itself: it cannot begin before its end",
        ),
    ],
)
def test_only_a_model_that_reads_can_be_asked_ahead(
    text: str, capabilities: LanguageModelCapabilities | None, problem: str, bench: Bench, tmp_path: Path
) -> None:
    if capabilities is not None:
        bench.capabilities["scripted"] = capabilities
    with pytest.raises(ConfigError) as fault:
        build_engines(configured(SPECULATING + text, tmp_path), bench)
    assert str(fault.value) == f"deployment[0].speculate: {problem}"


def test_a_model_that_keeps_something_for_a_session_cannot_be_asked_ahead(bench: Bench, tmp_path: Path) -> None:
    bench.session_aware.add("scripted")
    with pytest.raises(ConfigError) as fault:
        build_engines(configured(SPECULATING, tmp_path), bench)
    assert str(fault.value) == (
        "deployment[0].speculate: language_model 'scripted' keeps what it is asked: it cannot be asked in vain"
    )


async def test_speculation_has_an_allowance_beside_the_quota_and_as_large(bench: Bench, tmp_path: Path) -> None:
    text = SPECULATING + "capacity = 2\n[[deployment]]\nname = 'b'"
    config = configured(text, tmp_path)
    shared = MemoryState(lambda: 0.0)
    async with open_deployments(config, bench, clock=lambda: 0.0, shared=shared) as served:
        a, b = served
        assert b.allowance is None
        assert isinstance(a.allowance, Quota)
        a.allowance.take(requests=1, tokens=500)
        assert [limit.remaining for limit in a.allowance.status()] == [11, 1500]
        assert [limit.remaining for limit in a.quota.status()] == [12, 2000]
    nothing = a.allowance.limits.charges(requests=0, tokens=0)
    assert (await shared.charge("a speculation", nothing, "add")).levels == (1, 500)


def test_a_speech_model_must_have_every_voice_of_the_protocol(bench: Bench, tmp_path: Path) -> None:
    bench.capabilities["native"] = SpeechModelCapabilities(24000, voices=frozenset(VOICES) - {"ash"})
    with pytest.raises(ConfigError) as fault:
        build_engines(configured("[[deployment]]\nname = 'a'\nspeech_model = 'native'", tmp_path), bench)
    assert str(fault.value) == "deployment[0].speech_model: speech_model 'native' has no voice for ash"


# -------------------------------------------------------------------------------------------------- life of engines


async def test_engines_run_inside_the_block_and_close_in_reverse(bench: Bench) -> None:
    async with open_deployments(USUAL_CONFIG, bench) as served:
        assert sorted(bench.log) == sorted(f"start {name}" for name in USUAL.values())
        bench.log.clear()
        (one,) = served
        assert served["gpt-4o-realtime-preview"] is one
        catalogue = served.catalogue(one.deployment.account)
        assert catalogue.by_model("gpt-4o-realtime-preview-2024-12-17") is one.deployment
        assert one.recipe.vad.name == "silero"
    assert bench.log == CLOSED


async def test_the_quota_of_a_deployment_counts_by_the_given_clock(bench: Bench, tmp_path: Path) -> None:
    config = configured("[[deployment]]\nname = 'a'\ncapacity = 6\nrequests_per_minute = 60", tmp_path)
    now = [0.0]
    async with open_deployments(config, bench, clock=lambda: now[0]) as served:
        quota = served["a"].quota
        assert isinstance(quota, Quota)
        quota.reserve(1000)
        now[0] += 1
        assert [(one.limit, one.remaining) for one in quota.status()] == [(60, 60), (6000, 5100)]


async def test_engines_start_side_by_side(bench: Bench) -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def vad() -> None:
        first.set()
        await second.wait()

    async def synthesizer() -> None:
        second.set()
        await first.wait()

    bench.starts.update(silero=vad, espeak=synthesizer)
    async with asyncio.timeout(5), open_deployments(USUAL_CONFIG, bench):
        pass


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (
            EngineError("no_model", "The model is missing."),
            "synthesizer 'espeak' cannot start: The model is missing.",
        ),
        (OSError("disk gone"), "synthesizer 'espeak' cannot start: OSError: disk gone"),
    ],
)
async def test_when_one_fails_to_start_all_are_closed(raised: Exception, text: str, bench: Bench) -> None:
    async def fail() -> None:
        raise raised

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            bench.log.append("cancelled silero")

    bench.starts.update(espeak=fail, silero=hang)
    with pytest.raises(EngineStartError) as fault:
        async with open_deployments(USUAL_CONFIG, bench):
            pytest.fail("served without an engine")
    assert str(fault.value) == text
    assert fault.value.__cause__ is raised
    assert bench.log[-6:] == ["cancelled silero", *CLOSED]


async def test_cancelled_while_starting_all_are_closed(bench: Bench) -> None:
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    bench.starts["silero"] = hang

    async def serve() -> None:
        async with open_deployments(USUAL_CONFIG, bench):
            pytest.fail("served without an engine")

    task = asyncio.create_task(serve())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.log[-5:] == CLOSED


async def test_a_failing_block_closes_all(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="bug"):
        async with open_deployments(USUAL_CONFIG, bench):
            raise RuntimeError("bug")
    assert bench.log[-5:] == CLOSED


async def test_an_engine_that_does_not_close_keeps_no_other_open(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise RuntimeError("stuck")

    async def hang() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "ENGINE_CLOSE_S", 0.0)
    bench.closes.update(espeak=fail, scripted=hang)
    async with open_deployments(USUAL_CONFIG, bench):
        pass
    assert bench.log[-5:] == CLOSED
    assert [record.getMessage() for record in caplog.records] == [
        "synthesizer 'espeak' did not close: RuntimeError",
        "language_model 'scripted' did not close: TimeoutError",
    ]


async def test_an_unused_engine_is_told_and_not_made(
    bench: Bench, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    config = configured("[engine.spare]\nkind = 'vad'\ntype = 'other-vad'", tmp_path)
    with caplog.at_level(logging.WARNING):
        async with open_deployments(config, bench):
            pass
    assert [record.getMessage() for record in caplog.records] == ["engine.spare is used by no deployment"]
    assert "other-vad" not in [name for name, _, _ in bench.made]


# -------------------------------------------------------------------------------------------------------- gates

GATED = """
[[deployment]]
name = "a"
synthesizer = "voice"
[engine.voice]
kind = "synthesizer"
type = "espeak"
max_concurrent = 1
max_waiting = 0
words_per_minute = 200
"""


async def test_the_limits_of_a_table_hold_for_its_engine(tmp_path: Path) -> None:
    """And its other options arrive as they are."""
    config = configured(GATED, tmp_path)
    async with open_engines(config, lambda engine: engine.name == "espeak") as engines:
        voice = dict(engines)["synthesizer", "voice"]
        assert isinstance(voice, Synthesizer)
        first, second = (voice.synthesize(SynthesisRequest("Hello.", "alloy", session=name)) for name in "ab")
        async with aclosing(first), aclosing(second):
            await anext(first)
            with pytest.raises(EngineError) as raised:
                await anext(second)
        assert raised.value.code == "engine_overloaded"
        async with aclosing(voice.synthesize(SynthesisRequest("Hello.", "alloy", session="b"))) as again:
            assert (await anext(again)).pcm


async def test_what_stands_in_for_an_engine_has_no_gate_here(tmp_path: Path) -> None:
    stand_in = SimpleNamespace(name="there", version="1", start=at_once, close=at_once)
    config = configured(GATED, tmp_path)

    def instead(key: EngineKey, engine: Engine) -> Engine:
        return stand_in if key == ("synthesizer", "voice") else engine

    async with open_deployments(config, instead=instead) as deployments:
        assert deployments["a"].recipe.synthesizer is stand_in


# -------------------------------------------------------------------------------------------- following a directory

ACCOUNTS = """
[resource]
name = "voice"
[[account]]
name = "bank"
subdomain = "front"
[[deployment]]
name = "gpt"
[[deployment]]
name = "gpt"
account = "bank"
capacity = 2
[recipe.tuned]
models = ["m"]
instructions = "Be brief."
"""


def stored(account: str, name: str, **changes: Any) -> DeploymentRecord:
    record = DeploymentRecord(
        account=account, name=name, sku=Sku("Standard", 1), model=Model("m", "1"), recipe="tuned"
    )
    return replace(record, **changes)


async def test_each_account_has_its_own_deployments(bench: Bench, tmp_path: Path) -> None:
    config = configured(ACCOUNTS, tmp_path)
    voice, bank = (one.id for one in Declared(config).accounts)
    async with open_deployments(config, bench) as served:
        assert [one.deployment.label for one in served] == ["gpt", "front/gpt"]
        first, second = served.catalogue(voice).by_name("gpt"), served.catalogue(bank.upper()).by_name("gpt")
        assert first is served["gpt"].deployment
        assert second is served["front/gpt"].deployment
        assert served.catalogue("/nowhere").by_name("gpt") is None


async def test_what_is_served_follows_the_directory(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(ACCOUNTS, tmp_path)
    declared = Declared(config)
    bank = declared.accounts[1].id
    async with open_deployments(config, bench, clock=lambda: 0.0) as served:
        gpt = served["gpt"]
        served.follow(declared.directory(deployments=[stored(bank, "new"), stored(bank, "other")]))
        new, other = served["front/new"], served["front/other"]
        assert (new.deployment.instructions, new.deployment.tokens_per_minute) == ("Be brief.", 1000)
        assert new.recipe == gpt.recipe
        assert served.catalogue(bank).by_name("new") is new.deployment
        assert isinstance(new.quota, Quota)
        new.quota.reserve(400)

        changed = stored(bank, "new", sku=Sku("Standard", 2), tags={"a": "b"})
        served.follow(declared.directory(deployments=[changed, stored(bank, "other")]))
        assert served["front/new"] is not new
        assert (served["gpt"], served["front/other"]) == (gpt, other)
        assert served["gpt"] is gpt
        assert served["front/other"] is other
        # It counts on where it was.
        assert [(one.limit, one.remaining) for one in served["front/new"].quota.status()] == [
            (12, 11),
            (2000, 1600),
        ]

        served.follow(declared.directory(deployments=[stored(bank, "other")]))
        assert served.catalogue(bank).by_name("new") is None
        assert [one.deployment.label for one in served] == ["gpt", "front/gpt", "front/other"]
        assert new.quota.status()[1].remaining == 600
    assert caplog.messages == []


async def test_two_accounts_of_one_subdomain_keep_what_is_theirs(bench: Bench, tmp_path: Path) -> None:
    """One was made, and then the file declares another."""
    config = configured(ACCOUNTS, tmp_path)
    declared = Declared(config)
    bank = declared.accounts[1]
    older = replace(bank, name="older", declared=False)
    directory = declared.directory(
        accounts=[older], deployments=[stored(bank.id, "new"), stored(older.id, "new", model=Model("m", "2"))]
    )
    async with open_deployments(config, bench, directory=directory) as served:
        for _ in range(2):
            for one, version in ((bank, "1"), (older, "2")):
                found = served.catalogue(one.id).by_name("new")
                assert found is not None
                assert (found.version, served[found.label].deployment) == (version, found)
            served.follow(directory)


async def test_a_bug_leaves_what_is_served(bench: Bench, tmp_path: Path) -> None:
    config = configured(ACCOUNTS, tmp_path)
    declared = Declared(config)
    async with open_deployments(config, bench) as served:
        with pytest.raises(AttributeError):
            served.follow(declared.directory(deployments=[stored(declared.accounts[0].id, "x", model=None)]))
        assert [one.deployment.label for one in served] == ["gpt", "front/gpt"]


async def test_what_nothing_here_does_is_not_served_and_told_once(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(ACCOUNTS, tmp_path)
    declared = Declared(config)
    bank = declared.accounts[1].id
    unknown = stored(bank, "new", recipe="gone", model=Model("unknown", "1"))
    async with open_deployments(config, bench) as served:
        for _ in range(2):
            served.follow(
                declared.directory(deployments=[unknown, stored(bank, "x", provisioning_state="Deleting")])
            )
            assert served.catalogue(bank).by_name("new") is None
            assert served.catalogue(bank).by_name("x") is None
    assert caplog.messages == [
        f"deployment {bank}/deployments/new cannot be used: nothing here does the work of its model"
    ]


async def test_a_stored_deployment_may_be_provisioned_and_spill_over(bench: Bench, tmp_path: Path) -> None:
    config = configured(ACCOUNTS, tmp_path)
    declared = Declared(config)
    bank = declared.accounts[1].id
    bought = stored(
        bank,
        "bought",
        sku=Sku("GlobalProvisionedManaged", 15),
        model=Model("gpt-4o-realtime-preview", "2024-12-17"),
        spillover_deployment_name="gpt",
    )
    async with open_deployments(config, bench, clock=lambda: 0.0) as served:
        served.follow(declared.directory(deployments=[bought]))
        limiter = served["front/bought"].quota
        assert isinstance(limiter, SpillOver)
        assert limiter.status()[0].limit == 15 * 2500
        assert not isinstance(limiter.ask(Asked(40_000, Usage(input_text=40_000), 1)), Denied)
        # The one of its own account takes what comes now, not the other account's of that name.
        assert not isinstance(limiter.ask(Asked(500, Usage(input_text=400), 100)), Denied)
        assert served["front/gpt"].quota.status()[1].remaining == 1500
        assert served["gpt"].quota.status()[1].remaining == 10_000_000


async def test_throughput_of_which_nothing_is_known_is_not_served(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured(ACCOUNTS, tmp_path)
    declared = Declared(config)
    bank = declared.accounts[1].id
    async with open_deployments(config, bench) as served:
        for _ in range(2):
            bought = stored(bank, "bought", sku=Sku("ProvisionedManaged", 50))
            served.follow(declared.directory(deployments=[bought]))
            assert served.catalogue(bank).by_name("bought") is None
    [told] = caplog.messages
    assert told.startswith(
        f"deployment {bank}/deployments/bought cannot be used: nothing is known of the throughput"
    )


async def test_a_declared_deployment_of_unknown_throughput_is_a_fault(bench: Bench, tmp_path: Path) -> None:
    text = "[[deployment]]\nname = 'a'\nmodel = 'm'\nsku = 'ProvisionedManaged'\ncapacity = 50"
    with pytest.raises(ConfigError) as fault:
        async with open_deployments(configured(text, tmp_path), bench):
            pass
    assert fault.value.path == "deployment 'a'"
    assert fault.value.problem.startswith("nothing is known of the throughput of 'm' (of these it is: gpt-4.1, ")
