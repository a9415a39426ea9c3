"""Pure. What every kind of event has, here and in its JSON: CloudEvents 1.0 in the JSON event format."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from urllib.parse import quote

import msgspec

from receiver.ledger.schema import Json, Rfc3339, tidy
from receiver.ledger.timestamps import format_rfc3339, parse_time

REGIONS = ("na", "eu", "jp")
EVENT_ID = re.compile(r"evt_[0-9a-f]{32}")


class AnEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of any kind."""

    id: str
    type: StrEnum
    account: str
    at: int
    """When it was written, ms."""

    def __hash__(self) -> int:
        return hash(self.id)


def filled(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts that are not empty."""
    return {name: text for name, text in texts.items() if text}


def to_entry(event: AnEvent, fields: Mapping[str, str]) -> dict[str, str]:
    """The event as flat texts: the fields of every event, and those of its kind."""
    return filled({"id": event.id, "type": event.type.value, "time": format_rfc3339(event.at), **fields})


def of_entry(types: type[StrEnum], account: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """The attributes that every event has, read from its flat texts."""
    return {"id": fields["id"], "type": types(fields["type"]), "account": account, "at": parse_time(fields["time"])}


def region_in(fields: Mapping[str, str]) -> str:
    """The account's region; empty if it is missing, or unknown to this version."""
    region = fields.get("region", "")
    return region if region in REGIONS else ""


def derived_id(*parts: str) -> str:
    """`evt_` and 32 hex digits of the SHA-256 over the parts, one a line."""
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()
    return f"evt_{digest[:32]}"


class CloudEventJson(Json, kw_only=True):
    """An event of a type that may be newer than this program: CloudEvents 1.0 (JSON event format)."""

    TYPES: ClassVar[Mapping[StrEnum, str]] = {}
    """The types of this kind of event, each with a sentence that says what happened."""

    specversion: Literal["1.0"]
    id: Annotated[
        str,
        msgspec.Meta(
            description="The same for the same event: drop ids that you have seen.",
            extra_json_schema={"pattern": f"^{EVENT_ID.pattern}$"},
        ),
    ]
    source: Annotated[str, msgspec.Meta(description="/amazonpay/ and the account.")]
    type: Annotated[str, msgspec.Meta(description="There may be new ones.")]
    subject: str
    time: Rfc3339
    datacontenttype: Literal["application/json"]
    data: Any


C = TypeVar("C", bound=CloudEventJson)


def enveloped(kind: type[C], event: AnEvent, subject: str, data: Json, **more: Any) -> C:
    """The event as CloudEvents 1.0, about `subject`. `more`: further attributes."""
    return kind(
        specversion="1.0",
        id=tidy(event.id),
        source=f"/amazonpay/{quote(tidy(event.account), safe='')}",
        type=event.type.value,
        subject=tidy(subject),
        time=format_rfc3339(event.at),
        datacontenttype="application/json",
        data=data,
        **more,
    )
