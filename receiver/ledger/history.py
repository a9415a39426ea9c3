"""Pure. The JSON of a refund's history: one line for each revision."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from receiver.ledger.refund import Revision, Source, is_final
from receiver.ledger.schema import (
    AmazonTime,
    IssuedBy,
    IssuedByUser,
    Json,
    ReasonCode,
    RefundState,
    ResolutionJson,
    Rfc3339,
    known_time,
    resolution_json,
    tidy,
)
from receiver.ledger.timestamps import format_rfc3339


class StatusJson(Json, kw_only=True):
    """The state in a refund's history."""

    state: RefundState
    reason_code: ReasonCode = None
    last_updated_timestamp: AmazonTime | None = None


class RevisionJson(Json, kw_only=True):
    """One line of a refund's history."""

    status_details: StatusJson
    revision: Annotated[int, Meta(extra_json_schema={"minimum": 1})]
    final: bool
    conflict: bool = False
    changed_at: Rfc3339
    source: Annotated[str, Meta(extra_json_schema={"enum": [*Source]})]
    issued_by: IssuedBy = None
    issued_by_user: IssuedByUser = None
    resolution: ResolutionJson | None = None


def revision_json(revision: Revision) -> RevisionJson:
    """The JSON of one line of a refund's history, with the names, forms and order of `refund_json`."""
    return RevisionJson(
        status_details=StatusJson(
            state=tidy(revision.state),
            reason_code=tidy(revision.reason_code) or None,
            last_updated_timestamp=known_time(revision.updated_at),
        ),
        revision=revision.revision,
        final=is_final(revision.state),
        conflict=revision.conflict,
        changed_at=format_rfc3339(revision.at),
        source=str(revision.source),
        issued_by=revision.issued_by or None,
        issued_by_user=revision.issued_by_user or None,
        resolution=resolution_json(revision.resolution),
    )
