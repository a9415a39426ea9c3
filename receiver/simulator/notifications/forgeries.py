"""Pure. Notifications that a receiver must reject, each wrong in exactly one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from receiver.simulator.keys import SigningKey
from receiver.simulator.notifications.notices import Envelope, Publisher, refund_message, sign

STRANGERS_ACCOUNT = "666666666666"
DAY = 86_400_000


class Forgery(StrEnum):
    """What is wrong with the notification."""

    OTHER_TOPIC = "other_topic"
    """Genuinely signed by SNS with the same certificate, but for the topic of another AWS customer."""
    CHANGED_MESSAGE = "changed_message"
    """The refund was replaced after signing."""
    WRONG_KEY = "wrong_key"
    """Correct, except that it is signed with a stranger's key."""
    STRANGERS_ADDRESS = "strangers_address"
    """Signed with a stranger's key, with a certificate in a bucket named sns."""
    RELABELLED = "relabelled"
    """The signature version was changed after signing."""
    RESPLIT = "resplit"
    """The boundaries of two signed fields were moved: the signed text is the same, but the MessageId is new."""
    TOO_OLD = "too_old"
    """Signed correctly, 16 days ago."""
    FROM_FUTURE = "from_future"
    """Signed correctly, but dated an hour ahead. The receiver's clock may be wrong, so it should ask for a retry."""
    OTHER_MERCHANT = "other_merchant"
    """Signed correctly, on the right topic, but about another merchant."""
    RAW = "raw"
    """Only the message, as in SNS's raw delivery: no envelope, no signature."""
    CONFIRMATION = "confirmation"
    """A genuine SubscriptionConfirmation of a stranger's topic, with an address inside the private network."""


@dataclass(frozen=True, slots=True)
class Forger:
    """Makes forgeries. `stranger` returns a key unrelated to SNS; `new_id` returns fresh UUIDs."""

    publisher: Publisher
    merchant_id: str
    stranger: Callable[[], SigningKey]
    new_id: Callable[[], str]

    def forge(self, kind: Forgery, refund_id: str, now: int) -> Envelope:
        """A forged notification that claims that a refund changed."""
        return replace(self._make(kind, refund_id, now), kind=f"forged:{kind}", about=refund_id)

    def _make(self, kind: Forgery, refund_id: str, now: int) -> Envelope:
        if kind is Forgery.RESPLIT:
            return self._resplit(refund_id, now)
        if kind is Forgery.CONFIRMATION:
            return self._confirmation(now)
        at = {Forgery.TOO_OLD: now - 16 * DAY, Forgery.FROM_FUTURE: now + DAY // 24}.get(kind, now)
        merchant = "A1SOMEBODYELSE" if kind is Forgery.OTHER_MERCHANT else ""
        message = self._message(refund_id, merchant_id=merchant)
        return self._corrupt(kind, self._publisher(kind).publish(message, self.new_id(), at))

    def _publisher(self, kind: Forgery) -> Publisher:
        """The signer: SNS itself, SNS for a stranger's topic, or a stranger."""
        if kind is Forgery.OTHER_TOPIC:
            return replace(self.publisher, topic_arn=self._strangers_topic())
        if kind is Forgery.WRONG_KEY:
            return replace(self.publisher, key=self.stranger().private_key)
        if kind is Forgery.STRANGERS_ADDRESS:
            url = f"https://sns.s3-us-west-2.amazonaws.com/{self.stranger().file_name}"
            return replace(self.publisher, key=self.stranger().private_key, certificate_url=url)
        return self.publisher

    def _corrupt(self, kind: Forgery, signed: Envelope) -> Envelope:
        """Apply the change made after signing."""
        if kind is Forgery.CHANGED_MESSAGE:
            return signed.with_fields(Message=signed.fields["Message"].replace("-R", "-R9", 1))
        if kind is Forgery.RELABELLED:
            return signed.with_fields(SignatureVersion="2" if self.publisher.version == 1 else "1")
        if kind is Forgery.RAW:
            return replace(signed, raw=signed.fields["Message"].encode())
        return signed

    def _message(self, refund_id: str, *, merchant_id: str = "") -> str:
        return refund_message(merchant_id or self.merchant_id, refund_id, self.new_id())

    def _strangers_topic(self) -> str:
        *front, _, name = self.publisher.topic_arn.split(":")
        return ":".join([*front, STRANGERS_ACCOUNT, name])

    def _resplit(self, refund_id: str, now: int) -> Envelope:
        message, fresh, signed = self._message(refund_id), self.new_id(), self.new_id()
        found = self.publisher.publish(f"{message}\nMessageId\n{fresh}", signed, now)
        return found.with_fields(Message=message, MessageId=f"{fresh}\nMessageId\n{signed}")

    def _confirmation(self, now: int) -> Envelope:
        stranger = replace(self.publisher, topic_arn=self._strangers_topic())
        fields = dict(stranger.publish("You have chosen to subscribe to the topic.", self.new_id(), now).fields)
        del fields["UnsubscribeURL"]
        url = "http://169.254.169.254/latest/meta-data/"
        fields |= {"Type": "SubscriptionConfirmation", "Token": "0" * 224, "SubscribeURL": url}
        return Envelope(sign(fields, stranger.key))
