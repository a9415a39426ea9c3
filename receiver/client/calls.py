"""Edge: the web. Operations that take more than one call: waiting for an outcome, and reading a list to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Final

from receiver.client.answers import RefundPage
from receiver.client.api import Api, decode, target
from receiver.client.errors import ApiProblem, may_pass, not_the_api
from receiver.errors import ReceiverError
from receiver.exchange import Response
from receiver.outbox.formats.cloudevents import AdvisedRefundJson

MOST_PER_PAGE: Final = 200
WAIT_STEP: Final = 25
"""Seconds of one `?wait=`: well below what proxies let a request take."""
PENDING: Final = 202
"""The status of the service's answer while Amazon has not answered."""
REPLAYED: Final = "idempotent-replayed"
"""The header that says that an earlier call made it."""
ASK_EVERY: Final = 2.0
ASK_WAIT: Final = 30
"""Seconds that the service may take to ask Amazon."""


async def until_final(api: Api, refund_id: str, wait: int) -> Response:
    """The refund once it is final, or after `wait` seconds. Raises `ApiProblem` (`no_such_refund`) if it is still not
    known then."""
    while True:
        step = min(wait, WAIT_STEP)
        try:
            answer = await api.call("GET", target("refunds", refund_id, account=api.account, wait=step), wait=step)
        except ApiProblem as problem:
            if problem.reason != "no_such_refund" or wait <= step:
                raise
        else:
            if wait <= step or decode(answer, AdvisedRefundJson).final:
                return answer
        wait -= step


async def until_answered(
    api: Api, path: str, body: Mapping[str, object] | None, *, key: str = "", wait: float
) -> Response:
    """The answer to a call that issues a refund, repeated for `wait` seconds while Amazon has not answered.

    A repetition has the same key and body, so that it is the same refund. Once the service has answered, calls that
    fail and may succeed later are repeated too. The header `Idempotent-Replayed` is that of the first call: whether
    the refund was made before. Raises `ReceiverError`: if no answer came, the refund may be in progress.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait
    repeated = None
    while True:
        pause = ASK_EVERY
        try:
            answer = await api.call("POST", path, body=body, idempotency_key=key, wait=ASK_WAIT)
        except ReceiverError as error:
            repeated = False if repeated is None else repeated
            pause = max(pause, error.retry_after or 0)
            if not (api.met and may_pass(error)) or clock() + pause > deadline:
                raise
        else:
            repeated = answer.headers.get(REPLAYED) == "true" if repeated is None else repeated
            if answer.status != PENDING or clock() + pause > deadline:
                return replace(answer, headers={**answer.headers, REPLAYED: "true" if repeated else "false"})
        await asyncio.sleep(pause)


async def refund_pages(
    api: Api, filters: Mapping[str, str], limit: int | None = None
) -> AsyncIterator[tuple[Response, RefundPage]]:
    """Page after page of the list, up to `limit` refunds. A short or empty page is not always the last one."""
    cursor, left = "", limit
    while True:
        size = MOST_PER_PAGE if left is None else min(left, MOST_PER_PAGE)
        answer = await api.call("GET", target("refunds", account=api.account, **filters, cursor=cursor, limit=size))
        page = decode(answer, RefundPage)
        yield answer, page
        left = None if left is None else left - len(page.refunds)
        if not page.next_cursor or (left is not None and left <= 0):
            return
        if page.next_cursor == cursor:
            raise not_the_api()
        cursor = page.next_cursor
