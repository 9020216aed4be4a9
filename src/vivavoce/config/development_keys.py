"""The private keys of the development issuer, in the data folder: readable by its user alone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from vivavoce.config.values import ConfigError

_FILE: Final = "development-issuer.json"


def development_keys(folder: Path, make: Callable[[], bytes]) -> bytes:
    """What is kept, made when it is first asked for; of processes that are first together one wins. Raises
    :class:`ConfigError`."""
    file = folder / _FILE
    try:
        if not file.exists():
            made = _written(folder, make())
            try:
                # Whole or not at all, and never instead of another's.
                with suppress(FileExistsError):
                    os.link(made, file)
            finally:
                made.unlink(missing_ok=True)
        return file.read_bytes()
    except OSError as error:
        raise _unusable(file, error) from None


def replace_development_keys(folder: Path, content: bytes) -> None:
    """Raises :class:`ConfigError`."""
    file = folder / _FILE
    try:
        _written(folder, content).replace(file)
    except OSError as error:
        raise _unusable(file, error) from None


def _written(folder: Path, content: bytes) -> Path:
    file = folder / f".{_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    return file


def _unusable(file: Path, error: OSError) -> ConfigError:
    return ConfigError("development_issuer", f"{file} cannot be used: {error.strerror or error}")
