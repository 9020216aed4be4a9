"""Whose is a request header, and may it come back? (protocol section 1.3: the cap of 10, and the reason for it)"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from vivavoce.gateway.auth import tells_a_secret

# Headers that protocols, browsers, client libraries, tracers and proxies set by themselves; all others are the
# caller's own. Whoever puts a server behind one more proxy must not find its callers refused.
_USUAL_HEADERS: Final = frozenset(
    {
        "api-key", "apikey", "authorization", "b3", "baggage", "cache-control", "cdn-loop", "client-ip",
        "connect-time", "connection", "content-length", "content-type", "cookie", "date", "device-memory",
        "disguised-host", "dnt", "downlink", "dpr", "ect", "elastic-apm-traceparent", "expect", "forwarded",
        "from", "host", "keep-alive", "max-forwards", "newrelic", "origin", "pragma", "priority", "proxy",
        "proxy-authorization", "proxy-connection", "purpose", "range", "referer", "request-id", "rtt",
        "save-data", "sentry-trace", "te", "total-route-time", "traceparent", "tracestate", "trailer",
        "transfer-encoding", "true-client-ip", "uber-trace-id", "upgrade", "upgrade-insecure-requests",
        "user-agent", "via", "viewport-width", "was-default-hostname", "x-api-key", "x-client-data",
        "x-client-ip", "x-cluster-client-ip", "x-correlation-id", "x-host", "x-http-method-override",
        "x-real-ip", "x-request-id", "x-request-start", "x-requested-with", "x-scheme", "x-site-deployment-id",
        "x-timer", "x-varnish",
    }
)  # fmt: skip
_USUAL_PREFIXES: Final = (
    "accept", "akamai-", "cf-", "cloudfront-", "fastly-", "fly-", "if-", "ngrok-", "ocp-apim-", "openai-",
    "proxy-", "rndr-", "sec-", "ssl-", "x-akamai-", "x-amz-", "x-amzn-", "x-appengine-", "x-appgw-", "x-arr-",
    "x-auth-request-", "x-azure-", "x-b3-", "x-cloud-", "x-datadog-", "x-envoy-", "x-fd-", "x-forwarded",
    "x-goog-", "x-haproxy-", "x-istio-", "x-ms-", "x-nf-", "x-nginx-", "x-original-", "x-ot-", "x-ssl-",
    "x-stainless-", "x-traefik-", "x-vercel-", "x-waws-",
)  # fmt: skip

# What an answer says to browsers, caches and proxies: a request may not put it there.
_ANSWER_HEADERS: Final = frozenset(
    {
        "age", "alt-svc", "apim-request-id", "clear-site-data", "etag", "expires", "last-modified", "link",
        "location", "nel", "origin-agent-cluster", "p3p", "permissions-policy", "pragma", "public-key-pins",
        "referrer-policy", "refresh", "report-to", "reporting-endpoints", "retry-after", "retry-after-ms",
        "server", "server-timing", "set-cookie", "set-cookie2", "sourcemap", "speculation-rules", "status",
        "strict-transport-security", "supports-loading-mode", "timing-allow-origin", "tk", "vary", "warning",
        "www-authenticate", "x-frame-options", "x-powered-by", "x-reproxy-url", "x-robots-tag", "x-sendfile",
        "x-sourcemap", "x-ua-compatible", "x-xss-protection",
    }
)  # fmt: skip
_ANSWER_PREFIXES: Final = (
    "access-control-", "allow", "azureml-", "content-", "cross-origin-", "surrogate-", "x-accel-", "x-content-",
    "x-dns-", "x-lighttpd-", "x-litespeed-", "x-permitted-", "x-ratelimit-", "x-webkit-",
)  # fmt: skip
# Proxies keep the head of an answer in 4 kB.
_RETURNED_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RETURNED_VALUE: Final = re.compile(r"[\x20-\x7e]{0,256}")


def custom_headers(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The header lines that are the caller's own: not of HTTP, WebSocket, authentication, tracing, a client library
    (``x-stainless-``, ``x-ms-``) or a proxy.
    """
    return [(name, value) for name, value in headers if not _is_usual(name.lower())]


def returned_headers(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The custom header lines that the upgrade on the Azure preview path repeats (protocol section 1.3).

    Left out are lines that could be a secret by their name, that mean something in an answer, or that are no plain
    ASCII of at most 64 (name) and 256 (value) characters.
    """
    return [(name, value) for name, value in custom_headers(headers) if _may_return(name, value)]


def _may_return(name: str, value: str) -> bool:
    low = name.lower()
    return (
        low not in _ANSWER_HEADERS
        and not low.startswith(_ANSWER_PREFIXES)
        and not tells_a_secret(low)
        and _RETURNED_NAME.fullmatch(name) is not None
        and _RETURNED_VALUE.fullmatch(value) is not None
    )


def _is_usual(name: str) -> bool:
    return name in _USUAL_HEADERS or name.startswith(_USUAL_PREFIXES)
