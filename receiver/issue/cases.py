"""Verb. A person closes the case of a declined refund, or reopens it.

The rules are in `ledger/resolution.py`. A case is not closed while the refund is being reissued, and a refund is not
reissued once its case is closed: the scripts `commit` and `reserve` decide between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import structlog

from receiver.amazon.ids import no_such_refund
from receiver.errors import Conflict, NotFound, StoreUnavailable
from receiver.issue.attempts import details_of
from receiver.issue.orders import generation_of, retry_id
from receiver.ledger.audit import Action, Actor, AuditEntry, Outcome
from receiver.ledger.lifecycle import Change
from receiver.ledger.refund import How, Refund, Source, State, is_final
from receiver.ledger.resolution import closed, reopened, resolution_of, with_reissues
from receiver.store.refunds.refunds import MOST_COLLISIONS, CaseGuard, Committed
from receiver.track.amazon_client import AmazonClient, OfAccount
from receiver.track.record import Recorder

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Closing:
    """How a person closes a case, and who that is."""

    how: How
    actor: Actor
    note: str = ""
    refund_id: str = ""
    """For REFUNDED_ELSEWHERE: the refund with which the buyer was paid."""


@dataclass(frozen=True, slots=True)
class Cases(OfAccount):
    """Closes and reopens the cases of one account."""

    amazon_client: AmazonClient
    recorder: Recorder

    async def close(self, refund_id: str, closing: Closing) -> Refund:
        """Close the case of a declined refund. Returns the first refund of its chain. Safe to repeat.

        Raises `NotFound`, `Conflict` (`not_declined`, `already_closed`, `being_reissued`; of the refund that is named:
        `other_charge`, `not_refunded`, `already_used`), the `AmazonError` tree if that refund has to be fetched, and
        `StoreUnavailable`.
        """
        for _ in range(MOST_COLLISIONS):
            root, now = await self._root(refund_id), self.store.now()
            change = closed(
                await self._with_case(root, now),
                closing.how,
                now,
                closing.actor,
                note=closing.note,
                refund_id=closing.refund_id,
            )
            if change.is_nothing:
                return root
            if closing.refund_id:
                await self._check_paying(root, closing.refund_id)
            if (guard := await self._guard(root, closing.refund_id)) is None:
                continue
            act = _act(Action.REFUND_CLOSE, root, closing.actor, closing.how)
            match await self._write(Change(root, change.refund, change.emissions), now, guard, act):
                case Committed.OK:
                    log.info("refund.closed", account=root.account, refund_id=root.refund_id, how=closing.how)
                    return change.refund
                case Committed.REISSUING:
                    raise _being_reissued("a request to reissue it is open")
                case Committed.USED:
                    holder = await self.store.refunds.closed_with(closing.refund_id)
                    raise _already_used(closing.refund_id, holder)
        raise _collision()

    async def reopen(self, refund_id: str, actor: Actor) -> Refund:
        """Undo a person's closing. An open case stays as it is.

        Raises `NotFound`, `Conflict` (`not_declined`, `already_paid`) and `StoreUnavailable`.
        """
        for _ in range(MOST_COLLISIONS):
            root, now = await self._root(refund_id), self.store.now()
            known = await self._with_case(root, now)
            change = reopened(known, now, actor)
            if change.is_nothing:
                return root
            case = known.resolution
            is_elsewhere = case is not None and case.how is How.REFUNDED_ELSEWHERE
            guard = CaseGuard(releases=case.refund_id if case and is_elsewhere else "")
            act = _act(Action.REFUND_REOPEN, root, actor, Outcome.DONE)
            if await self._write(Change(root, change.refund, change.emissions), now, guard, act) is Committed.OK:
                log.info("refund.reopened", account=root.account, refund_id=root.refund_id)
                return change.refund
        raise _collision()

    async def _with_case(self, root: Refund, now: int) -> Refund:
        """The refund with its case, also if it was declined before cases were recorded."""
        case = resolution_of(root, now, self.store.connection.tracked_for)
        known = msgspec.structs.replace(root, resolution=case)
        if root.resolution is None and root.retried_by:
            known = with_reissues(Change(known, known), await self.store.refunds.reissues(root), now).refund
        return msgspec.structs.replace(root, resolution=known.resolution)

    async def _write(self, change: Change, now: int, guard: CaseGuard, audit: AuditEntry) -> Committed:
        subscriber_list = await self.store.subscribers.read()
        committed, _ = await self.recorder.write([change], subscriber_list, now, guard=guard, audit=audit)
        return committed

    async def _root(self, refund_id: str) -> Refund:
        """The first refund of the chain, which has the case."""
        refund = await self.known(refund_id)
        return await self.known(refund.retry_root) if refund.retry_root else refund

    async def known(self, refund_id: str) -> Refund:
        """The refund. Raises `NotFound`."""
        found = await self.store.refunds.get(refund_id)
        if found is None:
            raise NotFound(no_such_refund(refund_id), reason="no_such_refund")
        return found

    async def _guard(self, root: Refund, takes: str) -> CaseGuard | None:
        """What the closing depends on; None if the chain of retries has just become longer.

        Raises `Conflict` if the last refund of the chain is pending.
        """
        last, seen = root, {root.refund_id}
        while last.retried_by and last.retried_by not in seen:
            seen.add(last.retried_by)
            found = await self.store.refunds.get(last.retried_by)
            if found is None:
                raise _being_reissued(f"{last.retried_by} repeats it, and Amazon has not reported its state")
            last = found
        if not is_final(last.state):
            raise _being_reissued(f"{last.refund_id} repeats it, and is {last.state}")
        request_id = retry_id(last.refund_id, await generation_of(self.store, last))
        record = await self.store.requests.get(request_id)
        if record is None or not record.refund_id:
            return CaseGuard(request_id=request_id, request_state=record.state if record else "", takes=takes)
        # Both are written separately from the end of the request, and a process can die in between.
        await self.recorder.annotate(root.account, record.refund_id, details_of(record.order))
        await self.recorder.annotate(root.account, last.refund_id, {"retried_by": record.refund_id})
        return None

    async def _check_paying(self, root: Refund, refund_id: str) -> None:
        """Raise `Conflict` unless this refund can have paid the buyer what the declined one did not."""
        paying = await self.store.refunds.get(refund_id)
        if paying is None or paying.state != State.REFUNDED:
            seen = await self.amazon_client.fetch_refund(refund_id)
            self.amazon_client.check_environment(seen.environment)
            recorded = await self.recorder.record(self.account, seen, source=Source.REFRESH)
            paying = recorded.change.refund
        if not root.charge_id or paying.charge_id != root.charge_id:
            raise Conflict(
                f"{refund_id} is of the charge {paying.charge_id or 'unknown'}, and the declined refund is of the "
                f"charge {root.charge_id or 'unknown'}.",
                reason="other_charge",
            )
        if paying.state != State.REFUNDED or paying.conflict:
            state = "in conflict" if paying.conflict else paying.state
            raise Conflict(f"{refund_id} is {state}, so the buyer may not have the money.", reason="not_refunded")
        if paying.retry_root or paying.resolution is not None:
            raise _already_used(refund_id, paying.retry_root or paying.refund_id)


def _act(action: Action, root: Refund, actor: Actor, outcome: str) -> AuditEntry:
    return AuditEntry(action=action, actor=actor, refund_id=root.refund_id, charge_id=root.charge_id, outcome=outcome)


def _being_reissued(why: str) -> Conflict:
    return Conflict(
        f"The refund is being reissued: {why}. Wait for its outcome before you close the case, so that the buyer is "
        "not paid twice.",
        reason="being_reissued",
    )


def _already_used(refund_id: str, holder: str) -> Conflict:
    return Conflict(f"{refund_id} has already paid for the declined refund {holder}.", reason="already_used")


def _collision() -> StoreUnavailable:
    return StoreUnavailable("Others kept writing the same refund.", reason="store_collision")
