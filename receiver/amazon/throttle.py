"""Pure. How fast Amazon may be called: a token bucket for each operation.

Amazon's throttling page gives the burst and the rate of each operation, for live and sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Call(StrEnum):
    """The calls that Amazon throttles, each with a bucket of its own."""

    GET_REFUND = "get_refund"
    GET_CHARGE = "get_charge"
    CREATE_REFUND = "create_refund"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: at most `burst` at once, refilled with `per_second`."""

    burst: float
    per_second: float


LIVE_THROTTLE = {
    Call.GET_REFUND: Bucket(20, 4),
    Call.GET_CHARGE: Bucket(20, 4),
    Call.CREATE_REFUND: Bucket(10, 4),
}


SANDBOX_THROTTLE = {
    Call.GET_REFUND: Bucket(5, 1),
    Call.GET_CHARGE: Bucket(5, 1),
    Call.CREATE_REFUND: Bucket(2, 1),
}
