"""Pure. Which ids in a file of Amazon's are refunds."""

from __future__ import annotations

import re

from receiver.ledger.refund import AMAZON_REFUND_ID

OTHER_AMAZON_ID = re.compile(r"[A-Z][0-9]{2}-[0-9]{7}-[0-9]{7}(?:-[A-Z][0-9]{6})?")
"""Amazon's ids of charges, authorizations, charge permissions and so on."""
LONGEST_SHOWN = 40


def is_refund_id(value: str) -> bool:
    """Whether Amazon's id says that it is a refund. A report lists claims, chargebacks and translated types too."""
    return AMAZON_REFUND_ID.fullmatch(value) is not None and "-R" in value


def id_problem(value: str) -> str:
    """Why this cannot be a refund's id, as a clause that is safe to show on a terminal; empty if it can be one."""
    if AMAZON_REFUND_ID.fullmatch(value):
        return ""
    if not value:
        return "the id is missing"
    if OTHER_AMAZON_ID.fullmatch(value):
        return f"{shown(value)} is not a refund id: those have an R before the last six digits"
    return f"{shown(value)} is not a refund id: those look like S01-5105180-3221187-R022311"


def shown(value: str) -> str:
    """A value of a file as it may be shown on a terminal: short, quoted and in ASCII."""
    return ascii(value if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]}…")
