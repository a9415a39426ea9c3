"""HTTP. The types of the feed's answers, as in `api/schema.py`."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from receiver.http.api.schema import either
from receiver.ledger.schema import Json
from receiver.outbox.formats.cloudevents import EVENT_SHAPES


class ResetJson(Json, kw_only=True):
    """Events may be lost; the feed continues from the oldest event kept."""

    accounts: Annotated[dict[str, str], Meta(description="By account: trimmed or emptied.")]
    detail: str


class EventPageJson(Json, kw_only=True):
    """A page of events, oldest first."""

    events: Annotated[list[Any], Meta(extra_json_schema=either(*EVENT_SHAPES))]
    cursors: Annotated[list[str], Meta(description="For each event, the cursor after it.")]
    after: Annotated[str, Meta(description="The cursor for the next page.")]
    more: Annotated[bool, Meta(description="Whether more events are already available.")]
    reset: ResetJson | UnsetType = UNSET
