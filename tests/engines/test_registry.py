from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol

import pytest

from vivavoce.engines import base
from vivavoce.engines.base import (
    EndOfTurnCapabilities,
    EngineError,
    EngineOptionsError,
    LanguageModelCapabilities,
    SpeechModelCapabilities,
    SynthesizerCapabilities,
    TranscriberCapabilities,
    VadCapabilities,
)
from vivavoce.engines.registry import EngineInfo, EngineKind, EngineUnavailable, Registry, describe

VOICES = {"alloy": "a", "echo": "b"}
GOOD: dict[EngineKind, Any] = {
    "vad": VadCapabilities(sample_rate=16000, frame_samples=512, state_size=320),
    "transcriber": TranscriberCapabilities(sample_rate=16000, streaming=True, languages=("en", "de")),
    "end_of_turn": EndOfTurnCapabilities(sample_rate=16000, audio_ms=8000, reads_words=True),
    "language_model": LanguageModelCapabilities(hears_audio=True),
    "synthesizer": SynthesizerCapabilities(sample_rate=22050, word_timings=True, voices=VOICES),
    "speech_model": SpeechModelCapabilities(sample_rate=24000, voices=frozenset(VOICES)),
}
METHODS: dict[EngineKind, str] = {
    "vad": "infer",
    "transcriber": "transcribe",
    "end_of_turn": "judge",
    "language_model": "generate",
    "synthesizer": "synthesize",
    "speech_model": "respond",
}


def engine(kind: EngineKind, capabilities: object = None, *, without: str = "") -> object:
    async def nothing() -> None: ...

    async def stream(*_: object) -> AsyncIterator[object]:
        yield None

    parts: dict[str, object] = {
        "name": "fake",
        "version": "1",
        "start": nothing,
        "close": nothing,
        "capabilities": GOOD[kind] if capabilities is None else capabilities,
        METHODS[kind]: stream,
    }
    parts.pop(without, None)
    return SimpleNamespace(**parts)


class Plugin(Protocol):
    """Puts a factory, and what stands beside it, into the importable module ``fake_plugin``."""

    def __call__(self, create: Callable[[Mapping[str, object]], object], **beside: object) -> None: ...


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Plugin:
    module = ModuleType("fake_plugin")
    monkeypatch.setitem(sys.modules, "fake_plugin", module)

    def install(create: Callable[[Mapping[str, object]], object], **beside: object) -> None:
        vars(module).update(beside, create=create)

    return install


def point(kind: str, name: str = "fake", value: str = "fake_plugin:create") -> EntryPoint:
    return EntryPoint(name=name, value=value, group=f"vivavoce.{kind}")


# ------------------------------------------------------------------------------------------------------ listing


def test_the_built_in_engines_are_announced() -> None:
    found = {(info.kind, info.name): info for info in Registry.installed().available()}
    silero = found["vad", "silero"]
    assert silero == EngineInfo("vad", "silero", "vivavoce.engines.builtin.silero_vad", "vivavoce", silero.version)
    assert silero.version
    assert {("transcriber", "pocketsphinx"), ("language_model", "scripted"), ("synthesizer", "espeak")} <= set(
        found
    )


def test_listing_imports_no_engine() -> None:
    code = (
        "import sys; from vivavoce.engines.registry import Registry; Registry.installed().available(); "
        "print([name for name in sys.modules if 'engines.builtin' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_available_is_ordered_by_kind_and_name() -> None:
    registry = Registry([point("synthesizer", "b"), point("vad", "z"), point("synthesizer", "a"), point("other")])
    assert [(info.kind, info.name) for info in registry.available()] == [
        ("vad", "z"), ("synthesizer", "a"), ("synthesizer", "b"),
    ]  # fmt: skip
    assert registry.names("synthesizer") == ("a", "b")
    assert registry.names("transcriber") == ()


def test_an_entry_point_told_twice_is_one(plugin: Plugin) -> None:
    plugin(lambda _: engine("vad"))
    registry = Registry([point("vad"), point("vad")])
    assert len(registry.available()) == 1
    assert registry.create("vad", "fake", {}).name == "fake"


# ----------------------------------------------------------------------------------------------------- creating


@pytest.mark.parametrize("kind", GOOD)
def test_a_right_engine_is_made_with_its_options(kind: EngineKind, plugin: Plugin) -> None:
    seen: list[Mapping[str, object]] = []
    made = engine(kind)

    def create(options: Mapping[str, object]) -> object:
        seen.append(options)
        return made

    plugin(create)
    assert Registry([point(kind)]).create(kind, "fake", {"speed": 2}) is made
    assert seen == [{"speed": 2}]


def test_path_options_start_from_the_given_folder(plugin: Plugin, tmp_path: Path) -> None:
    seen: dict[str, object] = {}

    def create(options: Mapping[str, object]) -> object:
        seen.update(options)
        return engine("vad")

    plugin(create, PATH_OPTIONS=("script", "model", "number"))
    options = {"script": "a/b.toml", "model": "/abs/m.bin", "voice": "c.txt", "number": 5}
    Registry([point("vad")]).create("vad", "fake", options, base=tmp_path)
    assert seen == {"script": str(tmp_path / "a/b.toml"), "model": "/abs/m.bin", "voice": "c.txt", "number": 5}
    assert options["script"] == "a/b.toml"


def test_without_a_folder_paths_start_from_the_current_one(
    plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, object] = {}

    def create(options: Mapping[str, object]) -> object:
        seen.update(options)
        return engine("vad")

    plugin(create, PATH_OPTIONS=("script",))
    monkeypatch.chdir(tmp_path)
    Registry([point("vad")]).create("vad", "fake", {"script": "b.toml"})
    assert seen == {"script": str(tmp_path / "b.toml")}


BAD: list[tuple[EngineKind, object, str]] = [
    ("vad", engine("transcriber"), "its factory made a SimpleNamespace, which is no vad"),
    ("vad", engine("vad", without="infer"), "its factory made a SimpleNamespace, which is no vad"),
    ("vad", None, "its factory made a NoneType, which is no vad"),
    ("vad", engine("vad", GOOD["transcriber"]),
     "its capabilities are a TranscriberCapabilities, not VadCapabilities"),
    ("vad", engine("vad", VadCapabilities(16000, 480, 0)), "declares frames of 30 ms; they must be 32 ms"),
    ("vad", engine("vad", VadCapabilities(0, 0, 0)), "declares a sample rate of 0 Hz"),
    ("vad", engine("vad", VadCapabilities(16000, 512, -1)), "declares a state of -1 values"),
    ("transcriber", engine("transcriber", TranscriberCapabilities(10, True)), "declares a sample rate of 10 Hz"),
    ("transcriber", engine("transcriber", {}), "its capabilities are a dict, not TranscriberCapabilities"),
    ("end_of_turn", engine("end_of_turn", EndOfTurnCapabilities(10, 0, False)), "declares a sample rate of 10 Hz"),
    ("end_of_turn", engine("end_of_turn", EndOfTurnCapabilities(16000, 8001, True)),
     "wants 8001 ms of audio; there are at most 8000 ms"),
    ("end_of_turn", engine("end_of_turn", {}), "its capabilities are a dict, not EndOfTurnCapabilities"),
    ("language_model", engine("language_model", 1), "its capabilities are a int, not LanguageModelCapabilities"),
    ("synthesizer", engine("synthesizer", SynthesizerCapabilities(22050)), "declares no voices"),
    ("synthesizer", engine("synthesizer", SynthesizerCapabilities(1, voices=VOICES)),
     "declares a sample rate of 1 Hz"),
    ("speech_model", engine("language_model"), "its factory made a SimpleNamespace, which is no speech_model"),
    ("speech_model", engine("speech_model", GOOD["synthesizer"]),
     "its capabilities are a SynthesizerCapabilities, not SpeechModelCapabilities"),
    ("speech_model", engine("speech_model", SpeechModelCapabilities(24000)), "declares no voices"),
    ("speech_model", engine("speech_model", SpeechModelCapabilities(1, voices=frozenset(VOICES))),
     "declares a sample rate of 1 Hz"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "made", "problem"), BAD)
def test_what_is_no_engine_is_refused(kind: EngineKind, made: object, problem: str, plugin: Plugin) -> None:
    plugin(lambda _: made)
    with pytest.raises(EngineUnavailable) as fault:
        Registry([point(kind)]).create(kind, "fake", {})
    assert fault.value.problem == problem
    assert str(fault.value) == f"{kind} 'fake': {problem}"


class _Stumbling:
    """A VAD whose capabilities cannot be read."""

    @property
    def capabilities(self) -> VadCapabilities:
        raise OSError("no model file")

    name = version = "x"
    start = close = infer = lambda *_: None


def test_an_engine_that_cannot_tell_its_capabilities_is_refused(plugin: Plugin) -> None:
    plugin(lambda _: _Stumbling())
    with pytest.raises(EngineUnavailable, match="cannot tell its capabilities: OSError: no model file"):
        Registry([point("vad")]).create("vad", "fake", {})


@pytest.mark.parametrize(
    ("raised", "problem"),
    [
        (RuntimeError("boom"), "its factory failed: RuntimeError: boom"),
        (EngineError("no_gpu", "There is no GPU."), "There is no GPU."),
    ],
)
def test_a_factory_that_fails_is_one_clear_error(raised: Exception, problem: str, plugin: Plugin) -> None:
    def create(options: Mapping[str, object]) -> object:
        raise raised

    plugin(create)
    with pytest.raises(EngineUnavailable) as fault:
        Registry([point("vad")]).create("vad", "fake", {})
    assert fault.value.problem == problem
    assert fault.value.__cause__ is raised


def test_wrong_options_stay_the_factorys_word(plugin: Plugin) -> None:
    def create(options: Mapping[str, object]) -> object:
        raise EngineOptionsError("speed", "must be positive")

    plugin(create)
    with pytest.raises(EngineOptionsError, match="speed: must be positive"):
        Registry([point("vad")]).create("vad", "fake", {"speed": -1})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no_such_module_here:create", "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("fake_plugin:missing", "AttributeError: module 'fake_plugin' has no attribute 'missing'"),
    ],
)
def test_a_broken_plug_in_harms_no_other(value: str, problem: str, plugin: Plugin) -> None:
    plugin(lambda _: engine("vad"))
    registry = Registry([point("vad", "broken", value), point("vad", "fine")])
    assert len(registry.available()) == 2
    with pytest.raises(EngineUnavailable) as fault:
        registry.create("vad", "broken", {})
    assert fault.value.problem == f"cannot be loaded from {value}: {problem}"
    assert registry.create("vad", "fine", {}).name == "fake"


def test_an_engine_that_is_not_installed() -> None:
    with pytest.raises(EngineUnavailable, match=r"^vad 'x': is not installed \(there are: none\)$"):
        Registry([]).create("vad", "x", {})
    with pytest.raises(EngineUnavailable, match=r"there are: a, b"):
        Registry([point("vad", "b"), point("vad", "a")]).create("vad", "x", {})


def test_two_packages_with_one_name_are_told_apart_by_the_user() -> None:
    registry = Registry([point("vad", "x", "one:create"), point("vad", "x", "two:create")])
    assert [info.module for info in registry.available()] == ["one", "two"]
    with pytest.raises(EngineUnavailable, match="is announced by one:create and two:create; uninstall all but one"):
        registry.create("vad", "x", {})


# -------------------------------------------------------------------------------------------------- description


@pytest.mark.parametrize(
    ("kind", "capabilities", "text"),
    [
        ("vad", None, "16000 Hz, 512 samples a frame"),
        ("transcriber", None, "16000 Hz, while people speak, languages: en, de"),
        ("transcriber", TranscriberCapabilities(8000, False), "8000 Hz, after people spoke, languages: any"),
        ("end_of_turn", None, "by words and sound, languages: any"),
        ("end_of_turn", EndOfTurnCapabilities(8000, 0, True, ("en", "de")), "by words, languages: en, de"),
        ("end_of_turn", EndOfTurnCapabilities(8000, 100, False), "by sound, languages: any"),
        ("language_model", None, "hears audio, calls tools"),
        ("language_model", LanguageModelCapabilities(calls_tools=False), "text only"),
        ("synthesizer", None, "22050 Hz, word timings, voices: alloy, echo"),
        ("speech_model", None, "hears audio, 24000 Hz, voices: alloy, echo"),
        ("speech_model", SpeechModelCapabilities(8000, hears_audio=False, voices=frozenset({"alloy"})),
         "reads what was said, 8000 Hz, voices: alloy"),
    ],
)  # fmt: skip
def test_engines_are_described_by_their_capabilities(
    kind: EngineKind, capabilities: object, text: str, plugin: Plugin
) -> None:
    plugin(lambda _: engine(kind, capabilities))
    made = Registry([point(kind)]).create(kind, "fake", {})
    assert describe(made) == text
    kinds = base.Vad | base.Transcriber | base.EndOfTurn | base.LanguageModel | base.Synthesizer | base.SpeechModel
    assert isinstance(made, kinds)
