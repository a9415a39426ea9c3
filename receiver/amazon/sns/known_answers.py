"""Pure. Test vectors for signature checks: a certificate, a text, and its two signatures.

The private key was generated for this and thrown away.
"""

from __future__ import annotations

from typing import Final

CERTIFICATE: Final = b"""\
-----BEGIN CERTIFICATE-----
MIICyTCCAbGgAwIBAgIBATANBgkqhkiG9w0BAQsFADAfMR0wGwYDVQQDDBRrbm93
bi1hbnN3ZXIuaW52YWxpZDAeFw0yMDAxMDEwMDAwMDBaFw0yMTAxMDEwMDAwMDBa
MB8xHTAbBgNVBAMMFGtub3duLWFuc3dlci5pbnZhbGlkMIIBIjANBgkqhkiG9w0B
AQEFAAOCAQ8AMIIBCgKCAQEA1QybYQsA31ZfkpKXhpv5xeKGV5Y99x9R6Ftec9WJ
qAjKGQsfbe66eAEQVQCmEQs1isnayY5Yp9pXEluILU7agGDznBslJMzGhPYESqh1
pgi7YSpQ4Usjc0xLgjfeQKO5xLURDTwodRIw+TAwOJUOAkL8V2a9UlbQxwSLU9u6
VC6o/7vk3W7AALxNOh4Z/WSsL8bNCz30yh3cBnOA/pSQb8BdGO9tUSYvrQ0qfrpU
NtFEm8yjncrlPZxuSwaLImwasIsogQDlzgGYg4/hCvUAkwXnj1w+dibbdDyZI3Zh
8kh4ZEA9MZn63dpdX6eFhFFzD1DPp5XiB5ZsJxjmRPuw0QIDAQABoxAwDjAMBgNV
HRMBAf8EAjAAMA0GCSqGSIb3DQEBCwUAA4IBAQAqJn0C82JtTsH6iFz1MpjCvmN4
PJVjjQ9mY7uN1Csy88Grk6LFW6wGK8EJ8dnPsAB1q9eGKfvFhvesl5cilfx0O19k
AUz0Srk7ZBaQUYlyc8FOHLK20sRj51JKJdy3Ji7Fx8cwP+Z/4z++YTCFqJfMjwPE
RO34ifuqLUyF4xlUF/P2N9cpKOuBciHmxKPg9PuILd/S64HqqLQcZz8FLU7/snDG
8/UuduWuzrkfcoDfhn9oqmPVc3nIV5ES8R6T1KQZIbRC35sUdpGwR4Q9C1H2BMaC
2VEFEQUu+LoVpmzNpceMc48doChNocGOLgFlxO1cBwJihxzITHdLadqd02xZ
-----END CERTIFICATE-----
"""

TEXT: Final = b"Message\nknown answer\n"

SIGNATURES: Final = {
    1: (
        "gCzc1kzMcUHOw2ZqKRX8aGe5Dmc1jii5kz4te1YVgjti52K8T0FkrX1mWbRrPlgcgC/9e1cRlSyLdmtvCgp7uU"
        "bo1CvPYi2baXFrZVEMyWRq8qS1q2miA06zuFyol/zphq5wRFfWLhyTz3Adt05wYNRKCt1QtVXY+hL427i0kKuM"
        "7lm928MMrMo+s32A5FUIeHWxeAfcGr/SbaEYSsDgV9u8jMdcx7aGXm0gEUxbmEYKaWi5+TJCFOuhlv5wiyEYxP"
        "p30BS5Yl8ps1RsQdZl/3b8vvsFnOsqeeU7MQs0hKC1Zuln0adVOIxv9VoM8LKM2A87emppXSaFczFV6NugMg=="
    ),
    2: (
        "b8YdTtl+MVRVlWndgv0Z8Ql3nJ3S/ZOzWaqmHKU++Hy5aqUvwQNqTu1kZRCjbcvj/N+VX+0mQxclXxMofitV56"
        "tX5ksspZpoDyucz7BMG3sCBDq4JYeVRMdJ3AID72JoS7aeSaknSm6d6Bc0+9JAVfQoOgYFfgc+MRydKr0cT9pE"
        "Rh2X9LPAv2IHHk22phTKXPZMPg6Sx9afbgC1RGEJw+qw7MpkVkWxMjcFLUanQXV4mxoc9QWI+QTa4fSb/5dGWF"
        "+r+mRLDVRLN7M6gQ9TNTK3C3gjBe+tvUZdmrxsKw+siETIg4ackQ1KtlqpHII3gEc+YnPOTuYi1LL8FTAajg=="
    ),
}
"""`SignatureVersion` → base64 of the signature of `TEXT`: 1 with SHA-1, 2 with SHA-256."""
