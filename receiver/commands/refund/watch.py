"""Command. `receiver refund watch`: follows one refund, or all of them, change by change.

A change is one revision of a refund, in the JSON of a refund as the API gives it. The list has only the latest revision
of each refund. Earlier ones that were not shown yet come from the refund's history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from receiver.client.answers import History, RefundPage
from receiver.client.api import Api, convert, decode, target
from receiver.client.calls import refund_pages
from receiver.client.errors import ApiProblem, not_the_api
from receiver.client.retrying import RetryingCaller
from receiver.commands.client.messages import notifier
from receiver.commands.console import read_ms
from receiver.ledger.history import RevisionJson
from receiver.ledger.timestamps import format_rfc3339
from receiver.outbox.formats.cloudevents import AdvisedRefundJson

STEP = 5
"""Seconds of one `?wait=`: a change that is not final is shown at most this late."""
EVERY = 1.0
"""Seconds between two reads of the list, and at least between two reads of a refund."""
OVERLAP_MS = 10_000
"""A change gets its time before it is written, so a later entry can have an earlier time."""
MOST_REMEMBERED = 10_000

Change = dict[str, Any]
Mark = tuple[int, int]
"""A revision and when it was written, ms. Revisions restart at 1 if the store was emptied."""


class ChangeWatcher:
    """Passes changes to `show`, and messages to `say`.

    It survives outages of the service, but raises `TransportError` or `ApiProblem` if the first call fails: then the
    address is probably wrong. Errors that waiting cannot fix (4xx) always raise.
    """

    def __init__(
        self, api: Api, show: Callable[[Change], None], say: Callable[[list[str]], None], every: float = EVERY
    ) -> None:
        self._api, self._show, self._say, self._every = api, show, say, every
        self._steadily = RetryingCaller(api, notifier(say))
        self._shown: dict[tuple[str, str], Mark] = {}
        self._floor = 0

    async def one(self, refund_id: str) -> None:
        """The past changes of the refund and, until it is final, the new ones."""
        tag, wait, announced = "", 0, False
        while True:
            started = asyncio.get_running_loop().time()
            refund, tag = await self._steadily(self._look, refund_id, wait, tag)
            changes = await self._steadily(self._unshown, refund) if refund else []
            for change in changes:
                self._show(change)
            if changes and _revision(changes[-1]).final:
                return
            if not refund and not tag and not announced:
                self._say(["The service does not know this refund yet. Waiting. Press Ctrl-C to stop."])
                announced = True
            if wait:
                await asyncio.sleep(max(0.0, started + self._every - asyncio.get_running_loop().time()))
            wait = STEP

    async def every(self) -> None:
        """Every change from now on."""
        newest = await self._steadily(self._newest)
        self._floor = max(0, newest - OVERLAP_MS)
        for refund in await self._steadily(self._since, self._floor):
            newest = max(newest, self._remember(refund))
        self._say(["Watching all refunds. Press Ctrl-C to stop."])
        while True:
            await asyncio.sleep(self._every)
            refunds = await self._steadily(self._since, max(0, newest - OVERLAP_MS))
            changes: list[tuple[int, Change]] = []
            for refund in refunds:
                newest = max(newest, _mark(refund)[1])
                changes += [(_mark(change)[1], change) for change in await self._steadily(self._unshown, refund)]
            for _, change in sorted(changes, key=lambda each: each[0]):
                self._show(change)

    async def _look(self, refund_id: str, wait: int, tag: str) -> tuple[Change | None, str]:
        """(refund, ETag). The refund is None if it is unchanged, or unknown; then the tag is empty."""
        path = target("refunds", refund_id, account=self._api.account, wait=wait)
        try:
            answer = await self._api.call("GET", path, wait=wait, etag=tag)
        except ApiProblem as problem:
            if problem.reason == "no_such_refund":
                return None, ""
            raise
        if answer.status == HTTPStatus.NOT_MODIFIED:
            return None, tag
        return decode(answer, dict[str, Any]), answer.headers.get("etag", "")

    async def _newest(self) -> int:
        """When the latest change was, ms; 0 where there is none yet."""
        answer = await self._api.call("GET", target("refunds", account=self._api.account, limit=1))
        refunds = decode(answer, RefundPage).refunds
        return _mark(refunds[0])[1] if refunds else 0

    async def _since(self, since: int) -> list[Change]:
        """Refunds that changed at `since` (ms) or later, on however many pages."""
        filters = {"since": format_rfc3339(since) if since else ""}
        return [refund async for _, page in refund_pages(self._api, filters) for refund in page.refunds]

    async def _unshown(self, refund: Change) -> list[Change]:
        """The changes up to this one that were not shown yet, oldest first. Marks them as shown."""
        last = self._shown.get(_name(refund))
        mark = _mark(refund)
        if not _newer(mark, last):
            return []
        if mark[0] == 1 or (last and mark[0] == last[0] + 1):
            changes = [refund]
        else:
            changes = [each for each in await self._history(refund) if self._is_new(_mark(each), last)]
        self._remember(changes[-1] if changes else refund)
        return changes

    async def _history(self, refund: Change) -> list[Change]:
        account, refund_id = _name(refund)
        answer = await self._api.call("GET", target("refunds", refund_id, "history", account=account))
        revisions = decode(answer, History).revisions
        return [refund if _mark(each) == _mark(refund) else _at(refund, each) for each in revisions]

    def _is_new(self, mark: Mark, last: Mark | None) -> bool:
        return _newer(mark, last) and (last is not None or mark[1] >= self._floor)

    def _remember(self, refund: Change) -> int:
        """Marks this change as shown, and returns its time in ms."""
        name, mark = _name(refund), _mark(refund)
        self._shown.pop(name, None)
        self._shown[name] = mark
        if len(self._shown) > MOST_REMEMBERED:
            _, forgotten = self._shown.pop(next(iter(self._shown)))
            self._floor = max(self._floor, forgotten + 1)
        return mark[1]


def _newer(mark: Mark, last: Mark | None) -> bool:
    return last is None or mark[0] > last[0] or mark[1] > last[1]


def _revision(change: Change) -> RevisionJson:
    return convert(change, RevisionJson)


def _mark(change: Change) -> Mark:
    """Raises `ApiProblem` for a refund without revision or time."""
    revision = _revision(change)
    ms = read_ms(revision.changed_at)
    if ms is None:
        raise not_the_api()
    return revision.revision, ms


def _name(refund: Change) -> tuple[str, str]:
    answer = convert(refund, AdvisedRefundJson)
    return answer.account, answer.refund_id


def _at(refund: Change, revision: Change) -> Change:
    """The refund as of an earlier revision. The history does not keep `reasonDescription`."""
    status = {**refund["statusDetails"], "reasonDescription": None, **revision["statusDetails"]}
    return {**refund, **revision, "statusDetails": status}
