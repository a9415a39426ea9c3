"""Edge: Redis. Keys of a wrong type and damaged records, and how to fix each."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from receiver.commands.doctor.finding import Finding, fail, ok, skip, warn
from receiver.errors import StoreUnavailable
from receiver.store import Store
from receiver.store.maintenance.inspection import MONEY
from receiver.store.redis.damage import fix_of
from receiver.store.redis.keys import read_kind

KEYS, RECORDS, UNKNOWN = "store.keys", "store.records", "store.unknown_keys"
MOST_SHOWN = 50
"""Findings shown per kind; the rest is counted."""
COMPARE = (
    "Nothing is issued on it meanwhile. First compare the charge with Seller Central. Then set the key aside with "
    "--compared, or rewrite it as deploy/issuing.md shows."
)
FIXES: Final = MappingProxyType(
    {
        "refund": "Readable parts stay, and Amazon is asked about the refund again",
        "subscribers": "Then add the subscriber again; its events wait",
        "events": "Nothing to do: its subscribers have the entry as a dead event",
        "due": "Then refresh the refund: receiver refund refresh ID",
        "second_looks": "Nothing to do: the refund is final",
        "lane": "The event is not sent; see receiver delivery redrive",
        "dead": "The event may still be in the stream: receiver delivery redrive NAME ID sends it again",
        "throttle": "The next claim corrects it",
        "told": "The next event for operators sets it aside automatically",
        "history": "It is shown without the damaged line",
        "trail": "It is shown without the damaged line",
        "health": "The next delivery writes it again",
        "open": "The open cases are listed again",
        "open:details": "The open cases are listed again",
        "closes": "That refund can then close another case",
        "attempts": "The event's attempts are counted from zero again",
        "format": "Only if no other program needs it. The receiver writes nothing until this is fixed",
    }
)


async def check_keys_of_store(store: Store) -> list[Finding]:
    """The keys whose names are known beforehand."""
    try:
        await store.inspection.check_keys()
    except StoreUnavailable as error:
        return [skip(KEYS, error.reason, f"cannot read the types of the keys: {error.detail}", "See above.")]
    return _foreign(store) or [ok(KEYS, "all checked keys have the right type")]


async def check_whole_store(store: Store) -> list[Finding]:
    """Every key, and every record that it holds."""
    try:
        unknown = await store.inspection.inspect()
    except StoreUnavailable as error:
        return [fail(RECORDS, error.reason, f"cannot read the store: {error.detail}", "See above.")]
    findings = [*_foreign(store), *_records(store)]
    if unknown:
        text = f"{len(unknown)} unknown keys, such as {unknown[0]}"
        findings.append(
            warn(
                UNKNOWN,
                "unknown_keys",
                text,
                "A newer version or another program writes to this database. Find out which.",
            )
        )
    return findings or [ok(RECORDS, "every record is readable")]


def _foreign(store: Store) -> list[Finding]:
    found = [
        fail(
            KEYS,
            "store_wrong_type",
            f"{each.key} is {f'a {each.found}' if each.found else 'of another type'}, but should be a {each.should_be}",
            _fix(each.key),
            each.key,
        )
        for each in store.damage.foreign
    ]
    return _bounded(found)


def _records(store: Store) -> list[Finding]:
    found = [
        fail(
            RECORDS,
            "store_record_unreadable",
            f"{key if part is None else f'{key}, {part!r},'} is damaged or of a later version: {what or 'unreadable'}",
            _fix(key, part),
            key,
        )
        for (key, part), what in store.damage.records.items()
    ]
    return _bounded(found)


def _bounded(found: list[Finding]) -> list[Finding]:
    if len(found) <= MOST_SHOWN:
        return found
    first = found[0]
    text = f"{len(found) - MOST_SHOWN} more of this kind"
    return [*found[:MOST_SHOWN], fail(first.check, first.reason, text, "Fix these and run it again.")]


def _fix(key: str, part: str | None = None) -> str:
    kind = read_kind(key)
    if kind in MONEY:
        return f"{COMPARE} {fix_of(key, part)} --compared"
    more = FIXES.get(kind, "")
    if kind in ("events", "throttle", "history", "trail", "told"):
        return f"{more}."
    return f"{fix_of(key, part)}{f'. {more}' if more else ''}."
