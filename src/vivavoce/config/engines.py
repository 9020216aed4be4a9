"""``[[deployment]]`` and ``[engine.NAME]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from vivavoce.config.convert import convert, table_of, with_environment
from vivavoce.config.tables import (
    MAX_WAITING,
    SPEECH_MODEL_STANDS_FOR,
    DeploymentSettings,
    EngineKind,
    EngineSettings,
)
from vivavoce.config.values import ConfigError, Count, Text
from vivavoce.wire.dialects.profiles import NAMES

_ENGINE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def read_deployments(table: Mapping[str, Any]) -> tuple[DeploymentSettings, ...]:
    entries = table.get("deployment", [])
    if not isinstance(entries, list):
        raise ConfigError("deployment", "expected an array of tables, [[deployment]]")
    deployments: list[DeploymentSettings] = []
    places: dict[str, int] = {}
    for index, entry in enumerate(entries or [{"name": "gpt-4o-realtime-preview"}]):
        path = f"deployment[{index}]"
        deployment = convert(entry, DeploymentSettings, path)
        if NAME.fullmatch(deployment.name) is None:
            raise ConfigError(
                f"{path}.name",
                f"{deployment.name!r} is no name: a letter or digit, then up to 63 letters, digits, '.', '_', '-'",
            )
        first = places.setdefault(deployment.name, index)
        if first != index:
            raise ConfigError(f"{path}.name", f"'{deployment.name}' is already the name of deployment[{first}]")
        if deployment.speech_model is not None:
            for kind in SPEECH_MODEL_STANDS_FOR:
                if kind in entry:
                    raise ConfigError(f"{path}.{kind}", "the speech_model stands for it: name one of them")
        if deployment.profile and deployment.profile not in NAMES:
            raise ConfigError(f"{path}.profile", f"'{deployment.profile}' is not one of {', '.join(NAMES)}")
        deployments.append(deployment)
    return tuple(deployments)


class _EngineHead(msgspec.Struct, frozen=True, kw_only=True):
    kind: EngineKind
    type: Text
    max_concurrent: Count | None = None


class _Waiting(msgspec.Struct, frozen=True, kw_only=True):
    max_waiting: Annotated[int, msgspec.Meta(ge=0)] = MAX_WAITING


def read_engines(table: Mapping[str, Any], environ: Mapping[str, str]) -> Mapping[str, EngineSettings]:
    engines: dict[str, EngineSettings] = {}
    for name, entry in table_of(table, "engine").items():
        path = f"engine.{name}"
        if _ENGINE_NAME.fullmatch(name) is None:
            raise ConfigError(path, "the name of an engine is up to 64 letters, digits, '-' and '_'")
        if not isinstance(entry, dict):
            raise ConfigError(path, f"expected a table, [{path}]")
        head = convert(entry, _EngineHead, path)
        ours = {"kind", "type", "max_concurrent"}
        waiting = _Waiting()
        if head.max_concurrent is not None:
            if head.kind == "vad":
                raise ConfigError(f"{path}.max_concurrent", "a vad works for all sessions together")
            # Without a limit of ours nobody waits, and the option is the engine's own where it has such a one.
            ours.add("max_waiting")
            waiting = convert(entry, _Waiting, path)
        engines[name] = EngineSettings(
            kind=head.kind,
            type=head.type,
            options=with_environment(
                {key: value for key, value in entry.items() if key not in ours}, environ, path
            ),
            max_concurrent=head.max_concurrent,
            max_waiting=waiting.max_waiting,
        )
    return engines
