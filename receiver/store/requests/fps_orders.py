"""Edge: Redis. Requested refunds by Flexible Payments, saved before Amazon is called.

They are separate from `store/requests/requests.py`: there is no charge to reserve an amount on, the amount may be
absent, and the worker that processes `issuing` calls Amazon Pay instead.

| key | type | holds |
|---|---|---|
| `{a}:fps:<reference>` | hash | the order with all its values, when it was first sent, tries, outcome |
| `{a}:fps_issuing` | zset | reference → when to try |

Orders are kept for ever, like refunds in the ledger. Amazon forgets a reference after seven days; if it were forgotten
here too, a second refund could be sent under it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from receiver.amazon.fps.orders import FpsOrder, FpsRecord
from receiver.ledger.audit import AuditEntry
from receiver.ledger.refund_request import RequestState
from receiver.store.redis.base import Args
from receiver.store.requests.requests import Attempt, Claims, record_of


class Begin(StrEnum):
    """Whether an attempt may be sent."""

    SEND = "send"
    LATE = "late"
    """Amazon may have forgotten the reference: sent now, it could make a second refund."""
    LOST = ""
    """The claim is no longer ours."""


class NotSaved(StrEnum):
    """Why an order cannot be saved."""

    TAKEN = "taken"
    """The ledger has another refund with this id."""


class FpsOrders(Claims[FpsRecord]):
    kind, schedule, noun = "fps", "fps_issuing", "an order"

    async def reserve(
        self, order: FpsOrder, *, owner: str, lease: int, audit: AuditEntry | None = None
    ) -> Attempt | NotSaved | FpsRecord:
        """Save the order and hold it for `lease` ms; or return why that is not possible.

        `owner` is a new random word. It distinguishes a repetition of this very call from another caller's. `audit` is
        written with the order.
        """
        reference, token = order.values.reference, self.now() + lease
        answer = await self._script(
            "fps_reserve",
            [
                *(reference, owner, token),
                *("order", msgspec.json.encode(order), "state", RequestState.RESERVED),
            ],
            audit=audit,
            reference=reference,
        )
        match answer[0]:
            case b"reserved":
                return Attempt(reference, token)
            case b"taken":
                return NotSaved.TAKEN
        flat = answer[1]
        return self._of_hash(reference, dict(zip(flat[::2], flat[1::2], strict=True)))

    def _record(self, id_: str, raw: Mapping[bytes, bytes]) -> FpsRecord:
        return record_of(raw, FpsRecord, FpsOrder)

    async def begin(self, attempt: Attempt, window: int) -> Begin:
        """Record that an attempt is about to be sent. Attempts are allowed for `window` ms from the first one."""
        args: Args = [attempt.id, attempt.token, self.now(), window]
        answer = await self._script("fps_begin", args, repeatable=False, reference=attempt.id)
        return Begin(answer.decode())

    async def expedite(self, reference: str) -> bool:
        """Make an order due now that waits for its next attempt; False if it does not wait."""
        hurried = await self._script("expedite_fps", [reference, self.now()], reference=reference)
        self._written()
        return bool(hurried)

    async def retry(self, attempt: Attempt, at: int, *, unknown: bool, fields: Mapping[str, str]) -> bool:
        """Try again at `at` (ms). `unknown`: whether the attempt may have reached Amazon; `fields`: how it failed."""
        return bool(await self._finish_fps(attempt, "retry", at, int(unknown), fields))

    async def done(self, attempt: Attempt, order: FpsOrder) -> None:
        """Amazon accepted the refund, and it is in the ledger."""
        await self._finish_fps(attempt, "done", "", "", {"order": msgspec.json.encode(order)})

    async def refuse(self, attempt: Attempt, fields: Mapping[str, str]) -> RequestState | None:
        """Amazon refused it. Returns the new state of the order; None if the claim is no longer ours."""
        written = await self._finish_fps(attempt, "refused", "", "", fields)
        return RequestState(written) if written else None

    async def suspend(self, reference: str, fields: Mapping[str, str]) -> bool:
        """Make a reserved order unclear; `fields` say why. False if it is not reserved."""
        args: Args = [reference, "at", self.now(), *(text for pair in fields.items() for text in pair)]
        return bool(await self._script("fps_suspend", args, reference=reference))

    async def _finish_fps(
        self, attempt: Attempt, outcome: str, at: int | str, unknown: int | str, fields: Mapping[str, str | bytes]
    ) -> str:
        flat = [text for pair in fields.items() for text in pair]
        args: Args = [attempt.id, attempt.token, outcome, at, unknown, "at", self.now(), *flat]
        answer = await self._script("fps_finish", args, reference=attempt.id)
        self._written()
        return str(answer.decode())
