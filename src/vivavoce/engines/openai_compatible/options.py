"""The options that all engines of this package have: where the server is, and how long to wait for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from vivavoce.engines.base import EngineError, EngineOptionsError, JsonObject
from vivavoce.engines.builtin.worker_options import convert_options

PATH_OPTIONS: Final = ("ca_file",)

VOICES: Final = (
    *("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse"),
    *("marin", "cedar"),
)
"""The protocol's, which OpenAI's own models have too."""

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=3600)]

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_KEY: Final = re.compile(r"[\x21-\x7e]+")


class ConnectionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``repr`` leaves out what may be secret."""

    base_url: Text
    """Where ``/models`` and the others are; mostly it ends with ``/v1``. With ``api_version``: the resource."""
    model: Text
    api_key: str | None = None
    api_version: Text | None = None
    """Given for Azure OpenAI alone: ``model`` is the deployment then, and the key travels as ``api-key``."""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    """More headers of every request."""
    proxy: Text | None = None
    ca_file: Text | None = None
    """PEM file of the authorities to trust instead of the usual ones."""
    connect_timeout_s: Seconds = 5.0
    first_token_timeout_s: Seconds = 30.0
    """From the request to the first of its answer, with all that is tried again."""
    between_tokens_timeout_s: Seconds = 15.0
    total_timeout_s: Seconds = 300.0
    max_retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 2
    max_connections: Annotated[int, msgspec.Meta(ge=1)] | None = None
    check: Literal["fail", "warn", "off"] = "warn"
    """What to do at the start when the server cannot be reached, refuses the key or does not list the model."""
    warm_up: bool = False
    """Ask something small at the start, so that the server has loaded the model."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r}, model={self.model!r}, ...)"

    def __post_init__(self) -> None:
        """Raises EngineOptionsError."""
        _check_url("base_url", self.base_url)
        if self.proxy is not None:
            _check_url("proxy", self.proxy, userinfo=True)
        if self.api_key is not None and not _KEY.fullmatch(self.api_key):
            raise EngineOptionsError("api_key", "a key is one or more printable ASCII characters, without spaces")
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise EngineOptionsError(f"headers.{name}", "cannot be sent as a header")

    def url(self, path: str) -> str:
        """Of ``path``, such as ``chat/completions``."""
        base = self.base_url.rstrip("/")
        if self.api_version is None:
            return f"{base}/{path}"
        deployment = "" if path == "models" else f"deployments/{quote(self.model, safe='')}/"
        query = urlencode({"api-version": self.api_version})
        return f"{base.removesuffix('/openai')}/openai/{deployment}{path}?{query}"

    def all_headers(self) -> dict[str, str]:
        key = {}
        if self.api_key is not None:
            azure = self.api_version is not None
            key = {"api-key": self.api_key} if azure else {"authorization": f"Bearer {self.api_key}"}
        return {**key, **self.headers}

    def quotes(self, text: str) -> bool:
        """Whether it has a header of ours in it, or the greater part of one: a server may say what it refuses."""
        sent = [value.removeprefix("Bearer ") for value in self.all_headers().values()]
        return any((value and value in text) or (text in value and 2 * len(text) > len(value)) for value in sent)


def voice_map(voice: str | None, voices: Mapping[str, str]) -> dict[str, str]:
    """Protocol voice -> the server's. ``voice`` is for all that ``voices`` does not name; None: they keep their
    names. Raises EngineOptionsError."""
    for name in voices:
        if name not in VOICES:
            raise EngineOptionsError(f"voices.{name}", f"is none of {', '.join(VOICES)}")
    return {name: voices.get(name, voice or name) for name in VOICES}


def chosen_voice(voices: Mapping[str, str], voice: str) -> str:
    """The server's name of a protocol voice. Raises EngineError."""
    if voice not in voices:
        raise EngineError("unknown_voice", f"There is no voice {voice}.", type="invalid_request_error")
    return voices[voice]


_Options = TypeVar("_Options", bound=ConnectionOptions)


def read_options(options: JsonObject, struct: type[_Options], reserved: frozenset[str]) -> _Options:
    """``reserved``: what ``extra_body`` may not hold. Raises EngineOptionsError."""
    read = convert_options(options, struct)
    for key in getattr(read, "extra_body", {}):
        if key in reserved:
            raise EngineOptionsError(f"extra_body.{key}", "this field of a request is not free")
    return read


def _check_url(option: str, url: str, *, userinfo: bool = False) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise EngineOptionsError(option, "is no URL") from None
    if not good:
        raise EngineOptionsError(option, "expected a URL that begins with http:// or https://")
    if not userinfo and "@" in parts.netloc:
        raise EngineOptionsError(option, "a key belongs into api_key, not into the URL")
    if parts.query or parts.fragment:
        raise EngineOptionsError(option, "expected a URL without ? and #")
