"""Edge: Redis. Error codes for failed TLS handshakes with Redis.

The numbers are `X509_V_ERR_…` of OpenSSL's x509_vfy.h.
"""

from __future__ import annotations

import ssl

EXPIRED, HOSTNAME_MISMATCH, ADDRESS_MISMATCH = 10, 62, 64
WORDS = {EXPIRED: "tls_expired", HOSTNAME_MISMATCH: "tls_wrong_host", ADDRESS_MISMATCH: "tls_wrong_host"}
UNTRUSTED, FAILED = "tls_untrusted", "tls_failed"
TLS_KINDS = frozenset({*WORDS.values(), UNTRUSTED, FAILED})


def tls_kind(error: BaseException) -> str:
    """The error code; empty if TLS is not what failed. The client library wraps the original error."""
    reason = error if isinstance(error, ssl.SSLError) else error.__cause__ or error.__context__
    if isinstance(reason, ssl.SSLCertVerificationError):
        return WORDS.get(reason.verify_code, UNTRUSTED)
    return FAILED if isinstance(reason, ssl.SSLError) else ""
