"""Pure. Who began a refund, by its type or its reason code: the merchant, or somebody else."""

from __future__ import annotations

import re

THEIRS = re.compile(r"az(guarantee|claim|refund|cancel[a-z]*)*|chargeback[a-z]*|buyercancel[a-z]*|cancel[a-z]*bybuyer")
"""Types of refunds that Amazon, a bank or the buyer has begun, and reason codes of the same name, as `_plain` writes
them: AmazonA-ZRefund, AmazonA-ZGuarantee, AmazonA-ZCancel, Chargeback, BuyerCanceled, and what is alike."""


def is_theirs(word: str) -> bool:
    """Whether a type of refund, or a reason code, says that Amazon, a bank or the buyer began it. In any spelling."""
    return THEIRS.fullmatch(_plain(word)) is not None


def _plain(text: str) -> str:
    """The word in one spelling: `AmazonA-ZRefund`, `Amazon A to Z Refund` and `A_TO_Z_REFUND` are `azrefund`."""
    word = re.sub(r"[^a-z]", "", text.casefold()).removeprefix("amazon")
    return f"az{word.removeprefix('atoz')}" if word.startswith("atoz") else word
