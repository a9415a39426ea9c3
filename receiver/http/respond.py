"""HTTP. JSON answers and entity tags."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec
from starlette.responses import Response

from receiver.ledger.refund import Refund
from receiver.outbox.formats.cloudevents import AdvisedRefundJson


def json_answer(value: object, status: int = 200, **headers: str) -> Response:
    """The value as JSON; `_` in a header's name stands for `-`."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(msgspec.json.encode(value), status, named, "application/json")


def etag(refund: Refund, body: AdvisedRefundJson) -> str:
    """A weak tag: equal for answers that differ only in `asOf`. Advice changes without a revision of the refund."""
    digest = sha256(msgspec.json.encode(msgspec.structs.replace(body, as_of=None))).hexdigest()[:16]
    return f'W/"{refund.account}.{refund.revision}.{digest}"'


def matches(headers: Sequence[str], tag: str) -> bool:
    """`If-None-Match` (RFC 9110, 13.1.2): a list of tags, compared weakly, or `*`."""
    tags = [text.strip().removeprefix("W/") for text in ",".join(headers).split(",")]
    return tag.removeprefix("W/") in tags or "*" in tags
