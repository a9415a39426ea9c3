"""Pure. The merchant's own order number (`merchantReferenceId`): kept whole and unaltered, or not at all.

A part of a number is another number, so one that is too long is null. Lists look it up in one form (`searchable`).
"""

from __future__ import annotations

import re

MAX_ORDER_REFERENCE = 256
"""Characters of an order reference. It is kept whole and unaltered, or not at all."""
_NOT_KEPT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def searchable(text: str) -> str:
    """An order reference as it is looked up: unprintable characters are blanks, and runs of blanks are one."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def reference_problem(text: str) -> str:
    """Why an order reference cannot be kept as it is, as one word; empty where it can.

    Control characters would reach terminals, and half of a surrogate pair cannot be written in UTF-8.
    """
    if len(text) > MAX_ORDER_REFERENCE:
        return "too_long"
    return "bad_character" if _NOT_KEPT.search(text) else ""


def whole_reference(text: str) -> str | None:
    """An order reference, never altered; None where there is none, or none that can be written."""
    return None if reference_problem(text) else text or None
