"""Pure. Limits calls to Amazon: one token bucket per operation.

Burst and rate of each operation, for live and sandbox, are those of Amazon's throttling page. It does not list Get
Dispute, which gets those of the other Get calls, nor the calls about reports, which get the lowest limits of that
page."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Call(StrEnum):
    """The calls that Amazon throttles, each with its own bucket."""

    GET_REFUND = "get_refund"
    GET_CHARGE = "get_charge"
    GET_DISPUTE = "get_dispute"
    CREATE_REFUND = "create_refund"
    REPORTS = "reports"
    """All calls of the Reports API together."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: at most `burst` at once, refilled with `per_second`."""

    burst: float
    per_second: float


LIVE_THROTTLE = {
    Call.GET_REFUND: Bucket(20, 4),
    Call.GET_CHARGE: Bucket(20, 4),
    Call.GET_DISPUTE: Bucket(20, 4),
    Call.CREATE_REFUND: Bucket(10, 4),
    Call.REPORTS: Bucket(10, 1),
}


SANDBOX_THROTTLE = {
    Call.GET_REFUND: Bucket(5, 1),
    Call.GET_CHARGE: Bucket(5, 1),
    Call.GET_DISPUTE: Bucket(5, 1),
    Call.CREATE_REFUND: Bucket(2, 1),
    Call.REPORTS: Bucket(1, 1),
}
