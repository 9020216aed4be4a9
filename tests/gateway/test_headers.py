from __future__ import annotations

import pytest

from vivavoce.gateway.headers import custom_headers, returned_headers


def test_headers_of_clients_browsers_and_proxies_are_not_custom() -> None:
    usual = [
        "Host", "Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Protocol", "Sec-Fetch-Mode", "User-Agent", "Origin", "Accept", "Accept-Language",
        "Accept-Encoding", "Cache-Control", "Pragma", "Cookie", "Authorization", "api-key", "OpenAI-Beta",
        "OpenAI-Organization", "X-Forwarded-For", "X-Forwarded-Proto", "Via", "X-Real-IP", "traceparent",
        "tracestate", "x-ms-client-request-id", "x-ms-useragent", "x-stainless-lang", "X-Request-ID",
    ]  # fmt: skip
    own = [("X-Tenant", "1"), ("My-Header", "2"), ("My-Header", "3")]
    assert custom_headers([(name, "v") for name in usual] + own) == own


BEHIND = {
    "nginx": "X-Real-IP X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port X-Scheme X-Request-ID",
    "ingress": "X-Original-URI X-Original-Forwarded-For X-Auth-Request-User ssl-client-verify X-Forwarded-Scheme",
    "envoy": "x-envoy-external-address x-envoy-expected-rq-timeout-ms x-b3-traceid b3 x-ot-span-context",
    "cloudflare": "CF-Ray CF-Connecting-IP CF-IPCountry CF-Visitor cdn-loop True-Client-IP",
    "aws": "X-Amzn-Trace-Id X-Amz-Cf-Id CloudFront-Viewer-Country Via X-Amzn-Mtls-Clientcert",
    "azure": "X-Azure-Ref X-Azure-ClientIP X-FD-HealthProbe X-ARR-LOG-ID X-ARR-SSL x-appgw-trace-id CLIENT-IP "
    "DISGUISED-HOST WAS-DEFAULT-HOSTNAME X-SITE-DEPLOYMENT-ID X-WAWS-Unencoded-URL Max-Forwards X-Original-URL",
    "google": "X-Cloud-Trace-Context X-Goog-IAP-JWT-Assertion X-AppEngine-Country X-Client-Data",
    "heroku and fly": "X-Request-Start Connect-Time Total-Route-Time Fly-Client-IP Fly-Region Fly-Request-Id",
    "tracers": "traceparent tracestate baggage sentry-trace x-datadog-trace-id newrelic X-Correlation-ID",
}


@pytest.mark.parametrize("proxy", BEHIND)
def test_a_proxy_in_front_costs_the_caller_nothing(proxy: str) -> None:
    mine = [(f"My-{n}", "x") for n in range(10)]
    assert custom_headers([*mine, *((name, "v") for name in BEHIND[proxy].split())]) == mine


RETURNED = [
    ("My-Header", "a b, c"),
    ("My-Header", "again"),
    ("x-tenant", ""),
    ("X_Odd", "~!@#"),
    ("N" * 64, "v" * 256),
]

NOT_RETURNED = [
    ("Host", "usual"), ("Upgrade", "usual"), ("X-Forwarded-For", "usual"), ("api-key", "usual"),
    # secrets, by their names
    ("X-Auth", "s"), ("My-Token", "s"), ("my-secret", "s"), ("X-Functions-Key", "s"), ("My-Password", "s"),
    ("X-Session-Id", "s"), ("X-CSRF-Token", "s"), ("X-Authentication", "s"), ("My-JWT", "s"), ("sig", "s"),
    ("X-Cookie-Jar", "s"), ("db-pwd", "s"), ("Client-Credentials", "s"), ("X-Hub-Signature", "s"),
    # what means something in an answer
    ("Set-Cookie", "a=b"), ("Location", "/"), ("X-Accel-Redirect", "/"), ("X-Sendfile", "/"), ("Allow", "GET"),
    ("Access-Control-Allow-Origin", "*"), ("Content-Security-Policy", "x"), ("Server", "x"), ("Alt-Svc", "x"),
    ("Strict-Transport-Security", "x"), ("X-Content-Type-Options", "x"), ("Clear-Site-Data", "x"), ("Vary", "*"),
    ("retry-after", "1"), ("apim-request-id", "x"), ("openai-version", "x"), ("x-ratelimit-limit-tokens", "1"),
    # what would break an answer, or its reader
    ("My-Header", "a\r\nSet-Cookie: b"), ("My-Header", "\x00"), ("My-Header", "h\xe4"), ("My-Header", "\udcff"),
    ("My-Header", "v" * 257), ("N" * 65, "v"), ("My Header", "v"), ("My-H\xe4der", "v"), ("", "v"),
]  # fmt: skip


def test_what_comes_back() -> None:
    assert returned_headers([*NOT_RETURNED, *RETURNED]) == RETURNED


@pytest.mark.parametrize("line", NOT_RETURNED)
def test_what_does_not_come_back(line: tuple[str, str]) -> None:
    assert returned_headers([line]) == []
