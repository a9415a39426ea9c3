"""HTTP. The body of `POST /v1/subscribers/{name}/redrive`: its schema and its parser."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from receiver.errors import BadRequest
from receiver.http.api.bodies import object_schema, read_time
from receiver.http.api.params import Schema, time, whole
from receiver.outbox.events.envelope import EVENT_ID

MOST_IDS = 1000
STREAM_ID = re.compile(r"([0-9]{1,15})-([0-9]{1,19})")
"""Redis has 64 bits for each number: 20 digits may be too many."""

DRY_RUN: Final[Schema] = {"type": "boolean", "description": "Only report what would be sent."}
REDRIVE: Final[Schema] = {
    "description": "The events to resend: `ids` select any event still kept; a time range and `all` select dead ones.",
    "oneOf": [
        object_schema(
            "Specific events.",
            ("ids",),
            {
                "ids": {
                    "type": "array",
                    "items": {"type": "string", "pattern": whole(EVENT_ID, STREAM_ID)},
                    "minItems": 1,
                    "maxItems": MOST_IDS,
                    "description": "Ids of events (webhook-id) or stream ids (streamId).",
                },
                "dryRun": DRY_RUN,
                "all": {"const": False},
            },
            {"ids": ["evt_0123456789abcdef0123456789abcdef"], "dryRun": True},
        ),
        {
            **object_schema(
                "Dead events in a time range.",
                (),
                {
                    "since": time("Written at or after this time."),
                    "until": time("Written at or before this time."),
                    "dryRun": DRY_RUN,
                    "all": {"const": False},
                },
                {"since": "2026-01-31T12:00:00Z", "dryRun": True},
            ),
            "anyOf": [{"required": ["since"]}, {"required": ["until"]}],
        },
        object_schema(
            "All dead events.", ("all",), {"all": {"const": True}, "dryRun": DRY_RUN}, {"all": True, "dryRun": True}
        ),
    ],
}


class RedriveRequest(msgspec.Struct, frozen=True):
    ids: tuple[str, ...]
    since: int
    until: int
    dry_run: bool


def read_wanted(body: dict[str, Any]) -> RedriveRequest:
    unknown = sorted(set(body) - {"ids", "since", "until", "all", "dryRun"})
    if unknown:
        raise BadRequest(
            f"Unknown field: {ascii(unknown[0])[:50]}. Known fields: ids, since, until, all, dryRun.",
            reason="bad_redrive",
        )
    ids, flags = body.get("ids"), {key: body.get(key, False) for key in ("all", "dryRun")}
    ways = (ids is not None) + ("since" in body or "until" in body) + (flags["all"] is True)
    if ways != 1 or any(not isinstance(flag, bool) for flag in flags.values()):
        raise BadRequest("Specify one of: ids; since and until; all (true).", reason="bad_redrive")
    if ids is not None and (
        not isinstance(ids, list)
        or not 1 <= len(ids) <= MOST_IDS
        or any(not isinstance(i, str) or not (EVENT_ID.fullmatch(i) or is_stream_id(i)) for i in ids)
    ):
        raise BadRequest(
            f"`ids` must be a list of 1 to {MOST_IDS} ids, such as evt_… (webhook-id) or 1760000000000-0 (streamId).",
            reason="bad_redrive",
        )
    times = [read_time(body[key], key, "bad_redrive") if key in body else 0 for key in ("since", "until")]
    if times[1] and times[0] > times[1]:
        raise BadRequest("`since` is later than `until`.", reason="bad_redrive")
    return RedriveRequest(tuple(ids or ()), times[0], times[1], flags["dryRun"])


def is_stream_id(text: str) -> bool:
    """Redis parses the second part as 64 bits, and rejects a larger one."""
    found = STREAM_ID.fullmatch(text)
    return found is not None and int(found[2]) < 2**64
