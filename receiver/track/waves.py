"""Verb. Changes of refunds → the change of the wave of declines, and its balance events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from receiver.ledger.declines.wave import Wave, concerns, step
from receiver.ledger.lifecycle import Change, EventType
from receiver.ledger.refund import Refund
from receiver.outbox.events.balance_event import BalanceEvent, resolved, sums_text, suspected
from receiver.store.account import AccountStore
from receiver.store.refunds.waves import OUTSIDE_WAVES, WaveWrite

log = structlog.get_logger()

NO_WAVE = Wave()
FIX = (
    "check the balance of the merchant account in Seller Central; once it is repaid, `receiver refund retry --reason "
    "AmazonRejected --since 3d` reissues the refunds"
)


@dataclass(frozen=True, slots=True)
class WaveEvents:
    """The effect of changes on the wave. In the stream, `raised` precedes the events of the changes, and `over` follows
    them."""

    write: WaveWrite = OUTSIDE_WAVES
    wave: Wave = NO_WAVE
    raised: tuple[BalanceEvent, ...] = ()
    over: tuple[BalanceEvent, ...] = ()

    def alarm_of(self, kind: EventType, refund: Refund) -> str:
        """The id of the alarm that an event of the refund belongs to; empty if there is none."""
        if kind is EventType.DECLINED and refund.refund_id == self.write.step.declined:
            return self.write.raised or self.write.step.alarm
        return self.wave.open_cases.get(refund.retry_root or refund.refund_id, "")

    def report(self) -> None:
        """Log the alarm, once it is written."""
        for event in self.raised:
            refunds, amount = [*event.refund_ids], sums_text(event)
            log.error("balance.suspected", account=event.account, refunds=refunds, sums=amount, fix=FIX)


async def wave_events(store: AccountStore, changes: Sequence[Change], now: int) -> WaveEvents:
    """The effect of the changes on the account's wave at `now` (ms). Raises `StoreUnavailable`."""
    if not concerns(changes):
        return WaveEvents()
    wave = await store.waves.read()
    found = step(wave, changes, now)
    raised, roots = tuple[BalanceEvent, ...](), [found.root] if found.declined else []
    if found.raises is not None:
        others = await store.refunds.readable(found.raises)
        refund = next(each.refund for each in changes if each.refund.refund_id == found.declined)
        since = min([now, *(wave.recent[name] for name in found.raises)])
        raised = (suspected(store.account, [*others, refund], since, now),)
        roots += [each.retry_root or each.refund_id for each in others]
    over = (resolved(store.account, found.ends, now, changes[0].refund.region),) if found.ends else ()
    return WaveEvents(WaveWrite(found, raised[0].id if raised else "", tuple(roots)), wave, raised, over)
