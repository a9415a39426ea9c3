"""Edge: the web. The client, with a method for each operation."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from receiver.client.answers import EventPage, RefundPage
from receiver.client.api import Api, convert, decode, read_base, read_token, target
from receiver.client.calls import PENDING, refund_pages, until_answered, until_final
from receiver.client.errors import ClientClosed, EventsLost
from receiver.client.feed import EventFollower, FeedEvent
from receiver.client.retrying import Notify, RetryingCaller
from receiver.errors import ReceiverError, TransportError
from receiver.exchange import Request, Response
from receiver.http.api.schema import PendingRequestJson
from receiver.http.feed.schema import ResetJson
from receiver.ledger.refund import How
from receiver.ledger.schema import RefundJson
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.formats.cloudevents import AdvisedRefundJson

if TYPE_CHECKING:
    from receiver.transport.client import Transport

log = logging.getLogger("receiver.client")

Issued = RefundJson | PendingRequestJson
"""The refund; or, while Amazon has not answered, the request that the service keeps trying."""


class Client(Api):
    """The API of the service at `url`, with a bearer token, over pooled connections.

    `account` is the name of one account; empty: all that the token may see. Plain http is for this machine only, unless
    `insecure`. `notify` is called when `follow` waits for the service (default: the logger `receiver.client`). Use it
    as `async with`, or call `aclose`. It serves any number of tasks of one event loop.

    Every method raises `ApiProblem` if the service refuses or fails, and `TransportError` if no whole answer came. The
    constructor raises `ConfigurationError`.
    """

    def __init__(
        self, url: str, *, token: str, account: str = "", insecure: bool = False, notify: Notify | None = None
    ) -> None:
        super().__init__(self._exchange, read_base(url, insecure=insecure), read_token(token, "token"), account)
        self._steadily = RetryingCaller(self, notify or _log)
        self._transport: Transport | None = None
        self._opening, self._closed = asyncio.Lock(), False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection. Calls under way, and all later ones, raise `ClientClosed`."""
        self._closed = True
        async with self._opening:
            transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def get(self, refund_id: str) -> AdvisedRefundJson:
        """The refund as it is known now. Raises `ApiProblem` (`no_such_refund`)."""
        return decode(await self.call("GET", target("refunds", refund_id, account=self.account)), AdvisedRefundJson)

    async def wait(self, refund_id: str, timeout: float = 60.0) -> AdvisedRefundJson:
        """The refund as soon as it is `final`, or as it is after `timeout` seconds.

        Also waits for a refund that is not known yet. Raises `ApiProblem` (`no_such_refund`) if it still is not.
        """
        return decode(await until_final(self, refund_id, math.ceil(timeout)), AdvisedRefundJson)

    async def list(
        self,
        *,
        state: str = "",
        reason: str = "",
        charge: str = "",
        order: str = "",
        since: datetime | None = None,
        is_open: bool = False,
    ) -> AsyncGenerator[RefundJson, None]:
        """The refunds that match all filters, latest change first, read page by page.

        `since`: changed at this time or later, with a time zone. `is_open`: declined, and the buyer may still be owed
        the money. A refund whose record is damaged is left out: `unreadable` of the API's page names it.
        """
        filters = {
            "state": state,
            "reason": reason,
            "charge": charge,
            "order": order,
            "since": _instant(since) if since else "",
            "open": "true" if is_open else "",
        }
        page: RefundPage
        async for _, page in refund_pages(self, filters):
            for refund in page.refunds:
                yield convert(refund, RefundJson)

    async def follow(
        self,
        *,
        after: str = "",
        types: Sequence[str] = (),
        reasons: Sequence[str] = (),
        on_lost: Callable[[ResetJson], Awaitable[None]] | None = None,
    ) -> AsyncGenerator[FeedEvent, None]:
        """Events without end, each once, from `after`: a `cursor`, `beginning`, or empty for now.

        Keep the `cursor` of an event together with what you did about it, and begin there next time: no event is missed
        or repeated. It waits while the service is unavailable, and raises only if the first call fails. `types` are
        words such as `declined` or `amazonpay.balance.suspected`; default: all events of refunds.

        If events were lost, because they are older than what the service keeps or its store was emptied, `on_lost` is
        called, and the feed goes on with the oldest event that is kept. Without it, `EventsLost` is raised.
        """

        async def look(page: EventPage) -> None:
            if page.reset:
                if on_lost is None:
                    raise EventsLost(page.reset.detail, page.reset.accounts)
                await on_lost(page.reset)

        follower = EventFollower(self, self._steadily, types=_each(types), reasons=_each(reasons), after=after)
        async for event in follower.events(look):
            yield event

    async def issue(
        self,
        charge_id: str,
        amount: Decimal | str | None = None,
        currency: str | None = None,
        *,
        key: str,
        full: bool = False,
        soft_descriptor: str = "",
        order_reference: str = "",
        besides: Sequence[str] = (),
        wait: float = 30.0,
    ) -> Issued:
        """Refund a charge: an amount, or with `full` all that is left of what was captured.

        `key` identifies this refund, such as your own number of it. The same key is the same refund: repeat the call
        with it after any error, and the buyer is never paid twice. Choose it before the first call, and keep it.
        `besides` names other refunds of the charge that you know of. Waits for Amazon's answer for `wait` seconds.

        Amazon may have declined the refund already: look at its state. Raises `ValueError` unless there is either an
        amount with its currency or `full`, and `TypeError` for an amount that is a float.
        """
        if full != (amount is None) or (amount is None) != (currency is None):
            raise ValueError("Give either amount and currency, or full=True.")
        if not isinstance(amount, Decimal | str | None):
            raise TypeError("An amount is a Decimal or a text, because a float is not exact.")
        text = format(amount, "f") if isinstance(amount, Decimal) else amount
        wanted = {
            "chargeId": charge_id,
            "refundAmount": {"amount": text, "currencyCode": currency} if text is not None else None,
            "full": full,
            "softDescriptor": soft_descriptor,
            "orderReference": order_reference,
            "account": self.account,
            "besides": _each(besides),
        }
        body = {name: value for name, value in wanted.items() if value}
        return _issued(await until_answered(self, target("refunds"), body, key=key, wait=wait))

    async def retry(self, refund_id: str, *, besides: Sequence[str] = (), wait: float = 30.0) -> Issued:
        """Issue a declined refund again: a new refund, at most one, however often and from wherever this is called.

        It needs no key: a repeated call returns the refund that the first one made. `besides` and `wait` are as in
        `issue`.
        """
        path = target("refunds", refund_id, "retry", account=self.account)
        body = {"besides": _each(besides)} if besides else None
        return _issued(await until_answered(self, path, body, wait=wait))

    async def close_case(self, refund_id: str, how: How | str, *, note: str = "", paid_by: str = "") -> RefundJson:
        """Close the case of a declined refund. Returns the first refund of its chain, which has the case.

        `how`: `refunded_elsewhere`, with the refund that paid the buyer as `paid_by`; or `compensated` or `not_owed`,
        with a `note`. Repeating it changes nothing.
        """
        body = {"how": str(how), "note": note, "refundId": paid_by}
        kept = {name: value for name, value in body.items() if value}
        answer = await self.call("POST", target("refunds", refund_id, "close", account=self.account), body=kept)
        return decode(answer, RefundJson)

    async def reopen_case(self, refund_id: str) -> RefundJson:
        """Reopen a case that a person closed. Returns the first refund of its chain."""
        answer = await self.call("POST", target("refunds", refund_id, "reopen", account=self.account))
        return decode(answer, RefundJson)

    async def _exchange(self, request: Request, **limits: Any) -> Response:
        transport = await self._open()
        try:
            try:
                return await transport.send(request, **limits)
            except TransportError as error:
                # The other side may have closed the pooled connection just then.
                if self._closed or request.method != "GET" or error.reason != "cut":
                    raise
            return await transport.send(request, **limits)
        except TransportError as error:
            if self._closed:
                raise ClientClosed("The client was closed.") from error
            raise

    async def _open(self) -> Transport:
        async with self._opening:
            if self._closed:
                raise ClientClosed("The client was closed.")
            if self._transport is None:
                # In a thread: it loads libraries and the system's certificates, which takes up to half a second.
                self._transport = await asyncio.to_thread(_transport)
            return self._transport


def _transport() -> Transport:
    from receiver.transport.client import Transport

    return Transport()


def _each(words: Sequence[str]) -> Sequence[str]:
    """The words as a list; a single string is one word."""
    return [words] if isinstance(words, str) else [*words]


def _issued(answer: Response) -> Issued:
    return decode(answer, PendingRequestJson) if answer.status == PENDING else decode(answer, RefundJson)


def _instant(time: datetime) -> str:
    """Raises `ValueError` for a time without a zone."""
    if time.tzinfo is None:
        raise ValueError("`since` needs a time zone, such as datetime.now(UTC).")
    return format_rfc3339(int(time.timestamp() * 1000))


def _log(error: ReceiverError | None, seconds: float) -> None:
    if error is None:
        log.info("The service is back.")
    else:
        log.warning("%s Trying again in %g s. [%s]", error.detail, seconds, error.reason)
