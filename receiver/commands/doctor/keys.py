"""Edge: OpenSSL. Whether this machine can check Amazon's signatures, and whether our own keys sign."""

from __future__ import annotations

import asyncio

from receiver.amazon.account import Account
from receiver.amazon.calls import get_refund, key_environment
from receiver.amazon.sns.signature import self_test
from receiver.commands.doctor.finding import Finding, fail, ok
from receiver.commands.doctor.site import Site
from receiver.errors import ConfigurationError

PROBES = {"sandbox": "S01-0000000-0000000-R000000", "live": "P01-0000000-0000000-R000000"}
"""Environment → a refund id of the right form that belongs to nothing."""


async def check_crypto() -> list[Finding]:
    """Known answers of RSA with SHA-1 and SHA-256, by the code that checks notifications."""
    try:
        await asyncio.to_thread(self_test)
    except ConfigurationError as error:
        fix = "The service does not start until this works. Check the crypto policy of this system."
        return [fail("crypto.signatures", "hash_forbidden", problem, fix) for problem in error.problems]
    return [ok("crypto.signatures", "RSA with SHA-1 and SHA-256 verifies known answers")]


async def check_keys(site: Site) -> list[Finding]:
    """Each private key signs a request, and its public half verifies it."""
    return [await asyncio.to_thread(_check_key, account, site.system_clock()) for account in site.accounts]


def _check_key(account: Account, now: int) -> Finding:
    check, signer = "keys.private_key", account.signer
    signed = signer.sign(get_refund(account.endpoint, PROBES[account.environment]), now)
    if not signer.verifies(signed):
        fix = "Restore private_key_file, or create a new key pair in Seller Central (Integration Central)."
        found = "the key is damaged: its public half does not verify what it signs"
        return fail(check, "key_damaged", found, fix, account.name)
    environment = key_environment(signer.public_key_id)
    prefix = f"its id begins with {environment.upper()}-" if environment else "its id does not name an environment"
    found = f"signs with {signer.algorithm}, {signer.bits} bits; {prefix}, the account is {account.environment.value}"
    return ok(check, found, account.name)
