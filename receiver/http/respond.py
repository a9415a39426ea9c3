"""HTTP. JSON answers and entity tags."""

from __future__ import annotations

from hashlib import sha256

import msgspec
from starlette.responses import Response

from receiver.http.headers import Headers, values_of
from receiver.ledger.refund import Refund
from receiver.outbox.formats.cloudevents import AdvisedRefundJson


class JsonAnswer(Response):
    """Encoded JSON, with its headers ready to send. Starlette's own class would search the given headers for missing
    ones."""

    def __init__(self, body: bytes, status: int, headers: Headers) -> None:
        self.status_code, self.body, self.background = status, body, None
        length = (b"content-length", b"%d" % len(body))
        self.raw_headers = [(b"content-type", b"application/json"), length, *headers]


def json_answer(value: object, status: int = 200, **headers: str) -> Response:
    """The value as JSON; `_` in a header's name stands for `-`."""
    given = [(name.lower().replace("_", "-").encode(), text.encode("latin-1")) for name, text in headers.items()]
    return JsonAnswer(msgspec.json.encode(value), status, given)


def etag(refund: Refund, body: AdvisedRefundJson, encoded: bytes) -> str:
    """A weak tag: equal for answers that differ only in `asOf`. Advice changes without a revision of the refund.

    `encoded` is the body as JSON.
    """
    same = encoded if body.as_of is None else msgspec.json.encode(msgspec.structs.replace(body, as_of=None))
    digest = sha256(same).hexdigest()[:16]
    return f'W/"{refund.account}.{refund.revision}.{digest}"'


def matches(headers: Headers, tag: str) -> bool:
    """`If-None-Match` (RFC 9110, 13.1.2): a list of tags, compared weakly, or `*`."""
    given = ",".join(values_of(headers, b"if-none-match"))
    tags = [text.strip().removeprefix("W/") for text in given.split(",")]
    return tag.removeprefix("W/") in tags or "*" in tags
