"""TLS of the listening socket."""

from __future__ import annotations

import ssl

from vivavoce.config import ConfigError, ServerSettings


def server_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """TLS 1.2 and newer, with the ciphers that Python deems good; None without ``tls_cert``.

    Raises :class:`ConfigError` when certificate and key cannot be used.
    """
    if settings.tls_cert is None:
        return None
    cert, key = settings.tls_cert, settings.tls_key or settings.tls_cert
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    asked: list[str] = []

    def no_password() -> str:
        # Without this OpenSSL would ask on the terminal, and a service would wait for ever.
        asked.append(key)
        return ""

    try:
        context.load_cert_chain(cert, key, no_password)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror
        if asked:
            problem = f"the key in {key} has a password; write it without one: openssl pkey -in {key}"
        elif reason == "KEY_VALUES_MISMATCH":
            problem = f"the key in {key} is not the one of the certificate in {cert}"
        else:
            problem = f"{cert} with {key} cannot be used: {reason}"
        raise ConfigError("TLS", problem) from None
    return context
