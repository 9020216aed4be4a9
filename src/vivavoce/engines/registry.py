"""Which engines are installed, and the making of one.

An engine is announced by an entry point of the group ``vivavoce.<kind>`` that names a factory
``create(options: Mapping[str, object]) -> engine``. Built-ins come in by the same door.

Laws
----
1. Nothing is imported before it is used; listing imports nothing.
2. A broken plug-in is one clear error when it is asked for, and harms no other.
3. What a factory made is checked against its protocol and the rules of its capabilities before anybody uses it.
4. Options belong to the engine: the factory refuses what it does not know, by ``EngineOptionsError``.
5. A module that reads files names those options in ``PATH_OPTIONS: tuple[str, ...]``. A relative path in them is
   made absolute here, from the folder of the configuration file, so that no engine needs to know that folder.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from vivavoce.engines.base import (
    EndOfTurn,
    EndOfTurnCapabilities,
    Engine,
    EngineError,
    EngineOptionsError,
    LanguageModel,
    LanguageModelCapabilities,
    SessionAware,
    SpeechModel,
    SpeechModelCapabilities,
    Synthesizer,
    SynthesizerCapabilities,
    Transcriber,
    TranscriberCapabilities,
    Vad,
    VadCapabilities,
    Watched,
)

__all__ = [
    "ENGINE_KINDS",
    "EndOfTurn",
    "Engine",
    "EngineError",
    "EngineInfo",
    "EngineKind",
    "EngineOptionsError",
    "EngineUnavailable",
    "LanguageModel",
    "Registry",
    "SessionAware",
    "SpeechModel",
    "Synthesizer",
    "Transcriber",
    "Vad",
    "Watched",
    "describe",
]

EngineKind: TypeAlias = Literal[
    "vad", "transcriber", "end_of_turn", "language_model", "synthesizer", "speech_model"
]
ENGINE_KINDS: Final[tuple[EngineKind, ...]] = get_args(EngineKind)

VAD_FRAME_MS: Final = 32
END_OF_TURN_MS: Final = 8000


class EngineUnavailable(Exception):
    """The engine is not installed, or what is installed does not work. ``problem`` says which, in one sentence."""

    def __init__(self, kind: EngineKind, name: str, problem: str) -> None:
        super().__init__(f"{kind} '{name}': {problem}")
        self.kind = kind
        self.name = name
        self.problem = problem


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An installed engine, as its package announces it."""

    kind: EngineKind
    name: str
    module: str
    distribution: str
    """Name of the package that brings it; empty when unknown."""
    version: str
    """Version of that package; empty when unknown."""


class Registry:
    """The engines that a set of entry points announces."""

    def __init__(self, points: Iterable[EntryPoint]) -> None:
        self._points: dict[tuple[EngineKind, str], list[EntryPoint]] = {}
        for point in points:
            kind = _kind_of(point)
            if kind is not None:
                known = self._points.setdefault((kind, point.name), [])
                if all(_identity(point) != _identity(other) for other in known):
                    known.append(point)

    @classmethod
    def installed(cls) -> Registry:
        """The engines of this Python environment."""
        return cls(point for kind in ENGINE_KINDS for point in entry_points(group=f"vivavoce.{kind}"))

    def available(self) -> list[EngineInfo]:
        """All engines, by kind and name; whether they work is not tried."""
        found = [
            EngineInfo(kind, name, point.module, *_distribution(point))
            for (kind, name), points in self._points.items()
            for point in points
        ]
        return sorted(found, key=lambda info: (ENGINE_KINDS.index(info.kind), info.name, info.distribution))

    def names(self, kind: EngineKind) -> tuple[str, ...]:
        return tuple(sorted(name for known, name in self._points if known == kind))

    def create(
        self, kind: EngineKind, name: str, options: Mapping[str, object], *, base: Path | None = None
    ) -> Engine:
        """Make an engine; it is not started. ``base``: folder of relative paths, None for the current one.

        Raises :class:`EngineUnavailable`, and :class:`EngineOptionsError` from the factory.
        """
        point = self._point(kind, name)
        try:
            factory: Callable[[Mapping[str, object]], object] = point.load()
            paths = tuple(getattr(importlib.import_module(point.module), "PATH_OPTIONS", ()))
        except Exception as error:
            raise EngineUnavailable(
                kind, name, f"cannot be loaded from {point.value}: {type(error).__name__}: {error}"
            ) from error
        try:
            engine = factory(_resolved(options, paths, (base or Path()).absolute()))
        except EngineOptionsError:
            raise
        except EngineError as error:
            raise EngineUnavailable(kind, name, error.message) from error
        except Exception as error:
            raise EngineUnavailable(kind, name, f"its factory failed: {type(error).__name__}: {error}") from error
        return check_engine(kind, name, engine)

    def _point(self, kind: EngineKind, name: str) -> EntryPoint:
        points = self._points.get((kind, name), [])
        if not points:
            there = ", ".join(self.names(kind)) or "none"
            raise EngineUnavailable(kind, name, f"is not installed (there are: {there})")
        if len(points) > 1:
            packages = " and ".join(_distribution(point)[0] or point.value for point in points)
            raise EngineUnavailable(kind, name, f"is announced by {packages}; uninstall all but one")
        return points[0]


def _kind_of(point: EntryPoint) -> EngineKind | None:
    return next((kind for kind in ENGINE_KINDS if point.group == f"vivavoce.{kind}"), None)


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return ("", "") if point.dist is None else (point.dist.name, point.dist.version)


def _identity(point: EntryPoint) -> tuple[str, str]:
    return point.value, _distribution(point)[0]


def _resolved(options: Mapping[str, object], paths: tuple[str, ...], base: Path) -> Mapping[str, object]:
    """A value that is no text is left to the factory, which knows how to complain."""
    return {
        key: str(base / Path(value).expanduser()) if key in paths and isinstance(value, str) else value
        for key, value in options.items()
    }


# ---------------------------------------------------------------------------------------------------- checking


def check_engine(kind: EngineKind, name: str, engine: object) -> Engine:
    """``engine`` itself, once it is found to keep the rules of its kind. Raises :class:`EngineUnavailable`."""
    try:
        problem = _problem(kind, engine)
    except Exception as error:
        raise EngineUnavailable(
            kind, name, f"cannot tell its capabilities: {type(error).__name__}: {error}"
        ) from error
    if problem is not None:
        raise EngineUnavailable(kind, name, problem)
    assert isinstance(engine, Vad | Transcriber | EndOfTurn | LanguageModel | Synthesizer | SpeechModel)
    return engine


def _problem(kind: EngineKind, engine: object) -> str | None:
    """What is wrong with an engine, or None."""
    match kind, engine:
        case "vad", Vad():
            return _vad_problem(engine.capabilities)
        case "transcriber", Transcriber():
            return _kind_problem(engine.capabilities, TranscriberCapabilities) or _rate_problem(
                engine.capabilities.sample_rate
            )
        case "end_of_turn", EndOfTurn():
            return _end_of_turn_problem(engine.capabilities)
        case "language_model", LanguageModel():
            return _kind_problem(engine.capabilities, LanguageModelCapabilities)
        case "synthesizer", Synthesizer():
            return _voice_problem(engine.capabilities, SynthesizerCapabilities)
        case "speech_model", SpeechModel():
            return _voice_problem(engine.capabilities, SpeechModelCapabilities)
        case _:
            return f"its factory made a {type(engine).__name__}, which is no {kind}"


def _kind_problem(capabilities: object, wanted: type) -> str | None:
    if isinstance(capabilities, wanted):
        return None
    return f"its capabilities are a {type(capabilities).__name__}, not {wanted.__name__}"


def _rate_problem(rate: int) -> str | None:
    return None if 8000 <= rate <= 192_000 else f"declares a sample rate of {rate} Hz"


def _vad_problem(capabilities: VadCapabilities) -> str | None:
    problem = _kind_problem(capabilities, VadCapabilities) or _rate_problem(capabilities.sample_rate)
    if problem is not None:
        return problem
    if capabilities.frame_samples * 1000 != VAD_FRAME_MS * capabilities.sample_rate:
        frame_ms = capabilities.frame_samples * 1000 / capabilities.sample_rate
        return f"declares frames of {frame_ms:g} ms; they must be {VAD_FRAME_MS} ms"
    return None if capabilities.state_size >= 0 else f"declares a state of {capabilities.state_size} values"


def _end_of_turn_problem(capabilities: EndOfTurnCapabilities) -> str | None:
    problem = _kind_problem(capabilities, EndOfTurnCapabilities) or _rate_problem(capabilities.sample_rate)
    if problem is None and not 0 <= capabilities.audio_ms <= END_OF_TURN_MS:
        return f"wants {capabilities.audio_ms} ms of audio; there are at most {END_OF_TURN_MS} ms"
    return problem


def _voice_problem(capabilities: SynthesizerCapabilities | SpeechModelCapabilities, wanted: type) -> str | None:
    problem = _kind_problem(capabilities, wanted) or _rate_problem(capabilities.sample_rate)
    if problem is None and not capabilities.voices:
        return "declares no voices"
    if problem is None and isinstance(capabilities, SynthesizerCapabilities) and capabilities.clauses_at_once < 1:
        return f"takes {capabilities.clauses_at_once} clauses at once"
    return problem


# ------------------------------------------------------------------------------------------------- description


def describe(engine: Engine) -> str:
    """What an engine can do, in one line for people."""
    match getattr(engine, "capabilities", None):
        case VadCapabilities() as vad:
            return f"{vad.sample_rate} Hz, {vad.frame_samples} samples a frame"
        case TranscriberCapabilities() as hears:
            mode = "while people speak" if hears.streaming else "after people spoke"
            return f"{hears.sample_rate} Hz, {mode}, languages: {', '.join(hears.languages) or 'any'}"
        case EndOfTurnCapabilities() as judges:
            evidence = (["words"] if judges.reads_words else []) + (["sound"] if judges.audio_ms else [])
            return f"by {' and '.join(evidence) or 'nothing'}, languages: {', '.join(judges.languages) or 'any'}"
        case LanguageModelCapabilities() as model:
            skills = {
                "hears audio": model.hears_audio,
                "sees images": model.sees_images,
                "calls tools": model.calls_tools,
                "reasons": model.reasons,
            }
            return ", ".join(skill for skill, has in skills.items() if has) or "text only"
        case SynthesizerCapabilities() as speaks:
            timings = ", word timings" if speaks.word_timings else ""
            return f"{speaks.sample_rate} Hz{timings}, voices: {', '.join(speaks.voices)}"
        case SpeechModelCapabilities() as converses:
            input_ = "hears audio" if converses.hears_audio else "reads what was said"
            input_ += ", sees images" if converses.sees_images else ""
            input_ += ", reasons" if converses.reasons else ""
            return f"{input_}, {converses.sample_rate} Hz, voices: {', '.join(sorted(converses.voices))}"
        case _:
            return ""
