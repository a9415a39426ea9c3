"""Edge: the web. Maps errors of the HTTP library to the reasons of `client.py` and to messages."""

from __future__ import annotations

import ssl

import aiohttp


class GarbledBody(aiohttp.ClientPayloadError):
    """A body that violates HTTP."""


def judged(error: Exception) -> tuple[str, str]:
    """The reason and a message."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return "timeout", "no connection in time"
        case TimeoutError():
            return "timeout", "no complete answer in time"
        case aiohttp.ClientConnectorDNSError():
            return "dns_failed", error.os_error.strerror or "the name has no address"
        case aiohttp.ClientSSLError():
            return "tls_failed", f"TLS failed ({_verify_message(error)})"
        case aiohttp.ClientConnectorError():
            return "connect_failed", f"no connection ({error.os_error.strerror or 'refused'})"
        case aiohttp.InvalidURL():
            return "bad_url", "the address cannot be used"
        case aiohttp.ClientResponseError():
            return "bad_answer", error.message or "the answer is not HTTP"
        case GarbledBody():
            return "bad_answer", "the body of the answer violates HTTP"
        case _:
            return "cut", "the connection ended before the answer did"


def _verify_message(error: Exception) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return str(cause.reason or "no handshake") if isinstance(cause, ssl.SSLError) else "no handshake"
