"""What clients may ask for by name, and the engines behind each name.

Laws
----
1. A :class:`Deployment` is data: what it claims to be and what it may use. A :class:`Recipe` is the engines that do
   its work. :class:`Catalogue` finds the first, :class:`Deployments` binds both with the quota.
2. An engine exists once per process and configured name, however many deployments use it.
3. Engines start together before anybody is served. When one fails, all that were begun are closed again, in reverse
   order; the same at the end.
4. What is wrong with the configuration is found before anything is started, as a ``ConfigError`` with its path.
5. What is served follows a :class:`Directory`: deployments come, change and go while sessions run, and a session
   keeps the :class:`Served` that it began with. Engines are those of the configuration, and neither come nor go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias, cast

from vivavoce.config import PROVISIONED, Config, ConfigError, DeploymentSettings, DeploymentSku, WorkSettings
from vivavoce.engines.gate import Gate, Limits, Watch, gated
from vivavoce.engines.registry import (
    EndOfTurn,
    Engine,
    EngineError,
    EngineKind,
    EngineOptionsError,
    EngineUnavailable,
    LanguageModel,
    Registry,
    SessionAware,
    SpeechModel,
    Synthesizer,
    Transcriber,
    Vad,
    Watched,
)
from vivavoce.gateway.limiting import ConnectionRate, ProvisionedLimiter, SpillOver
from vivavoce.gateway.limits import catalogue_of
from vivavoce.gateway.models.catalogue import ModelCatalogue, shipped
from vivavoce.gateway.provisioned import Provision, throughput_of, with_throughput
from vivavoce.gateway.quota import MINUTE_S, Limiter, RateLimits, limiter
from vivavoce.gateway.recipes import Recipes
from vivavoce.gateway.resource import DeploymentRecord, Directory, deployment_id, id_key
from vivavoce.gateway.shared.base import SharedState
from vivavoce.gateway.shared.memory import MemoryState
from vivavoce.gateway.store.declared import Declared
from vivavoce.gateway.windows import check_recipe_window, check_window, window_under
from vivavoce.wire.session_config import VOICES

logger = logging.getLogger(__name__)

ENGINE_CLOSE_S: Final = 10.0
REQUESTS_PER_1000_TOKENS: Final = 6
REQUEST_WINDOW_S: Final = 10.0
"""Seconds over which the service watches whether requests come evenly (protocol 9.2)."""

EngineKey: TypeAlias = tuple[EngineKind, str]
"""Kind, and name as deployments refer to it."""
Substitution: TypeAlias = Callable[[EngineKey, Engine], Engine]
Watches: TypeAlias = Callable[[EngineKey], Watch]
"""Makes who wants to know what becomes of an engine's work."""


class EngineStartError(Exception):
    """An engine is configured rightly but does not start on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A model under a name of the resource's own."""

    name: str
    account: str = ""
    """Id of its account."""
    label: str = ""
    """By which metrics, counters and logs know it, unique; its name, where that is not said."""
    model: str
    version: str
    """May be empty."""
    profile: str
    """One of ``wire.dialects.profiles.NAMES`` that all its sessions of that dialect have; empty, and for the other
    dialect: it follows the connection."""
    conversation_created: bool
    strict: bool
    """Refuse what the service refuses; otherwise take some spellings that only its documents print."""
    instructions: str
    """Default instructions of its sessions."""
    heard_text: bool
    """The model keeps the words of a truncated message that were heard."""
    engines: Mapping[EngineKind, str]
    tokens_per_minute: int
    requests_per_minute: int
    request_window_s: float = MINUTE_S
    provision: Provision | None = None
    """Its throughput, where that was bought; the three before mean nothing then."""
    spillover: str | None = None
    """Name of the deployment that takes what a provisioned one has no room for."""
    connections_per_minute: int | None = None
    max_sessions: int | None = None
    """In all processes together."""
    context_window: int | None = None
    """Tokens that it reads and writes in one response; None for any number."""
    max_output: int | None = None
    """Those of them that it writes at most; None for any number."""
    speculate: bool = False
    """Answers to turns that are likely over are begun, and held back until they are."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name)

    @property
    def id(self) -> str:
        return deployment_id(self.account, self.name)

    @property
    def allowance_name(self) -> str:
        """Where what it spends on speculation is counted; no deployment has such a label."""
        return f"{self.label} speculation"

    @property
    def reported_model(self) -> str:
        """What ``session.model`` shows: ``gpt-4o-realtime-preview-2024-12-17``."""
        return f"{self.model}-{self.version}" if self.version else self.model

    @property
    def max_input(self) -> int | None:
        """Tokens that it reads at most: what its output leaves of the window."""
        return None if self.context_window is None else self.context_window - (self.max_output or 0)

    @classmethod
    def of(cls, settings: DeploymentSettings, catalogue: ModelCatalogue | None = None) -> Deployment:
        """``catalogue``: what a unit of throughput is worth, None for the shipped one. Raises :class:`ConfigError`
        where it is provisioned, and nothing is known of the throughput of its model."""
        window = window_under(settings, settings.model, settings.version)
        return cls(
            name=settings.name,
            model=settings.model,
            version=settings.version,
            profile=settings.profile,
            conversation_created=settings.conversation_created,
            strict=settings.strict,
            instructions=settings.instructions,
            heard_text=settings.heard_text,
            engines=settings.engines,
            tokens_per_minute=settings.capacity * 1000,
            requests_per_minute=settings.requests_per_minute or settings.capacity * REQUESTS_PER_1000_TOKENS,
            request_window_s=settings.request_window_s
            or (REQUEST_WINDOW_S if settings.requests_per_minute is None else MINUTE_S),
            provision=_provision(settings, catalogue),
            spillover=settings.spillover,
            connections_per_minute=settings.connections_per_minute,
            max_sessions=settings.max_sessions,
            context_window=window.context,
            max_output=window.output,
            speculate=settings.speculate,
        )

    @classmethod
    def of_record(
        cls,
        record: DeploymentRecord,
        work: WorkSettings,
        label: str,
        catalogue: ModelCatalogue | None = None,
    ) -> Deployment:
        """``work``: what does its work; ``catalogue`` as for :meth:`of`. Raises :class:`ConfigError` as it does."""
        if not (record.declared and isinstance(work, DeploymentSettings)):
            # What a declared deployment tells its model is its own, and may be of another account.
            own = {"instructions"} if isinstance(work, DeploymentSettings) else set()
            work = DeploymentSettings(
                name=record.name,
                model=record.model.name,
                version=record.model.version,
                sku=cast(DeploymentSku, record.sku.name),
                capacity=record.sku.capacity,
                spillover=record.spillover_deployment_name,
                **{name: getattr(work, name) for name in WorkSettings.__struct_fields__ if name not in own},
            )
        return replace(cls.of(work, catalogue), account=record.account, label=label)


def _provision(settings: DeploymentSettings, catalogue: ModelCatalogue | None) -> Provision | None:
    if settings.sku not in PROVISIONED:
        return None
    catalogue = catalogue or shipped()
    throughput = throughput_of(settings.model, catalogue)
    if throughput is None:
        known = ", ".join(with_throughput(catalogue))
        raise ConfigError(
            f"deployment '{settings.name}'",
            f"nothing is known of the throughput of '{settings.model}' (of these it is: {known})",
        )
    return Provision.of(throughput, settings.capacity)


@dataclass(frozen=True, slots=True)
class Recipe:
    """The engines of a deployment, shared with others. It answers by a speech model, or else by the other two."""

    vad: Vad
    transcriber: Transcriber
    end_of_turn: EndOfTurn
    language_model: LanguageModel | None
    synthesizer: Synthesizer | None
    speech_model: SpeechModel | None


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment that can be used: its engines run, its counters count."""

    deployment: Deployment
    recipe: Recipe
    quota: Limiter
    allowance: Limiter | None = None
    """What may be spent on speculation, beside the quota and as much again; None where there is none."""
    connections: ConnectionRate | None = None
    """None where as many may come as like."""


class Catalogue:
    """Finds deployments. Earlier ones win where several answer to a model's name."""

    def __init__(self, deployments: Iterable[Deployment]) -> None:
        self._by_name = {deployment.name: deployment for deployment in deployments}

    def __iter__(self) -> Iterator[Deployment]:
        return iter(self._by_name.values())

    def by_name(self, name: str) -> Deployment | None:
        return self._by_name.get(name)

    def by_model(self, model: str) -> Deployment | None:
        """By deployment name, then model name, then reported model."""
        return (
            self._by_name.get(model)
            or next((one for one in self if one.model == model), None)
            or next((one for one in self if one.reported_model == model), None)
        )


class EngineSet:
    """The engines that a configuration needs: made and checked, not started."""

    def __init__(self, engines: Mapping[EngineKey, Engine]) -> None:
        self._engines = dict(engines)

    def __iter__(self) -> Iterator[tuple[EngineKey, Engine]]:
        return iter(self._engines.items())

    def recipe(self, deployment: Deployment) -> Recipe:
        # The registry has checked every engine against the protocol of its kind.
        return Recipe(
            vad=cast(Vad, self._of("vad", deployment)),
            transcriber=cast(Transcriber, self._of("transcriber", deployment)),
            end_of_turn=cast(EndOfTurn, self._of("end_of_turn", deployment)),
            language_model=cast(LanguageModel | None, self._of("language_model", deployment)),
            synthesizer=cast(Synthesizer | None, self._of("synthesizer", deployment)),
            speech_model=cast(SpeechModel | None, self._of("speech_model", deployment)),
        )

    def _of(self, kind: EngineKind, deployment: Deployment) -> Engine | None:
        name = deployment.engines.get(kind)
        return None if name is None else self._engines[kind, name]

    async def start(self) -> None:
        """Start all, together; on failure or cancellation none is left running.

        Raises :class:`EngineStartError`, the first of them.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for key, engine in self:
                    group.create_task(_start(key, engine))
        except BaseException as error:
            await self.close()
            if isinstance(error, ExceptionGroup):
                first = error.exceptions[0]
                raise first from first.__cause__
            raise

    def failing(self) -> list[EngineKey]:
        """Every engine that says that it does not work now."""
        return [key for key, engine in self if not _works(engine)]

    async def close(self) -> None:
        """Close all, the last first. A failure is logged and keeps no other engine open."""
        for (kind, name), engine in reversed(self._engines.items()):
            try:
                async with asyncio.timeout(ENGINE_CLOSE_S):
                    await engine.close()
            except Exception as error:
                # Not its text: an engine's may quote what it was working on.
                logger.error("%s '%s' did not close: %s", kind, name, type(error).__name__)


def _works(engine: Engine) -> bool:
    """What it says; one that breaks when it is asked does not work."""
    try:
        return not isinstance(engine, Watched) or engine.working
    except Exception:
        return False


async def _start(key: EngineKey, engine: Engine) -> None:
    kind, name = key
    try:
        await engine.start()
    except EngineError as error:
        raise EngineStartError(f"{kind} '{name}' cannot start: {error.message}") from error
    except Exception as error:
        raise EngineStartError(f"{kind} '{name}' cannot start: {type(error).__name__}: {error}") from error


# ---------------------------------------------------------------------------------------------------- assembly


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be made for one engine name, and the paths at which its faults are told."""

    plug_in: str
    options: Mapping[str, object] = field(repr=False)
    name_path: str
    options_path: str


def build_engines(config: Config, registry: Registry) -> EngineSet:
    """Make every engine that a deployment or a recipe refers to, once. Raises :class:`ConfigError`.

    All names are checked before the first engine is made.
    """
    works = _works_of(config)
    plans: dict[EngineKey, _Plan] = {}
    for path, settings in works:
        for kind, name in settings.engines.items():
            if (kind, name) not in plans:
                plans[kind, name] = _plan(config, registry, kind, name, f"{path}.{kind}")
    engines = {key: _create(key[0], plan, registry, config.base) for key, plan in plans.items()}
    for index, one in enumerate(config.deployments):
        check_window(window_under(one, one.model, one.version), f"deployment[{index}]")
    for name, recipe in config.recipes.items():
        check_recipe_window(recipe, f"recipe.{name}")
    for path, settings in works:
        if settings.speculate:
            _check_speculation(f"{path}.speculate", settings, engines)
    return EngineSet(engines)


def _works_of(config: Config) -> list[tuple[str, WorkSettings]]:
    """All that names engines, and its path."""
    deployments = ((f"deployment[{at}]", one) for at, one in enumerate(config.deployments))
    return [*deployments, *((f"recipe.{name}", one) for name, one in config.recipes.items())]


def _check_speculation(path: str, settings: WorkSettings, engines: Mapping[EngineKey, Engine]) -> None:
    """A response is known by the words of the turn, and one that does not come about must leave nothing behind."""
    if settings.speech_model is not None:
        raise ConfigError(path, "a speech_model keeps what it is asked: it cannot be asked in vain")
    name = settings.language_model
    model = engines["language_model", name]
    if cast(LanguageModel, model).capabilities.hears_audio:
        raise ConfigError(path, f"language_model '{name}' hears the speech itself: it cannot begin before its end")
    if isinstance(model, SessionAware):
        raise ConfigError(path, f"language_model '{name}' keeps what it is asked: it cannot be asked in vain")


def _plan(config: Config, registry: Registry, kind: EngineKind, name: str, path: str) -> _Plan:
    table = config.engines.get(name)
    installed = set(registry.names(kind))
    if table is not None and table.kind == kind:
        if table.type not in installed:
            raise ConfigError(f"engine.{name}.type", _unknown(kind, table.type, installed))
        return _Plan(table.type, table.options, f"engine.{name}.type", f"engine.{name}")
    if name in installed:
        return _Plan(name, {}, path, path)
    configured = {known for known, other in config.engines.items() if other.kind == kind}
    hint = "" if table is None else f"; [engine.{name}] is a {table.kind}"
    raise ConfigError(path, _unknown(kind, name, installed | configured) + hint)


def _behind_gates(
    config: Config, engines: Iterable[tuple[EngineKey, Engine]], watches: Watches | None
) -> EngineSet:
    """The engines with the limits of their tables, and watched."""
    return EngineSet({key: _gated(config, key, engine, watches) for key, engine in engines})


def _gated(config: Config, key: EngineKey, engine: Engine, watches: Watches | None) -> Engine:
    table = config.engines.get(key[1])
    limits = Limits()
    if table is not None and table.kind == key[0]:
        limits = Limits(table.max_concurrent, table.max_waiting)
    if limits.max_concurrent is None and watches is None:
        return engine
    return gated(engine, Gate(key[1], limits, None if watches is None else watches(key)))


def _unknown(kind: EngineKind, name: str, there: Iterable[str]) -> str:
    return f"there is no {kind} '{name}' (there are: {', '.join(sorted(there)) or 'none'})"


def _create(kind: EngineKind, plan: _Plan, registry: Registry, base: Path) -> Engine:
    try:
        engine = registry.create(kind, plan.plug_in, plan.options, base=base)
    except EngineUnavailable as error:
        raise ConfigError(plan.name_path, str(error)) from error
    except EngineOptionsError as error:
        path = f"{plan.options_path}.{error.path}" if error.path else plan.options_path
        raise ConfigError(path, error.problem) from error
    problem = _missing_voices(kind, engine)
    if problem is not None:
        raise ConfigError(plan.name_path, problem)
    return engine


def _missing_voices(kind: EngineKind, engine: Engine) -> str | None:
    if kind not in ("synthesizer", "speech_model"):
        return None
    voices = cast(Synthesizer | SpeechModel, engine).capabilities.voices
    missing = [voice for voice in VOICES if voice not in voices]
    return f"{kind} '{engine.name}' has no voice for {', '.join(missing)}" if missing else None


class Deployments:
    """All that is served, the first account's first."""

    def __init__(
        self,
        served: Iterable[Served] = (),
        engines: EngineSet | None = None,
        serve: Callable[[DeploymentRecord, str], Served | None] | None = None,
    ) -> None:
        """``serve``: what a deployment is served by, given its label; None where nothing does its work. It is
        called when :meth:`follow` meets one that is new or has changed."""
        self._served = {one.deployment.label: one for one in served}
        self._records: dict[str, DeploymentRecord] = {}
        self._serve = serve
        self._catalogues: dict[str, Catalogue] = {}
        self.engines = engines or EngineSet({})

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    def __getitem__(self, label: str) -> Served:
        """Raises KeyError."""
        return self._served[label]

    def catalogue(self, account: str) -> Catalogue:
        """What clients may ask an account (its id) for, now."""
        key = id_key(account)
        if key not in self._catalogues:
            deployments = (one.deployment for one in self._served.values())
            self._catalogues[key] = Catalogue(one for one in deployments if id_key(one.account) == key)
        return self._catalogues[key]

    def follow(self, directory: Directory) -> None:
        """Serve what the directory has, and nothing else. What has not changed stays the same object."""
        assert self._serve is not None
        before, known = self._served, self._records
        now: dict[str, Served] = {}
        records: dict[str, DeploymentRecord] = {}
        for account in directory.accounts:
            for record in directory.deployments(account.id):
                label = record.name if account is directory.accounts[0] else f"{account.subdomain}/{record.name}"
                if label in records:
                    # An account that was made before another was declared with its subdomain.
                    label = record.id
                served = before.get(label) if known.get(label) == record else self._served_by(record, label)
                records[label] = record
                if served is not None:
                    now[label] = served
        self._served, self._records, self._catalogues = now, records, {}

    def _served_by(self, record: DeploymentRecord, label: str) -> Served | None:
        assert self._serve is not None
        if record.provisioning_state != "Succeeded":
            return None
        try:
            served = self._serve(record, label)
        except ConfigError as fault:
            if record.declared:
                raise
            logger.warning("deployment %s cannot be used: %s", record.id, fault.problem)
            return None
        if served is None:
            logger.warning("deployment %s cannot be used: nothing here does the work of its model", record.id)
        return served

    def provisioned(self) -> Iterator[tuple[str, ProvisionedLimiter]]:
        """Label and limiter of every deployment whose throughput is provisioned."""
        for label, served in self._served.items():
            limiter = served.quota.first if isinstance(served.quota, SpillOver) else served.quota
            if isinstance(limiter, ProvisionedLimiter):
                yield label, limiter

    async def refresh_utilization(self) -> None:
        """Learn what other processes have used of provisioned throughput."""
        for _, one in list(self.provisioned()):
            await one.refresh()

    def failing(self) -> list[str]:
        """Kind and name of every engine that says that it does not work now."""
        return [f"{kind} {name}" for kind, name in self.engines.failing()]


@asynccontextmanager
async def open_deployments(
    config: Config,
    registry: Registry | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
    shared: SharedState | None = None,
    instead: Substitution | None = None,
    watches: Watches | None = None,
    directory: Directory | None = None,
) -> AsyncIterator[Deployments]:
    """Make and start the engines, serve within the block, close the engines at its end.

    ``registry``: None for the installed engines; ``clock``: monotone seconds for the quotas; ``shared``: where
    they count, None for counters of this process; ``instead``: what to use in the place of an engine, whose limits
    and watch are then where it is; ``directory``: what is served at first, None for what the configuration
    declares. Raises :class:`ConfigError` and :class:`EngineStartError` on the way in.
    """
    made = dict(build_engines(config, registry or Registry.installed()))
    used = {key: engine if instead is None else instead(key, engine) for key, engine in made.items()}
    here = _behind_gates(config, ((key, engine) for key, engine in used.items() if engine is made[key]), watches)
    engines = EngineSet(used | dict(here))
    for name in config.unused_engines():
        logger.warning("engine.%s is used by no deployment", name)
    recipes = Recipes(config)
    catalogue = catalogue_of(config)
    state = shared or MemoryState()

    def serve(record: DeploymentRecord, label: str) -> Served | None:
        work = recipes.work(record)
        if work is None:
            return None
        one = Deployment.of_record(record, work, label, catalogue)
        return Served(
            one,
            engines.recipe(one),
            _spilling(one, _limiter(one, one.label, clock, state), deployments),
            _limiter(one, one.allowance_name, clock, state) if one.speculate else None,
            _connections(one, clock, state),
        )

    deployments = Deployments(engines=engines, serve=serve)
    deployments.follow(Declared(config).directory() if directory is None else directory)
    await engines.start()
    try:
        yield deployments
    finally:
        await engines.close()


def _spilling(one: Deployment, limiter: Limiter, deployments: Deployments) -> Limiter:
    name = one.spillover
    if name is None or not isinstance(limiter, ProvisionedLimiter):
        return limiter

    def other() -> Limiter | None:
        """Of the account as it is when it is needed."""
        found = deployments.catalogue(one.account).by_name(name)
        # One that is provisioned has a spill-over of its own, and two could hand on to each other for ever.
        return None if found is None or found.provision is not None else deployments[found.label].quota

    return SpillOver(limiter, other)


def _connections(one: Deployment, clock: Callable[[], float], shared: SharedState) -> ConnectionRate | None:
    if one.connections_per_minute is None:
        return None
    return ConnectionRate(one.connections_per_minute, shared, one.label, clock)


def _limiter(one: Deployment, name: str, clock: Callable[[], float], shared: SharedState) -> Limiter:
    if one.provision is not None:
        return ProvisionedLimiter(one.provision, shared, name, clock)
    limits = RateLimits(one.tokens_per_minute, one.requests_per_minute, one.request_window_s)
    return limiter(limits, shared, name, clock)


@asynccontextmanager
async def open_engines(
    config: Config,
    wanted: Callable[[Engine], bool],
    registry: Registry | None = None,
    watches: Watches | None = None,
) -> AsyncIterator[EngineSet]:
    """Make and start those engines of the configuration that are ``wanted``, without deployments; close them at the
    end of the block. Raises :class:`ConfigError` and :class:`EngineStartError` on the way in.
    """
    made = build_engines(config, registry or Registry.installed())
    kept = _behind_gates(config, ((key, engine) for key, engine in made if wanted(engine)), watches)
    await kept.start()
    try:
        yield kept
    finally:
        await kept.close()
