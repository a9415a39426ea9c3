"""Pure. Distinguishes the ids of refunds from other ids, and explains the difference to the person who gave one."""

from __future__ import annotations

import re

from receiver.ledger.refund import AMAZON_REFUND_ID

EXAMPLE_ID = "S01-5105180-3221187-R022311"
OTHER_ID = re.compile(r"[A-Z][0-9]{2}-[0-9]{7}-[0-9]{7}(?:-([CA])[0-9]{6})?")
CHARGE = "a charge"
OTHER_OBJECTS = {"": "a charge permission", "C": CHARGE, "A": "an authorization"}
"""Other objects whose ids begin like a refund's, by the letter that follows."""
OTHER_AMAZON_ID = re.compile(r"[A-Z][0-9]{2}-[0-9]{7}-[0-9]{7}(?:-[A-Z][0-9]{6})?")
"""Amazon's ids of charges, authorizations, charge permissions and so on."""
LONGEST_SHOWN = 40


def other_object(text: str) -> str:
    """What an id of Amazon's names if it is not a refund's, such as `a charge`; empty if it may be a refund's."""
    found = OTHER_ID.fullmatch(text)
    return OTHER_OBJECTS[found[1] or ""] if found else ""


def no_such_refund(refund_id: str) -> str:
    """Why no refund with this id is known, and what to do."""
    what = other_object(refund_id)
    if what:
        said = f"{refund_id} is the id of {what}; refund ids look like {EXAMPLE_ID}."
        charge = f" `receiver charge show {refund_id}` shows its refunds (GET /v1/charges/{refund_id})."
        return said + (charge if what == CHARGE else "")
    if AMAZON_REFUND_ID.fullmatch(refund_id):
        return (
            "Refund not found: no notification about it has arrived, or the token may not see its account. "
            f"`receiver refund refresh {refund_id}` asks Amazon about it (POST /v1/refunds/{refund_id}/refresh)."
        )
    return f"Refund not found. Amazon's ids look like {EXAMPLE_ID}. `receiver refund list` shows those known."


def is_refund_id(value: str) -> bool:
    """Whether the form of Amazon's id says that it is a refund's. The type in a report can be a claim, a chargeback or
    a translated word, even for a refund."""
    return AMAZON_REFUND_ID.fullmatch(value) is not None and "-R" in value


def id_problem(value: str) -> str:
    """Why this cannot be a refund's id, as a clause that is safe to show on a terminal; empty if it can be one."""
    if AMAZON_REFUND_ID.fullmatch(value):
        return ""
    if not value:
        return "the id is missing"
    if OTHER_AMAZON_ID.fullmatch(value):
        return f"{shown(value)} is not a refund id: those have an R before the last six digits"
    return f"{shown(value)} is not a refund id: those look like {EXAMPLE_ID}"


def shown(value: str) -> str:
    """A value from a file in a form that is safe to show on a terminal: short, quoted and in ASCII."""
    return ascii(value if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]}…")
