"""Pure. The merchant's order number (`merchantReferenceId`). It is kept whole and unaltered, or not at all.

A truncated number is a different number, so one that is too long becomes null. Lists search in one form (`searchable`).
"""

from __future__ import annotations

import re

MAX_ORDER_REFERENCE = 256
"""Maximum length of an order reference, in characters."""
UNKEPT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters would reach terminals, and a lone surrogate cannot be encoded as UTF-8."""


def searchable(text: str) -> str:
    """The search form of an order reference: unprintable characters become spaces, and runs of spaces become one."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def reference_problem(text: str) -> str:
    """Why an order reference cannot be stored, as one word; empty if it can."""
    if len(text) > MAX_ORDER_REFERENCE:
        return "too_long"
    return "bad_character" if UNKEPT.search(text) else ""


def whole_reference(text: str) -> str | None:
    """The unaltered order reference; None if there is none or it cannot be stored."""
    return None if reference_problem(text) else text or None
