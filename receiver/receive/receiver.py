"""Verb. One POST from SNS → proven, and recorded as a hint for every account that it concerns.

The order of the checks protects the service: local and cheap checks come first, and a certificate is fetched only for
an allowed topic. Nothing is answered with 200 before all writes are confirmed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import sha256

import msgspec
import structlog

from receiver.amazon.account import Account
from receiver.amazon.notification import Notice, read_notice
from receiver.amazon.sns.certificate import SigningCertificate
from receiver.amazon.sns.envelope import MAX_BODY, NOTIFICATION, SUBSCRIPTION, TOPIC_ARN, Envelope, read_envelope
from receiver.amazon.sns.signature import FUTURE_MS, PAST_MS, check_address, check_claims, prove
from receiver.amazon.sns.topic import AMAZON_PAY_AWS_ACCOUNTS
from receiver.amazon.unrecognized import read_contents
from receiver.errors import Malformed, NotFound, TooLarge, TransportError, Unavailable, Unconfigured, VerificationFailed
from receiver.ledger.dispute import signed
from receiver.ledger.notification import Hint, HintResult, NotificationOutcome, PostedNotification, Receipt
from receiver.ledger.refund import Source
from receiver.receive.certificates import CertificateStore
from receiver.receive.unconfigured import UnconfiguredNames, account_in_path
from receiver.receive.unrecognized import all_of, environment_of, keep, may_be_for
from receiver.runtime.batch import Batch
from receiver.store import Store

log = structlog.get_logger()

TOPICS_REMEMBERED = 1024
LONGEST_TOPIC = 512
"""Characters. No ARN of a topic is longer; a longer header is not remembered."""

Judged = tuple[Envelope, tuple[Account, ...], Notice | str | None]
"""The envelope, the accounts that accept it, and its content; a text says why that is not understood. None: the
signature is not verified yet."""
Confirm = Callable[[str], Coroutine[object, object, None]]
"""Visits the address that confirms a subscription. Raises `TransportError` or `Unavailable` unless SNS confirms
it."""


class Receiver:
    """Verifies notifications for a set of accounts. `now` is ms since the epoch, UTC; ages are ms."""

    def __init__(
        self,
        accounts: Sequence[Account],
        certificates: CertificateStore,
        store: Store,
        now: Callable[[], int],
        *,
        past_ms: int = PAST_MS,
        future_ms: int = FUTURE_MS,
        confirm: Confirm | None = None,
    ) -> None:
        self._paths: dict[str | None, Sequence[Account]] = {None: accounts, **{a.name: (a,) for a in accounts}}
        self._certificates, self._store, self._now = certificates, store, now
        self._past_ms, self._future_ms, self._confirm = past_ms, future_ms, confirm
        self._allowed = lru_cache(TOPICS_REMEMBERED)(self._find_allowed)
        self._is_foreign = lru_cache(TOPICS_REMEMBERED)(self._find_foreign)
        self._sha256_topics: dict[str, None] = {}
        self._batch = Batch[Judged]()
        self.unconfigured_accounts = UnconfiguredNames()
        self.unconfigured_topics = UnconfiguredNames()
        self.unconfigured_merchants = UnconfiguredNames()

    @property
    def waiting(self) -> int:
        """Notifications waiting for a certificate."""
        return self._certificates.waiting

    async def receive(self, posted: PostedNotification) -> Receipt:
        """Verify a notification and record its content. Each client has its share of the certificate fetches.

        Raises an `InvalidNotification` (4xx: do not send it again), an `Unavailable` (503: send it again later), or
        `NotFound` for an account that does not exist.
        """
        body, headers, account, traceparent, source = posted
        if account not in self._paths:
            self._note_unknown_path(account or "")
            raise NotFound("There is no such account.")
        if len(body) > MAX_BODY:
            raise TooLarge()
        named = headers.get("x-amz-sns-topic-arn", "")
        if len(named) <= LONGEST_TOPIC and self._is_foreign(named, account):
            raise _wrong_topic()
        now = self._now()
        envelope, candidates, notice = await self._batch.run(partial(self._judge, body, headers, account, now))
        if notice is None:
            name = check_address(envelope)
            notice = self._prove(envelope, name, await self._certificates.get(envelope, name, source), now)
        if envelope.type != NOTIFICATION:
            return await self._confirmation(envelope, now)
        if isinstance(notice, str):
            return await self._unrecognized(candidates, envelope, notice, now, traceparent)
        concerned = self._concerned(candidates, notice, now)
        if notice.is_sample:
            return _sample(concerned, envelope, notice, now)
        if not (notice.is_refund or notice.dispute):
            return _receipt(NotificationOutcome.NOT_A_REFUND, envelope, now, notice)
        return await self._write(concerned, envelope, notice, now, traceparent)

    def _note_unknown_path(self, asked: str) -> None:
        """Count and log the name that the path gave: most often an account's name is misspelt in Seller Central."""
        name = account_in_path(asked)
        self.unconfigured_accounts.count(name, self._now())
        log.warning("notification.unconfigured_account", asked=name, configured=[*filter(None, self._paths)])

    def _judge(self, body: bytes, headers: Mapping[str, str], account: str | None, now: int) -> Judged:
        """What can be checked without waiting: all but the signature if the certificate is not trusted yet."""
        envelope = read_envelope(body, headers)
        candidates = self._candidates(envelope, account, now)
        name = check_claims(envelope, now, self._past_ms, self._future_ms)
        certificate = self._certificates.trusted(envelope, name)
        return envelope, candidates, self._prove(envelope, name, certificate, now) if certificate else None

    def _find_allowed(self, topic_arn: str, account: str | None) -> tuple[Account, ...]:
        return tuple(candidate for candidate in self._paths[account] if candidate.allows(topic_arn))

    def _find_foreign(self, topic_arn: str, account: str | None) -> bool:
        """Whether this topic is a stranger's. The topic of a header is enough: a body that contradicts it is refused as
        well."""
        found = TOPIC_ARN.fullmatch(topic_arn)
        return bool(found and found[3] not in AMAZON_PAY_AWS_ACCOUNTS and not self._allowed(topic_arn, account))

    def _candidates(self, envelope: Envelope, account: str | None, now: int) -> tuple[Account, ...]:
        """The accounts that accept this topic and this signature version. At least one."""
        allowed = self._allowed(envelope.topic_arn, account)
        if not allowed:
            if self._is_foreign(envelope.topic_arn, account):
                raise _wrong_topic()
            self.unconfigured_topics.count(envelope.topic_arn, now)
            raise Unconfigured("No account is configured for this topic of Amazon Pay.", reason="unconfigured_topic")
        strict = tuple(a for a in allowed if a.min_signature_version <= envelope.signature_version)
        if not strict:
            raise VerificationFailed("SHA-1 signatures are switched off.", reason="signature_version_too_low")
        return strict

    def _prove(self, envelope: Envelope, name: str, certificate: SigningCertificate, now: int) -> Notice | str:
        """The content of an envelope after its signature was verified; a text says why it is not understood."""
        prove(envelope, certificate, now)
        self._certificates.trust(envelope, name, certificate)
        self._watch_version(envelope)
        return _read(envelope)

    def _watch_version(self, envelope: Envelope) -> None:
        """Log once if a topic that used SHA-256 falls back to SHA-1."""
        if envelope.signature_version == 2:
            if len(self._sha256_topics) < TOPICS_REMEMBERED:
                self._sha256_topics[envelope.topic_arn] = None
        elif envelope.topic_arn in self._sha256_topics:
            del self._sha256_topics[envelope.topic_arn]
            log.warning("notification.signature_downgraded", topic=envelope.topic_arn)

    async def _confirmation(self, envelope: Envelope, now: int) -> Receipt:
        """Amazon Pay subscribes its merchants itself, so by default the confirmation address is not visited.

        If visits are enabled, the address is always the one that SNS builds for this topic: `read_envelope` accepts no
        other. The address in an UnsubscribeConfirmation is never visited, because that would subscribe again.
        """
        topic, message_id = envelope.topic_arn, envelope.message_id
        if envelope.type != SUBSCRIPTION:
            log.error("notification.unsubscribed", topic=topic, message_id=message_id)
            return _receipt(NotificationOutcome.UNSUBSCRIBE, envelope, now)
        if self._confirm is None or envelope.subscribe_url is None:
            log.warning("notification.subscription_offered", topic=topic, message_id=message_id)
            return _receipt(NotificationOutcome.SUBSCRIPTION, envelope, now)
        try:
            await self._confirm(envelope.subscribe_url)
        except TransportError as error:
            raise Unavailable("SNS did not confirm the subscription.", reason="confirmation_failed") from error
        log.warning("notification.subscription_confirmed", topic=topic, message_id=message_id)
        return _receipt(NotificationOutcome.CONFIRMED, envelope, now)

    def _concerned(self, candidates: Iterable[Account], notice: Notice, now: int) -> list[Account]:
        matching = self._of_merchant(candidates, notice.merchant_id, now)
        environment = environment_of(notice)
        return [account for account in matching if account.environment == environment] or matching

    def _of_merchant(self, candidates: Iterable[Account], merchant_id: str, now: int) -> list[Account]:
        matching = [account for account in candidates if account.merchant_id == merchant_id]
        if not matching:
            self.unconfigured_merchants.count(merchant_id, now)
            log.warning("notification.unconfigured_merchant", merchant_id=merchant_id)
            raise Unconfigured(
                "No account is configured for this merchant on this topic.", reason="unconfigured_merchant"
            )
        return matching

    async def _unrecognized(
        self, candidates: Sequence[Account], envelope: Envelope, problem: str, now: int, traceparent: str
    ) -> Receipt:
        """A proven message that is not understood. This version is at fault: store it, and do not ask for it again."""
        contents = read_contents(envelope.message)
        if contents.merchant_id:
            accounts: Sequence[Account] = self._of_merchant(candidates, contents.merchant_id, now)
        else:
            accounts = may_be_for(candidates, envelope, contents)
        noted = await keep(self._store, accounts, envelope, contents, problem, now, traceparent)
        names = tuple(account.name for account in accounts)
        return _receipt(NotificationOutcome.UNRECOGNIZED, envelope, now, accounts=names, noted=noted)

    async def _write(
        self, accounts: list[Account], envelope: Envelope, notice: Notice, now: int, traceparent: str
    ) -> Receipt:
        digest, message_id = sha256(envelope.signed_text).hexdigest(), envelope.message_id
        names = tuple(account.name for account in accounts)
        if notice.dispute:
            dispute = signed(notice.dispute, message_id, envelope.timestamp)
            writes = [
                self._store.of(name).disputes.record(dispute, message_id=message_id, digest=digest) for name in names
            ]
        else:
            hint = _hint(envelope, notice, digest, now, traceparent)
            writes = [self._store.of(name).schedule.hint(hint) for name in names]
        noted = tuple(await all_of(writes))
        for name, found in zip(names, noted, strict=True):
            if found is HintResult.ALTERED:
                log.error("notification.altered_duplicate", account=name, message_id=message_id)
            if notice.dispute and found is not HintResult.REPEATED:
                log.warning("dispute.notified", account=name, dispute=msgspec.to_builtins(dispute))
        return _receipt(_outcome(noted, notice), envelope, now, notice, names, noted)


def _wrong_topic() -> VerificationFailed:
    return VerificationFailed("The topic is not one that is allowed.", reason="wrong_topic")


def _read(envelope: Envelope) -> Notice | str:
    if envelope.type != NOTIFICATION:
        return ""
    try:
        notice = read_notice(envelope.message)
    except Malformed as error:
        return error.detail
    return notice if notice.is_known else f"Objects of the type {notice.object_type} are not known to this version."


def _hint(envelope: Envelope, notice: Notice, digest: str, now: int, traceparent: str) -> Hint:
    return Hint(
        refund_id=notice.object_id,
        at=now,
        source=Source.NOTIFICATION,
        message_id=envelope.message_id,
        digest=digest,
        sent_at=envelope.timestamp,
        refund_type=notice.refund_type,
        traceparent=traceparent,
    )


def _sample(concerned: Iterable[Account], envelope: Envelope, notice: Notice, now: int) -> Receipt:
    """A test message from Seller Central: the log shows that it arrived and for which accounts."""
    names = tuple(account.name for account in concerned)
    log.warning(
        "notification.test_message",
        topic=envelope.topic_arn,
        accounts=names,
        notification_type=notice.notification_type,
        message_id=envelope.message_id,
        sent_at=envelope.timestamp,
    )
    return _receipt(NotificationOutcome.SAMPLE, envelope, now, notice, names)


def _outcome(noted: tuple[HintResult, ...], notice: Notice) -> NotificationOutcome:
    if HintResult.ALTERED in noted:
        return NotificationOutcome.ALTERED
    new = NotificationOutcome.DISPUTE if notice.dispute else NotificationOutcome.NOTED
    return new if HintResult.NEW in noted else NotificationOutcome.REPEATED


def _receipt(
    outcome: NotificationOutcome,
    envelope: Envelope,
    now: int,
    notice: Notice | None = None,
    accounts: tuple[str, ...] = (),
    noted: tuple[HintResult, ...] = (),
) -> Receipt:
    return Receipt(
        outcome=outcome,
        age=now - envelope.timestamp,
        signature_version=envelope.signature_version,
        topic=envelope.topic_arn,
        object_type=notice.object_type if notice else "",
        refund_id=notice.object_id if notice and notice.is_refund else "",
        accounts=accounts,
        noted=noted,
    )
