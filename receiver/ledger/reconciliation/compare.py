"""Pure. Compares what a report says about a refund with what is known here.

A report shows what was true when it was written; what is known here may be newer. If that explains a difference, the
difference does not count.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import Decimal

from msgspec import structs

from receiver.ledger.money import Money
from receiver.ledger.reconciliation.finding import SETTLED, Finding, FindingKind
from receiver.ledger.reconciliation.rows import Period, RefundRow, SettlementRow
from receiver.ledger.refund import FPS, Refund, State, is_final

KINDS_OF_REFUND_ROW = (FindingKind.UNKNOWN_HERE, FindingKind.STATE_DIFFERS, FindingKind.AMOUNT_DIFFERS)
KINDS_OF_SETTLEMENT = (FindingKind.UNKNOWN_HERE, FindingKind.AMOUNT_DIFFERS, FindingKind.SETTLED_BUT_DECLINED)
"""The kinds of findings that a row of each report can open or close."""


def compare_refund(row: RefundRow, known: Refund | None) -> list[Finding]:
    """The differences between a row of refund data and the refund as it is known here; None: it is not known."""
    if known is None:
        there = f"{row.state} {row.amount}" if row.amount else row.state
        return [Finding(kind=FindingKind.UNKNOWN_HERE, refund_id=row.refund_id, there=there, row=row)]
    found = list[Finding]()
    if _state_differs(row, known):
        found.append(_finding(FindingKind.STATE_DIFFERS, row, known.state, row.state))
    if row.amount and known.amount and row.amount != known.amount:
        found.append(_finding(FindingKind.AMOUNT_DIFFERS, row, str(known.amount), str(row.amount)))
    return found


def _state_differs(row: RefundRow, known: Refund) -> bool:
    is_older = bool(row.updated_at) and row.updated_at < known.updated_at
    if row.state == known.state or is_older:
        return False
    # A final state follows one that is not final, so the report is older.
    return is_final(row.state) or not is_final(known.state)


def compare_settlement(rows: Sequence[SettlementRow], known: Refund | None) -> list[Finding]:
    """The differences between all rows about one refund in reports of settlement data and what is known here.

    Money that was taken for a declined refund and given back is not a difference. A settlement in another currency says
    nothing about the amount. A smaller sum is a difference only if there are no more rows: see `is_short`.
    """
    first, settled = rows[0], settled_sum(rows)
    if known is None:
        there = f"{SETTLED}{_text(settled, first)}"
        return [Finding(kind=FindingKind.UNKNOWN_HERE, refund_id=first.refund_id, there=there, row=first)]
    if known.state == State.DECLINED:
        if not settled and settled is not None:
            return []
        return [_finding(FindingKind.SETTLED_BUT_DECLINED, first, known.state, f"{SETTLED}{_text(settled, first)}")]
    is_comparable = known.amount and first.amount.currency_code == known.amount.currency_code
    if not known.amount or not is_comparable or settled in (None, known.amount.amount):
        return []
    return [_finding(FindingKind.AMOUNT_DIFFERS, first, str(known.amount), f"{SETTLED}{_text(settled, first)}")]


def is_short(rows: Sequence[SettlementRow], known: Refund | None) -> bool:
    """Whether the settlements read so far add up to less than the refund."""
    settled, amount = settled_sum(rows), known.amount if known else None
    return amount is not None and settled is not None and settled < amount.amount


def settled_sum(rows: Sequence[SettlementRow]) -> Decimal | None:
    """The sum; None if the rows have several currencies.

    A row with the other sign than most gives money back. Some files have no signs at all.
    """
    if len({row.amount.currency_code for row in rows}) != 1:
        return None
    return abs(sum((row.amount.amount * (-1 if row.is_credit else 1) for row in rows), Decimal()))


def _text(settled: Decimal | None, row: SettlementRow) -> str:
    return str(type(row.amount)(settled, row.amount.currency_code)) if settled is not None else "in several currencies"


def not_settled(known: Refund, periods: Sequence[Period], wait: int, now: int) -> Finding | None:
    """The finding for a refund that is in no settlement; None if the settlement may still come.

    `wait` (ms) is how long after it was Refunded it may be missing. `periods`, those of settlement data that was read,
    must cover that whole time.
    """
    start, end = min(known.created_at or known.updated_at, known.updated_at), known.updated_at + wait
    if known.state != State.REFUNDED or known.refund_type == FPS or not known.updated_at or end > now:
        return None
    if not covered(periods, start, end):
        return None
    return Finding(kind=FindingKind.NOT_SETTLED, refund_id=known.refund_id, here=_here(known))


def not_in_report(known: Refund, periods: Sequence[Period]) -> Finding | None:
    """The finding for a refund that is in no report of refund data, although it was made or changed in one of their
    `periods`; otherwise None."""
    times = [each for each in (known.created_at, known.updated_at) if each]
    if known.refund_type == FPS or not any(covered(periods, each, each) for each in times):
        return None
    return Finding(kind=FindingKind.NOT_IN_REPORT, refund_id=known.refund_id, here=_here(known))


def past(periods: Sequence[Period], now: int) -> list[Period]:
    """The periods, cut off at `now` (ms). Otherwise a period that ends in the future, because of a mistyped year, would
    prove that every later refund is missing."""
    cut = (structs.replace(each, end=min(each.end, now)) for each in periods)
    return [each for each in cut if each.start <= each.end]


def covered(periods: Sequence[Period], start: int, end: int) -> bool:
    """Whether the periods together cover the whole time from `start` to `end`. Gaps of up to a second do not count."""
    for each in sorted(periods, key=lambda period: period.start):
        if each.start <= start <= each.end:
            if each.end >= end:
                return True
            start = each.end + 1_000
    return False


def still_holds(finding: Finding, known: Refund | None, settled: Sequence[SettlementRow], is_reported: bool) -> bool:
    """Whether an open finding holds for what is known now.

    `settled` are all rows of settlements about the refund, and `is_reported` whether it was in a report of refund data.
    """
    if finding.kind is FindingKind.UNKNOWN_HERE or known is None:
        return known is None and finding.kind is FindingKind.UNKNOWN_HERE
    if finding.kind is FindingKind.NOT_SETTLED:
        return known.state == State.REFUNDED and not settled
    if finding.kind is FindingKind.NOT_IN_REPORT:
        return not is_reported
    if isinstance(finding.row, RefundRow):
        found = compare_refund(finding.row, known)
    else:
        found = compare_settlement(settled, known) if settled else []
    return finding.kind in {each.kind for each in found}


def is_same(held: Finding, found: Finding) -> bool:
    """Whether an open finding already reports what was found. Reports of both kinds can show the same wrong amount."""
    is_same_amount = found.kind is FindingKind.AMOUNT_DIFFERS and held.here == found.here
    return held.digest == found.digest or is_same_amount


def with_row(rows: Collection[SettlementRow], row: SettlementRow) -> tuple[SettlementRow, ...]:
    """The rows about a refund, with the new row first. A row that was read before, in any file, is not counted again.
    Of two versions of a row, the one with more details stays: a file can lack the time, its zone or the settlement."""
    same = sorted((each for each in rows if _is_same_row(each, row)), key=lambda each: _key(each) != _key(row))
    if not same:
        return row, *rows
    others = [each for each in rows if each is not same[0]]
    return max(row, same[0], key=lambda each: bool(each.posted_at) + bool(each.settlement_id)), *others


def _is_same_row(one: SettlementRow, other: SettlementRow) -> bool:
    return (
        one.amount == other.amount
        and (one.settlement_id == other.settlement_id or not (one.settlement_id and other.settlement_id))
        and (one.posted_at == other.posted_at or not (one.posted_at and other.posted_at))
    )


def _key(row: SettlementRow) -> tuple[str, int, Money]:
    return row.settlement_id, row.posted_at, row.amount


def _finding(kind: FindingKind, row: RefundRow | SettlementRow, here: str, there: str) -> Finding:
    return Finding(kind=kind, refund_id=row.refund_id, here=here, there=there, row=row)


def _here(known: Refund) -> str:
    return f"{known.state} {known.amount}" if known.amount else known.state
