"""Pure. A finding: one difference between Amazon's reports and what is known here, about one refund."""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec

from receiver.ledger.reconciliation.rows import RefundRow, SettlementRow
from receiver.ledger.refund import State

SETTLED = "settled "


class FindingKind(StrEnum):
    """The kinds of differences. At most one finding of each kind is open for a refund."""

    UNKNOWN_HERE = "unknown_here"
    """A report has a refund that is not known here. It is looked up at once."""
    STATE_DIFFERS = "state_differs"
    """The report has another state. Amazon is asked again."""
    AMOUNT_DIFFERS = "amount_differs"
    """The report has another amount."""
    SETTLED_BUT_DECLINED = "settled_but_declined"
    """Amazon took the money for a refund that is Declined here."""
    NOT_SETTLED = "not_settled"
    """Refunded here, but in no settlement, although the settlements of that time and of the days after it were read."""
    NOT_IN_REPORT = "not_in_report"
    """Known here, but in no report of refund data, although the report of that time was read."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One difference."""

    kind: FindingKind
    refund_id: str
    here: str = ""
    """What is known here: a state or an amount; empty if the refund is not known."""
    there: str = ""
    """What the report has; empty if it has nothing."""
    since: int = 0
    """When it was first found, ms."""
    source: str = ""
    """The report: the name of its file, or Amazon's id."""
    row: RefundRow | SettlementRow | None = None
    """The row of the report, if there is one."""
    closed_at: int = 0
    """When it no longer held, ms; 0 while it is open."""

    @property
    def name(self) -> str:
        """Its name among the findings of an account."""
        return f"{self.kind} {self.refund_id}"

    @property
    def says_paid(self) -> bool:
        """Whether it is open, and a report lists the refund, which is declined here, as paid. The buyer may then have
        the money. `store/redis/helpers.lua` has the same rule."""
        is_refunded = self.kind is FindingKind.STATE_DIFFERS and self.there == State.REFUNDED
        return not self.closed_at and (is_refunded or self.kind is FindingKind.SETTLED_BUT_DECLINED)

    @property
    def digest(self) -> str:
        """32 hex digits that identify the difference. They do not depend on when, or in which file, it was found."""
        parts = [self.kind.value, self.refund_id]
        if self.kind in (FindingKind.STATE_DIFFERS, FindingKind.AMOUNT_DIFFERS):
            # Reports of both kinds can show the same other amount.
            parts += [self.here, self.there.removeprefix(SETTLED)]
        return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:32]
