"""Pure. The formats in which subscribers can be told: what each needs, and how many events one message may hold.

| format | default types | needs | may have | credential | most in one | wait after a message |
|---|---|---|---|---|---|---|
| cloudevents | declined | url, secret | | secret | 1 | 0 |
| slack | declined, stuck, conflict | url | links | the url | 50 | 10 s |
| pagerduty | declined, conflict | routing_key | url, links | routing_key | 1 | 2 s |
| alertmanager | declined, stuck, conflict | url | authorization, links | authorization | 50 | 1 s |

Of old refunds that are taken in (`backfill`), programs are told (cloudevents) and people are not (all others), unless
the subscriber says otherwise. Links are `public_url` and `seller_central`. By default people hear of what needs them: a
decline, and a contradiction; of a refund that is stuck too, except by pager: nothing can be done about it at night.
PagerDuty and Alertmanager know incidents: they can be told of declined, stuck and conflict only, and are told by
themselves what ends these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from receiver.ledger.lifecycle import EventType
from receiver.outbox.events.incident import OPENING
from receiver.outbox.subscribers.fields import VALID_TYPES, shown
from receiver.outbox.subscribers.url import FORBIDDEN_CHARACTERS, URL_TEXT

CLOUDEVENTS = "cloudevents"
LINKS = ("public_url", "seller_central")
ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")
"""PagerDuty: "the 32 character Integration Key"."""
AUTHORIZATION = re.compile(r"[!-~]+( [!-~]+)+")
LONGEST_AUTHORIZATION, LONGEST_LINK = 4096, 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format. `url` is the address where people give none; `window` in ms."""

    types: tuple[EventType, ...]
    signed: bool = False
    backfill: bool = False
    """Whether it is told of old refunds that are taken in, unless the subscriber says otherwise."""
    incidents: bool = False
    credential: str = ""
    """The field that is a credential beside signing secrets: it is kept from people."""
    needs_credential: bool = False
    url: str = ""
    most_in_one: int = 1
    window: int = 0


CHAT_TYPES = (EventType.DECLINED, EventType.STUCK, EventType.CONFLICT)
FORMATS: Mapping[str, Format] = {
    CLOUDEVENTS: Format(types=(EventType.DECLINED,), signed=True, backfill=True),
    "slack": Format(types=CHAT_TYPES, credential="url", most_in_one=50, window=10_000),
    "pagerduty": Format(
        types=(EventType.DECLINED, EventType.CONFLICT),
        incidents=True,
        credential="routing_key",
        needs_credential=True,
        url="https://events.pagerduty.com/v2/enqueue",
        window=2_000,
    ),
    "alertmanager": Format(types=CHAT_TYPES, incidents=True, credential="authorization", most_in_one=50, window=1_000),
}


def format_spec(name: object) -> Format:
    """What is true of the format of that name; of one that is not known, what is true of the default."""
    return FORMATS.get(name if isinstance(name, str) else "", FORMATS[CLOUDEVENTS])


def format_problems(data: Mapping[str, object]) -> Iterator[str]:
    """Everything wrong with `format` and with the fields that some formats have, a sentence each."""
    name = data.get("format")
    if name is not None and name not in tuple(FORMATS):
        yield f"format: {shown(name)} is not a format; known are {', '.join(FORMATS)}"
    known, said = format_spec(name), name if isinstance(name, str) and name in FORMATS else CLOUDEVENTS
    for field in ("secret", "secrets") if not known.signed else ():
        if data.get(field) is not None:
            yield f"{field}: is not used by {said}, which is not signed; leave it out"
    for field in ("routing_key", "authorization"):
        if field != known.credential and data.get(field) is not None:
            yield f"{field}: is not used by {said}; leave it out"
    for field in LINKS:
        if known.signed and data.get(field) is not None:
            yield f"{field}: is not used by {said}, whose receivers make their own links; leave it out"
        elif data.get(field) is not None:
            yield from (f"{field}: {problem}" for problem in link_problems(data[field]))
    yield from (f"{known.credential}: {problem}" for problem in _credential_problems(known, data))
    yield from _type_problems(known, said, data.get("types"))


def link_problems(url: object) -> list[str]:
    """What is wrong with an address that people are sent to; it is not repeated."""
    if not isinstance(url, str) or not URL_TEXT.fullmatch(url) or FORBIDDEN_CHARACTERS.search(url):
        return ["is not an address; write for example https://refunds.example"]
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return ["cannot be taken apart into host and path; write for example https://refunds.example"]
    if parts.scheme not in ("http", "https") or not host:
        return ["must begin with https:// or http:// and a host; write for example https://refunds.example"]
    if "@" in parts.netloc or "?" in url or "#" in url or len(url) > LONGEST_LINK:
        return [f"must hold no user, query or fragment, and at most {LONGEST_LINK} characters"]
    return []


def _credential_problems(known: Format, data: Mapping[str, object]) -> list[str]:
    value = data.get(known.credential)
    if known.credential == "routing_key":
        mend = "PagerDuty shows it as the integration key of an Events API v2 integration: 32 letters and digits"
        if value is None:
            return [f"is missing; {mend}"]
        return [] if isinstance(value, str) and ROUTING_KEY.fullmatch(value) else [f"is not a routing key; {mend}"]
    if known.credential == "authorization" and value is not None:
        fine = isinstance(value, str) and AUTHORIZATION.fullmatch(value) and len(value) <= LONGEST_AUTHORIZATION
        return [] if fine else ["is not the value of such a header; write Bearer TOKEN, or Basic and base64"]
    return []


def _type_problems(known: Format, said: str, types: object) -> Iterator[str]:
    if not known.incidents or not isinstance(types, list | tuple):
        return
    wrong = [each for each in types if isinstance(each, str) and each not in OPENING]
    if any(each in VALID_TYPES for each in wrong):
        yield f"types: {said} knows incidents; choose among {', '.join(OPENING)}"
