"""Pure. Reads what a notification says about a dispute, field by field. Unreadable fields are dropped.

JSON notifications name a dispute (`S01-0000000-0000000-B000000`) and its charge permission. XML ones also carry amount,
reason and state. Both are read as one tree of names and texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from receiver.errors import Malformed
from receiver.ledger.dispute import CHARGE_ID, CHARGE_PERMISSION_ID, Dispute, permission_of
from receiver.ledger.money import Money
from receiver.ledger.refund import REFUND_ID
from receiver.ledger.schema import tidy
from receiver.ledger.timestamps import parse_time

IDS = ("amazonchargebackid", "chargebackid", "disputeid", "amazonclaimid", "claimid", "objectid")
PERMISSIONS = ("chargepermissionid", "amazonorderreferenceid", "amazonbillingagreementid", "orderreferenceid")
CHARGES = ("chargeid", "amazoncaptureid", "amazoncapturereferenceid", "captureid", "objectid")
REASONS = ("chargebackreason", "filingreason", "claimreason", "reason", "reasondescription", "reasoncode")
STATES = ("chargebackstate", "disputestate", "claimstate", "state", "status")
TIMES = ("creationtimestamp", "createdat", "filingdate")
"""Names in lower case, without underscores. The first one with a value counts."""

_ID = re.compile(r"[!-~]{1,64}")


@dataclass(frozen=True, slots=True)
class Node:
    """A field of JSON or an element of XML."""

    name: str
    text: str = ""
    children: tuple[Node, ...] = ()


def kind_of(*types: str) -> str:
    """The kind of dispute that one of these types names: `chargeback`, …; empty if none does."""
    for each in types:
        word = re.sub(r"[^A-Z]", "", each.upper())
        if "CHARGEBACK" in word:
            return "chargeback"
        if "ATOZ" in word or "AZGUARANTEE" in word or word.endswith(("CLAIM", "CLAIMNOTIFICATION")):
            return "A-to-z claim"
        if "DISPUTE" in word:
            return "dispute"
    return ""


def notified_dispute(kind: str, fields: Mapping[str, object]) -> Dispute:
    """The dispute in a notification. `fields` are the members of its message.

    `dispute_id` is empty if unreadable. Raises `Malformed` if no charge permission is named, because the affected
    refunds are then unknown.
    """
    data = fields.get("notificationdata")
    tree = [*_of_json(fields), *(_of_xml(data) if isinstance(data, str) else ())]
    leaves = list(_leaves(tree))
    permission = _permission(leaves)
    if not permission:
        raise Malformed("It is about a dispute, but names no charge permission.", reason="notice_unreadable")
    charges = (text.upper() for text in _all(leaves, CHARGES))
    return Dispute(
        dispute_id=next((text for text in _all(leaves, IDS) if _ID.fullmatch(text)), ""),
        charge_permission_id=permission,
        charge_id=next((text for text in charges if CHARGE_ID.fullmatch(text) and text.startswith(permission)), ""),
        kind=kind,
        amount=next(_amounts(tree), None),
        reason=tidy(next(iter(_all(leaves, REASONS)), "")),
        told_state=tidy(next(iter(_all(leaves, STATES)), "")),
        created_at=next((at for text in _all(leaves, TIMES) if (at := _time(text))), 0),
    )


def _of_json(value: Mapping[str, object] | list[object]) -> Iterator[Node]:
    members = value.items() if isinstance(value, Mapping) else [("", each) for each in value]
    for name, each in members:
        text = str(each).strip() if isinstance(each, str | int | float) and not isinstance(each, bool) else ""
        children = tuple(_of_json(each)) if isinstance(each, Mapping | list) else ()
        yield Node(re.sub(r"[^a-z0-9]", "", name.casefold()), text, children)


def _of_xml(data: str) -> Iterator[Node]:
    try:
        yield _element(fromstring(data.strip(), forbid_dtd=True))
    except (ParseError, ValueError, LookupError, RecursionError):
        return


def _element(element: Element) -> Node:
    name = element.tag.rpartition("}")[2].casefold()
    return Node(name, (element.text or "").strip(), tuple(_element(each) for each in element))


def _leaves(nodes: Iterable[Node]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        if node.text:
            yield node.name, node.text
        yield from _leaves(node.children)


def _all(leaves: Iterable[tuple[str, str]], names: Iterable[str]) -> list[str]:
    return [text for name in names for found, text in leaves if found == name]


def _permission(leaves: Iterable[tuple[str, str]]) -> str:
    """The id in the field made for it; else one contained in another id; else any part of a text that looks like
    one."""
    named = (text for text in _all(leaves, PERMISSIONS) if REFUND_ID.fullmatch(text))
    others = (permission_of(text.upper()) for text in _all(leaves, (*PERMISSIONS, *CHARGES, *IDS)))
    canonical = (text for text in others if CHARGE_PERMISSION_ID.fullmatch(text))
    anywhere = CHARGE_PERMISSION_ID.search(" ".join(text.upper() for _, text in leaves))
    told = next(canonical, "") or (anywhere.group() if anywhere else "")
    return told or permission_of(next(named, ""))


def _amounts(nodes: Iterable[Node]) -> Iterator[Money]:
    for node in nodes:
        texts = {each.name: each.text for each in node.children}
        if (found := _money(texts.get("amount"), texts.get("currencycode", "").upper())) is not None:
            yield found
        yield from _amounts(node.children)


def _money(amount: object, currency: str) -> Money | None:
    try:
        return Money.parse(amount, currency)
    except Malformed:
        return None


def _time(text: str) -> int:
    try:
        return parse_time(text)
    except Malformed:
        return 0
