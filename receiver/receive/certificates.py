"""Edge: Caches signing certificates; fetches missing ones, with limits.

A stranger who knows an allowed topic can name any certificate file of SNS, so everything is bounded: fetches (by
`receive/fetch_queue.py`, in shares per client), files that have not verified a message yet, and remembered failures. A
certificate that has verified a message is *proven*; an unproven one never evicts it. Proven ones are also kept in the
store, so that after a restart genuine notifications do not queue behind strangers' fetches. A fetched file is trusted
because of TLS to the region's only host, as in AWS's own SDKs; no certificate chain is built.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeVar

import structlog

from receiver.amazon.sns.certificate import SigningCertificate, decode_pem, file_hash, read_der
from receiver.amazon.sns.envelope import Envelope
from receiver.amazon.sns.signature import PAST_MS, read_address
from receiver.errors import (
    CertificateUnavailable,
    ConfigurationError,
    ReceiverError,
    StoreUnavailable,
    TransportError,
    Unavailable,
    VerificationFailed,
)
from receiver.receive.fetch_queue import FetchQueue
from receiver.store import Store

PROVEN_MAX, UNPROVEN_MAX, FAILED_MAX = 16, 8, 1024
UNPROVEN_MS, FAILED_MS, TROUBLE_MS = 60_000, 60_000, 5_000

Key = tuple[str, str]
"""(AWS partition, file hash): all regions of a partition share the file."""

Md5 = Literal["enforce", "warn"]

SYNC_EVERY = 30.0
"""Seconds between two reads of certificates proven by other processes."""

V = TypeVar("V")

log = structlog.get_logger()


class CertificateStore:
    """Returns the certificate that an envelope names, after every check except the signature itself.

    `fetch(url)` returns the file, or raises `TransportError` (a temporary failure) or `CertificateUnavailable` (the
    host answered without a file). `pinned` maps a `SigningCertURL` to its PEM; pinned files get the same checks and are
    never fetched. `md5` sets what happens if a file does not match its name: `enforce` refuses it for now (503), `warn`
    only logs an error. A stored certificate is trusted if it is sealed with one of the `seal_keys`, so write access to
    the store is not enough to plant one. Timeouts are in seconds: for one fetch, and for one envelope's wait. Raises
    `ConfigurationError` if a pinned certificate cannot be used.
    """

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[bytes]],
        now: Callable[[], int],
        *,
        pinned: Mapping[str, bytes] = MappingProxyType({}),
        md5: Md5 = "enforce",
        seal_keys: Sequence[bytes] = (),
        fetch_timeout: float = 6.0,
        wait_timeout: float = 8.0,
    ) -> None:
        self._fetch, self._now, self._md5 = fetch, now, md5
        self._fetch_timeout, self._wait_timeout = fetch_timeout, wait_timeout
        self._seal_keys = seal_keys
        self._pinned = self._read_pinned(pinned)
        self._proven: dict[Key, SigningCertificate] = {}
        self._unsealed: set[Key] = set()
        self._unproven: dict[Key, tuple[SigningCertificate, int]] = {}
        self._failed: dict[Key, tuple[ReceiverError, int, int]] = {}
        self._queue = FetchQueue[Key, SigningCertificate | ReceiverError]()

    @property
    def waiting(self) -> int:
        """Envelopes waiting for a fetch."""
        return self._queue.waiting

    async def get(self, envelope: Envelope, name: str, source: str = "") -> SigningCertificate:
        """The certificate for an envelope with a checked address; `name` is the hash returned by `check_address`.

        `source` is the client that posted it. Each source has its share of the fetches.

        Raises `CertificateUnavailable` if the certificate cannot be had now, `VerificationFailed` if it must not be
        used. Its name and dates are not compared with the envelope here: see `signature.prove`.
        """
        kept = self.trusted(envelope, name)
        return kept or await self._obtain((envelope.partition, name), envelope.signing_cert_url, source)

    def trusted(self, envelope: Envelope, name: str) -> SigningCertificate | None:
        """The certificate if it is pinned or has verified an envelope before."""
        key = (envelope.partition, name)
        return self._proven.get(key) or self._pinned.get(key)

    def stop_fetching(self) -> None:
        """Refuse all envelopes that wait for a certificate, now or later, because the process is stopping.

        `get` then raises `CertificateUnavailable` (`stopping`), so SNS sends the notification again.
        """
        self._queue.refuse()

    def trust(self, envelope: Envelope, name: str, certificate: SigningCertificate) -> None:
        """Record that the certificate has verified this envelope."""
        key = (envelope.partition, name)
        if key in self._proven or key in self._pinned:
            return
        now = self._now()
        # After this date, no message that is young enough can have been signed while the certificate was valid.
        self._proven = {k: held for k, held in self._proven.items() if held.not_after + PAST_MS >= now}
        self._unproven.pop(key, None)
        _put(self._proven, key, certificate, PROVEN_MAX)
        log.info("certificate.proven", file=name, not_after=certificate.not_after)

    def known(self) -> list[SigningCertificate]:
        """The certificates trusted now: pinned and proven."""
        return [*self._pinned.values(), *self._proven.values()]

    async def sync(self, store: Store) -> None:
        """Read certificates proven before or elsewhere, and add those proven here. Raises `StoreUnavailable`."""
        kept, seals = await store.certificates(), await store.certificate_seals()
        for name, der in kept.items():
            self._recall(name, der, seals)
        proven = {"/".join(key): held.der for key, held in self._proven.items()}
        ours = {seal: value for name, der in proven.items() for seal, value in self._seals(name, der).items()}
        fresh = {name: der for name, der in proven.items() if kept.get(name) != der}
        unsealed = {seal: value for seal, value in ours.items() if seals.get(seal) != value}
        if fresh or unsealed:
            await store.keep_certificates(fresh or proven, unsealed)

    def _seals(self, name: str, der: bytes) -> dict[str, bytes]:
        """A seal by each of our keys, under its storage name."""
        text = name.encode() + b"\0" + der
        ids = {hashlib.sha256(b"id" + key).hexdigest()[:16]: key for key in self._seal_keys}
        return {f"{name}#{id_}": hmac.digest(key, text, "sha256") for id_, key in ids.items()}

    async def keep_synced(self, store: Store) -> None:
        """Call `sync` every half minute, until cancelled."""
        while True:
            with contextlib.suppress(StoreUnavailable):
                await self.sync(store)
            await asyncio.sleep(SYNC_EVERY)

    def _recall(self, name: str, der: bytes, seals: Mapping[str, bytes]) -> None:
        """Load one stored certificate. It must pass the checks of a fetched file and carry our seal.

        Otherwise it is fetched when a message names it, as if it had never been stored.
        """
        partition, _, file = name.partition("/")
        key = (partition, file)
        if key in self._proven or key in self._pinned or len(self._proven) >= PROVEN_MAX:
            return
        try:
            certificate = self._judge_der(file, der)
        except (CertificateUnavailable, VerificationFailed) as error:
            log.error("certificate.shelf_damaged", file=file, reason=error.reason)
            return
        sealed = any(hmac.compare_digest(seals.get(id_, b""), seal) for id_, seal in self._seals(name, der).items())
        if not sealed:
            if key not in self._unsealed:
                self._unsealed.add(key)
                log.warning(
                    "certificate.not_sealed", file=file, fix="nothing: it is fetched again when a message names it"
                )
        elif certificate.not_after + PAST_MS >= self._now():
            self._proven[key] = certificate

    async def close(self) -> None:
        """Cancel the fetches in progress."""
        await self._queue.close()

    async def _obtain(self, key: Key, url: str, source: str) -> SigningCertificate:
        now = self._now()
        if (held := self._unproven.get(key)) and 0 <= now - held[1] < UNPROVEN_MS:
            return held[0]
        if (failure := self._failed.get(key)) and 0 <= now - failure[1] < failure[2]:
            raise _again(failure[0])
        try:
            outcome = await self._queue.get(source, key, lambda: self._fetch_shared(key, url), self._wait_timeout)
        except TimeoutError:
            raise CertificateUnavailable(reason="certificate_slow", retry_after=5) from None
        if isinstance(outcome, ReceiverError):
            raise _again(outcome)
        return outcome

    async def _fetch_shared(self, key: Key, url: str) -> SigningCertificate | ReceiverError:
        """Fetch and check one file. Never raises: without waiters left, the error would be lost."""
        outcome, keep_ms = await self._fetch_and_judge(key[1], url)
        if isinstance(outcome, ReceiverError):
            _put(self._failed, key, (outcome, self._now(), keep_ms), FAILED_MAX)
        else:
            _put(self._unproven, key, (outcome, self._now()), UNPROVEN_MAX)
        return outcome

    async def _fetch_and_judge(self, name: str, url: str) -> tuple[SigningCertificate | ReceiverError, int]:
        """The certificate, or the error and how long (ms) to remember it."""
        try:
            async with asyncio.timeout(self._fetch_timeout):
                pem = await self._fetch(url)
        except TimeoutError:
            return CertificateUnavailable(reason="certificate_slow", retry_after=5), TROUBLE_MS
        except CertificateUnavailable as error:
            return error, FAILED_MS
        except (TransportError, Unavailable) as error:
            return CertificateUnavailable(f"The certificate was not fetched: {error.detail}", retry_after=5), TROUBLE_MS
        # `fetch` may fail in any way; its waiters must still get a temporary error.
        except Exception as error:
            log.error("certificate.fetch_failed", file=name, error=type(error).__name__)
            return CertificateUnavailable(retry_after=5), TROUBLE_MS
        try:
            return self._judge(name, pem), 0
        except (CertificateUnavailable, VerificationFailed) as error:
            log.error("certificate.refused", file=name, reason=error.reason)
            return error, FAILED_MS

    def _judge(self, name: str, pem: bytes) -> SigningCertificate:
        """A file that is not the one requested is the host's or network's fault: 503. An unfit certificate: 403."""
        try:
            der = decode_pem(pem)
        except VerificationFailed as error:
            raise CertificateUnavailable("The response is not a certificate file.", reason=error.reason) from error
        return self._judge_der(name, der)

    def _judge_der(self, name: str, der: bytes) -> SigningCertificate:
        if file_hash(der) != name:
            # The rule is undocumented and could change, so it is logged under every setting.
            log.error("certificate.not_as_named", file=name, found=file_hash(der), setting=self._md5)
            if self._md5 == "enforce":
                raise CertificateUnavailable(
                    "The certificate does not match the MD5 in its file name.",
                    reason="certificate_not_as_named",
                )
        return read_der(der)

    def _read_pinned(self, pinned: Mapping[str, bytes]) -> dict[Key, SigningCertificate]:
        certificates, problems = {}, []
        for url, pem in pinned.items():
            key = read_address(url)
            if key is None:
                problems.append(
                    f"signing_certificates: {url!r} is not the address of an SNS certificate; it looks like "
                    "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-<32 hex digits>.pem."
                )
                continue
            try:
                certificates[key] = self._judge(key[1], pem)
            except (CertificateUnavailable, VerificationFailed) as error:
                problems.append(f"signing_certificates: the file for {url} is not usable: {error.detail}")
        if problems:
            raise ConfigurationError(problems)
        return certificates


def _put(table: dict[Key, V], key: Key, value: V, most: int) -> None:
    """Add to a table of at most `most` entries; evicts the oldest."""
    table.pop(key, None)
    if len(table) >= most:
        del table[next(iter(table))]
    table[key] = value


def _again(error: ReceiverError) -> ReceiverError:
    """A copy of an error for each waiter: a shared exception would accumulate all their tracebacks."""
    return type(error)(error.detail, reason=error.reason, retry_after=error.retry_after)
