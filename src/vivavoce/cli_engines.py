"""What the command line does with engines beside serving: start them to see whether they work, and measure them."""

from __future__ import annotations

import statistics
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
import rich.box
import typer
from rich.console import Console
from rich.table import Table

from vivavoce import __version__
from vivavoce.config import Config, Tokenizer
from vivavoce.engines.registry import (
    Engine,
    EngineError,
    EngineInfo,
    EngineOptionsError,
    EngineUnavailable,
    Registry,
    Watched,
    describe,
)
from vivavoce.gateway.deployments import build_engines

if TYPE_CHECKING:
    from vivavoce.engines.measure import Material

O200K_PACKAGE: Final = "bpe-openai"
NOISE_PACKAGE: Final = "webrtc-noise-gain"
_FAILED: Final = 1
_PIPED_WIDTH: Final = 10_000


async def configured(config: Config, registry: Registry, *, check: bool) -> int:
    """Print a row for each engine that a deployment uses. Returns the exit code: do all of them work, as far as was
    checked? Raises ConfigError."""
    table = Table("kind", "name", "plug-in", "version", "limit", "health", "what it can do")
    code = 0
    for (kind, name), engine in build_engines(config, registry):
        settings = config.engines.get(name)
        configured = settings is not None and settings.kind == kind
        limit = str(settings.max_concurrent or "") if settings is not None and configured else ""
        health = await _health(engine) if check else "not started"
        code = code if health.startswith(("works", "not started")) else _FAILED
        table.add_row(kind, name, engine.name, engine.version, limit, health, describe(engine))
    print_table(table)
    return code


async def _health(engine: Engine) -> str:
    """Of an engine that is started, looked at and closed."""
    began = time.monotonic()
    try:
        await engine.start()
        took = time.monotonic() - began
        works = not isinstance(engine, Watched) or engine.working
        return f"works, started in {took:.1f} s" if works else "does not work, though it started"
    except EngineError as error:
        return f"does not start: {error.message}"
    except Exception as error:
        return f"does not start: {type(error).__name__}"
    finally:
        await engine.close()


async def measured(config: Config, material: Material, runs: int, *, as_json: bool) -> int:
    """Print what each engine that a deployment uses takes. Returns the exit code: did all of them do their work?
    Raises ConfigError."""
    from vivavoce.engines.measure import measure

    table = Table("kind", "name", "version", "figure", "median", "least", "most")
    told: list[dict[str, Any]] = []
    code = 0
    for (kind, name), engine in build_engines(config, Registry.installed()):
        row: dict[str, Any] = {"kind": kind, "name": name, "plug_in": engine.name}
        try:
            await engine.start()
            measured = await measure(engine, material, runs)
        except EngineError as error:
            code = _FAILED
            row["fault"] = {"code": error.code, "message": error.message}
            table.add_row(kind, name, engine.version, f"{error.code}: {error.message}")
        except Exception as bug:
            code = _FAILED
            row["fault"] = {"code": "bug", "message": type(bug).__name__}
            table.add_row(kind, name, engine.version, f"a bug: {type(bug).__name__}")
        else:
            row["version"] = engine.version
            row["runs"] = measured
            for figure in measured[0]:
                values = sorted(run[figure] for run in measured)
                spread = (statistics.median(values), values[0], values[-1])
                table.add_row(kind, name, engine.version, figure, *(f"{value:.3g}" for value in spread))
        finally:
            await engine.close()
        told.append(row)
    if as_json:
        typer.echo(msgspec.json.encode({"engines": told}))
    else:
        print_table(table)
    return code


def list_installed(registry: Registry) -> None:
    """Print the engines of this environment, with what else can be installed."""
    table = Table("kind", "name", "version", "package", "what it can do")
    for info in registry.available():
        package = f"{info.distribution} {info.version}".strip()
        version, ability = _try(registry, info)
        table.add_row(info.kind, info.name, version, package, ability)
    for name in get_args(Tokenizer):
        table.add_row("tokenizer", name, *_try_tokenizer(name))
    table.add_row("noise reduction", "webrtc", *_try_noise_reduction())
    print_table(table)


def _try(registry: Registry, info: EngineInfo) -> tuple[str, str]:
    """Version and abilities of an engine with default options, or why they are unknown."""
    try:
        engine = registry.create(info.kind, info.name, {})
    except EngineOptionsError as error:
        return "", f"needs options: {error}"
    except EngineUnavailable as error:
        return "", f"does not work: {error.problem}"
    return engine.version, describe(engine)


def _try_tokenizer(name: Tokenizer) -> tuple[str, str, str]:
    """Version, package and ability of a way to count the tokens of text."""
    if name == "estimate":
        return __version__, f"vivavoce {__version__}", "estimates the tokens of text"
    try:
        version = metadata.version(O200K_PACKAGE)
    except metadata.PackageNotFoundError:
        return "", "", "does not work: pip install 'vivavoce[o200k]' installs it"
    return version, f"{O200K_PACKAGE} {version}", "counts the tokens of text exactly"


def _try_noise_reduction() -> tuple[str, str, str]:
    try:
        version = metadata.version(NOISE_PACKAGE)
    except metadata.PackageNotFoundError:
        return "", "", "does not work: pip install 'vivavoce[noise-reduction]' installs it"
    return version, f"{NOISE_PACKAGE} {version}", "near_field, far_field"


def print_table(table: Table) -> None:
    """At its own width when piped, so that no cell is wrapped for another program."""
    table.box = rich.box.SIMPLE_HEAD
    for column in table.columns:
        column.overflow = "fold"
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=_PIPED_WIDTH)
    console.print(table)
