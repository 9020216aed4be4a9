"""The data folder: what the server must remember, readable by its user alone.

Several processes may open it at once; whoever is first makes what is missing.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from vivavoce.config.tables import Config
from vivavoce.config.values import ConfigError, Secret


def open_data_folder(config: Config) -> Path:
    """The folder of ``[server] data``, made if it is not there. Raises :class:`ConfigError`."""
    folder = config.data_folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError("server.data", f"{folder} cannot be made: {error.strerror or error}") from None
    return folder


def kept_secret(folder: Path, name: str) -> Secret:
    """The secret of this name in the data folder: 256 random bits, made when it is first asked for. Raises
    :class:`ConfigError`."""
    file = folder / name
    try:
        if not file.exists():
            made = folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
            try:
                with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                    out.write(secrets.token_hex(32) + "\n")
                # Whole or not at all, and never instead of another's.
                with suppress(FileExistsError):
                    os.link(made, file)
            finally:
                made.unlink(missing_ok=True)
        text = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError("server.data", f"{file} cannot be used: {error.strerror or error}") from None
    if len(text) < 32:
        raise ConfigError("server.data", f"{file} holds no secret of ours")
    return Secret(text)


def private_file(folder: Path, name: str) -> Path:
    """A file in the data folder that its user alone may read and write, empty if it is new. Raises
    :class:`ConfigError`."""
    file = folder / name
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigError("server.data", f"{file} cannot be used: {error.strerror or error}") from None
    return file
