"""Edge: notifications. Turns a change of a refund or dispute into a notification, and applies fault injection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle

from receiver.simulator.bank import Change
from receiver.simulator.disputes import Dispute
from receiver.simulator.notifications.fault_injection import NOTIFICATION, FaultInjection, Rule, Trick
from receiver.simulator.notifications.forgeries import Forger, Forgery
from receiver.simulator.notifications.notices import (
    Envelope,
    Publisher,
    Unfamiliar,
    object_message,
    refund_message,
    unfamiliar_message,
)
from receiver.simulator.notifications.sender import NotificationSender, Posted

HELD_FOR = 5.0
"""Seconds after which a held notification is sent even if no other came."""


class Announcer:
    """Publishes, forges and posts."""

    def __init__(
        self,
        forger: Forger,
        fault_injection: FaultInjection,
        sender: NotificationSender,
        now: Callable[[], int],
    ) -> None:
        self._forger = forger
        self._faults = fault_injection
        self._sender = sender
        self._now = now
        self._held: list[Envelope] = []
        self._last: dict[str, Envelope] = {}
        self._kinds, self._ways = cycle(Forgery), cycle(Unfamiliar)

    @property
    def publisher(self) -> Publisher:
        """The publisher for the current signature version."""
        return self._forger.publisher

    def sign_with(self, version: int) -> None:
        """Sign with this signature version (1 or 2) from now on, as the owner of a topic can choose at any time."""
        self._forger = replace(self._forger, publisher=replace(self.publisher, version=version))

    def announce(self, change: Change) -> None:
        """Notify the receiver of a change of a refund, in a task; or apply the matching fault."""
        refund_id, state = change.refund.refund_id, change.state_change.state
        rule = self._faults.take(NOTIFICATION, refund_id, state)
        self._publish(self._message(refund_id, rule), refund_id, state, rule)

    def announce_dispute(self, dispute: Dispute) -> None:
        """The same for a dispute."""
        dispute_id, state = dispute.dispute_id, dispute.state
        rule = self._faults.take(NOTIFICATION, dispute_id, state)
        message = object_message("CHARGEBACK", self._forger.merchant_id, dispute_id, self._forger.new_id())
        self._publish(message, dispute_id, state, rule)

    def _publish(self, message: str, about: str, state: str, rule: Rule | None) -> None:
        envelope = self.publisher.publish(message, self._forger.new_id(), self._now(), about=about, state=state)
        self._last[about] = envelope
        if rule is not None and rule.trick is Trick.DROP:
            self._sender.drop(envelope)
        elif rule is not None and rule.trick is Trick.REORDER:
            self._held.append(envelope)
            self._sender.start(self._release_after(rule.seconds or HELD_FOR, envelope))
        else:
            late = [held for held in self._held if held.about == about]
            self._held = [held for held in self._held if held.about != about]
            self._sender.start(self._post(envelope, rule, late))

    def _message(self, refund_id: str, rule: Rule | None) -> str:
        merchant_id, notification_id = self._forger.merchant_id, self._forger.new_id()
        if rule is None or rule.trick is not Trick.UNFAMILIAR:
            return refund_message(merchant_id, refund_id, notification_id)
        way = Unfamiliar(rule.kind or next(self._ways))
        return unfamiliar_message(way, merchant_id, refund_id, notification_id)

    async def forge(self, kind: Forgery, refund_id: str) -> Posted:
        """Post a forgery once and return the receiver's answer. Forgeries are not retried."""
        return await self._sender.deliver(self._forger.forge(kind, refund_id, self._now()), retry=False)

    async def repeat(self, about: str) -> Posted | None:
        """Post the last notification of a refund or dispute once more, with the same MessageId; None if there was
        none."""
        last = self._last.get(about)
        return None if last is None else await self._sender.deliver(replace(last, kind="repeated"), retry=False)

    async def _post(self, envelope: Envelope, rule: Rule | None, late: Sequence[Envelope]) -> None:
        trick = rule.trick if rule is not None else None
        if rule is not None and trick is Trick.DELAY:
            await self._sender.sleep(rule.seconds)
        if rule is not None and trick is Trick.FORGE:
            await self.forge(Forgery(rule.kind or next(self._kinds)), envelope.about)
        await self._sender.deliver(envelope)
        if rule is not None and trick is Trick.DUPLICATE:
            for _ in range(rule.copies - 1):
                await self._sender.deliver(replace(envelope, kind="repeated"))
        for held in late:
            await self._sender.deliver(held)

    async def _release_after(self, seconds: float, envelope: Envelope) -> None:
        await self._sender.sleep(seconds)
        if envelope in self._held:
            self._held.remove(envelope)
            await self._sender.deliver(envelope)
