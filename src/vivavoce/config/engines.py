"""``[[deployment]]``, ``[recipe.NAME]`` and ``[engine.NAME]``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from vivavoce.config.convert import among, check_name, convert, table_of, tables_of, with_environment
from vivavoce.config.tables import (
    MAX_WAITING,
    PROVISIONED,
    SPEECH_MODEL_STANDS_FOR,
    DeploymentSettings,
    EngineKind,
    EngineSettings,
    RecipeSettings,
    WorkSettings,
)
from vivavoce.config.values import ConfigError, Count, Text
from vivavoce.wire.dialects.profiles import NAMES

_ENGINE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def read_deployments(
    table: Mapping[str, Any], accounts: Sequence[str], *, more_may_come: bool
) -> tuple[DeploymentSettings, ...]:
    """``accounts``: names of all that are declared; ``more_may_come``: a store may have deployments too."""
    deployments: list[DeploymentSettings] = []
    places: dict[tuple[str, str], int] = {}
    for index, entry in enumerate(tables_of(table, "deployment") or [{"name": "gpt-4o-realtime-preview"}]):
        path = f"deployment[{index}]"
        deployment = convert(entry, DeploymentSettings, path)
        check_name(deployment.name, f"{path}.name")
        if deployment.account and deployment.account not in accounts:
            raise ConfigError(f"{path}.account", f"there is no account '{deployment.account}'{among(accounts)}")
        account = deployment.account or accounts[0]
        first = places.setdefault((account, deployment.name.lower()), index)
        if first != index:
            raise ConfigError(f"{path}.name", f"'{deployment.name}' is already the name of deployment[{first}]")
        _check_work(deployment, entry, path)
        _check_throughput(deployment, entry, path)
        deployments.append(deployment)
    for index, deployment in enumerate(deployments):
        spillover = deployment.spillover
        if spillover is None or more_may_come:
            continue
        if (deployment.account or accounts[0], spillover.lower()) not in places:
            raise ConfigError(f"deployment[{index}].spillover", f"its account has no deployment '{spillover}'")
    return tuple(deployments)


def read_recipes(table: Mapping[str, Any]) -> Mapping[str, RecipeSettings]:
    recipes: dict[str, RecipeSettings] = {}
    for name, entry in table_of(table, "recipe").items():
        path = f"recipe.{name}"
        if _ENGINE_NAME.fullmatch(name) is None:
            raise ConfigError(path, "the name of a recipe is up to 64 letters, digits, '-' and '_'")
        if not isinstance(entry, dict):
            raise ConfigError(path, f"expected a table, [{path}]")
        recipe = recipes[name] = convert(entry, RecipeSettings, path)
        if not recipe.models:
            raise ConfigError(f"{path}.models", "name at least one model, or '*' for all")
        _check_work(recipe, entry, path)
    return recipes


def _check_work(work: WorkSettings, entry: Mapping[str, Any], path: str) -> None:
    if work.speech_model is not None:
        for kind in SPEECH_MODEL_STANDS_FOR:
            if kind in entry:
                raise ConfigError(f"{path}.{kind}", "the speech_model stands for it: name one of them")
    if work.profile and work.profile not in NAMES:
        raise ConfigError(f"{path}.profile", f"'{work.profile}' is not one of {', '.join(NAMES)}")


def _check_throughput(deployment: DeploymentSettings, entry: Mapping[str, Any], path: str) -> None:
    if deployment.sku not in PROVISIONED:
        if deployment.spillover is not None:
            raise ConfigError(
                f"{path}.spillover", f"a {deployment.sku} deployment has none: its sku is not provisioned"
            )
        return
    if "capacity" not in entry:
        raise ConfigError(f"{path}.capacity", f"say how many units (PTU) the {deployment.sku} deployment has")
    for option in ("requests_per_minute", "request_window_s"):
        if option in entry:
            raise ConfigError(f"{path}.{option}", "a provisioned deployment counts utilization, and no requests")
    if deployment.spillover == deployment.name:
        raise ConfigError(f"{path}.spillover", "it cannot spill over to itself")


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
