"""Edge: Redis. The sizes of an account's data for the metrics, and the subscribers that need attention."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from receiver.errors import StoreUnavailable
from receiver.ledger.age import DAY
from receiver.ledger.declines.job import JobState
from receiver.ledger.money import sums_of_minor
from receiver.ledger.reconciliation.finding import FindingKind
from receiver.ledger.refund import Reason
from receiver.store.dashboard import AlertingProblem, Overview
from receiver.store.deliveries.dead_letters import DeadLetters
from receiver.store.deliveries.queues import Health
from receiver.store.deliveries.subscribers import SubscriberList, SubscriberRepository
from receiver.store.redis.base import AccountRepository, Connection
from receiver.store.redis.damage import WrongType
from receiver.store.redis.keys import Keys
from receiver.store.refunds.cases import OpenCase, OpenCases
from receiver.store.refunds.report_runs import FAILED
from receiver.store.requests.open_requests import OpenRequestStore

KNOWN = frozenset(reason.value for reason in Reason)
"""The reason codes with a separate gauge: the set is open, and a label should not be."""
LONGEST_MEASURE = 1.5
"""Seconds for one account."""
MOST_OLD = 200
"""Pending refunds to search for the oldest."""
AGES = MappingProxyType({"1h": 3_600_000, "1d": 86_400_000, "7d": 604_800_000})
"""ms. Pending refunds that have not changed for this long are counted; the key is the label of the metric."""


class Gauges(AccountRepository):
    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        dashboard: Overview,
        subscribers: SubscriberRepository,
        deliveries: DeadLetters,
        requests: OpenRequestStore,
        cases: OpenCases,
    ) -> None:
        super().__init__(connection, keys)
        self._dashboard, self._subscribers = dashboard, subscribers
        self._deliveries, self._requests, self._cases = deliveries, requests, cases

    async def measure(self) -> dict[str, float]:
        """Sizes of the account: `pending`, `hinted`, `due`, `refreshed`, `second_looks`, `events`, `lanes`,
        `findings:<kind>`, and those of `request_sizes`; and `reconcile_failed` (1 or 0).

        For each subscriber, as `waiting:<name>` and so on: `waiting`, `owed` (events that must stay in the stream),
        `dead`, `failures` in a row, `paused` (1 or 0), and `oldest_waiting` in seconds.

        Of open cases those of `_open_declines`, of disputes those of `_disputes_to_answer`, of jobs that of
        `_paused_job`.

        `oldest_pending_seconds` is the age of the oldest pending refund among the `MOST_OLD` that changed least
        recently. Events such as `stuck` count as changes, so the oldest refund need not be the first of these.
        `pending_unchanged:<age>` counts the pending refunds that have not changed for that long.
        """
        subscriber_list = await self._subscribers.read()
        names = subscriber_list.names
        commands = {
            "pending": ("ZCARD", self.keys.state("RefundInitiated")),
            "unknown": ("ZCARD", self.keys.state("")),
            "hinted": ("ZCARD", self.keys("hinted")),
            "due": ("ZCARD", self.keys("due")),
            "refreshed": ("ZCARD", self.keys("refreshed")),
            "second_looks": ("ZCARD", self.keys("second_looks")),
            "reconcile_failed": ("HEXISTS", self.keys("report_run"), FAILED),
            "events": ("XLEN", self.keys("events")),
            **{
                f"pending_unchanged:{age}{state}": ("ZCOUNT", self.keys.state(state), "-inf", self.now() - ms)
                for age, ms in AGES.items()
                for state in ("RefundInitiated", "")
            },
            **{f"findings:{kind}": ("ZCARD", self.keys("findings", kind)) for kind in FindingKind},
            **{f"waiting:{name}": ("ZCARD", self.keys("lane", name)) for name in names},
            **{f"owed:{name}": ("ZCARD", self.keys("owed", name)) for name in names},
            **{f"dead:{name}": ("HLEN", self.keys("dead", name)) for name in names},
        }
        answers = await asyncio.gather(*(self._size(*command) for command in commands.values()))
        sizes = dict(zip(commands, answers, strict=True))
        sizes["pending"] += sizes.pop("unknown")
        for age in AGES:
            sizes[f"pending_unchanged:{age}"] += sizes.pop(f"pending_unchanged:{age}RefundInitiated")
        sizes["lanes"] = len(names)
        for name in names:
            sizes |= await self._health_sizes(name, subscriber_list)
        sizes["oldest_pending_seconds"] = await self._oldest_pending_age() / 1000
        sizes["wrong_type_keys"] = sum(each.account in ("", self.account) for each in self.damage.foreign)
        sizes |= await self._open_declines()
        sizes |= await self._paused_job()
        return sizes | await self._requests.request_sizes() | await self._disputes_to_answer()

    async def _open_declines(self) -> dict[str, float]:
        """`declines:<reason>` and `declines_amount:<currency>` of open cases, and `oldest_decline_seconds`."""
        cases: list[OpenCase] = []
        with contextlib.suppress(WrongType):
            cases = await self._cases.all()
        counts = Counter(case.reason if case.reason in KNOWN else "other" for case in cases)
        totals = sums_of_minor((case.minor_units, case.currency) for case in cases)
        return {
            "oldest_decline_seconds": max(self.now() - min(case.since for case in cases), 0) / 1000 if cases else 0.0,
            **{f"declines:{reason}": float(count) for reason, count in counts.items()},
            **{f"declines_amount:{total.currency_code}": float(total.amount) for total in totals},
        }

    async def _paused_job(self) -> dict[str, float]:
        """`job_paused`: 1 while the account's job waits for a person, else 0."""
        with contextlib.suppress(WrongType):
            if name := await self._read("GET", self.keys("current_job")):
                state = await self._read("HGET", self.keys("job", name.decode()), "state")
                return {"job_paused": float(state == JobState.PAUSED.encode())}
        return {"job_paused": 0.0}

    async def _disputes_to_answer(self) -> dict[str, float]:
        """`to_answer`: disputes that Amazon waits for; `answer_seconds`: the time left for the next of them, if any."""
        key, now = self.keys("disputes_to_answer"), self.now()
        count = await self._size("ZCARD", key)
        found = {"to_answer": count}
        with contextlib.suppress(WrongType):
            first = await self._read("ZRANGE", key, now - DAY, "+inf", "BYSCORE", "LIMIT", 0, 1, "WITHSCORES")
            for _, at in self._scored(key, first):
                found["answer_seconds"] = (at - now) / 1000
        return found

    async def alerting_problems(self) -> list[AlertingProblem]:
        """The account's subscribers that are paused, failing, unreadable, or have dead events, sorted by name."""
        subscriber_list = await self._subscribers.read()
        names = sorted(subscriber_list.names)
        dead = await asyncio.gather(*(self._size("HLEN", self.keys("dead", name)) for name in names))
        health = await asyncio.gather(*(self._health(name) for name in names))
        found = [
            AlertingProblem(
                name,
                paused=name in subscriber_list.subscribers and subscriber_list.subscribers[name].paused,
                failing=each.probing,
                dead=int(count),
                unreadable=name not in subscriber_list.subscribers,
            )
            for name, count, each in zip(names, dead, health, strict=True)
        ]
        return [each for each in found if each.paused or each.failing or each.dead or each.unreadable]

    async def _health(self, name: str) -> Health:
        """The subscriber's health; an empty one if the key has the wrong type, which the check of the keys reports."""
        with contextlib.suppress(WrongType):
            return await self._deliveries.health(name)
        return Health()

    async def _size(self, *command: str | int) -> float:
        """The size of a key; 0 if the key has the wrong type, so that the other sizes are still reported."""
        with contextlib.suppress(WrongType):
            return float(await self._read(*command))
        return 0.0

    async def _health_sizes(self, name: str, subscriber_list: SubscriberList) -> dict[str, float]:
        oldest, health = 0, Health()
        with contextlib.suppress(WrongType):
            (_, _, oldest), health = await asyncio.gather(
                self._deliveries.queue_sizes(name), self._deliveries.health(name)
            )
        found = subscriber_list.subscribers.get(name)
        return {
            f"failures:{name}": health.streak,
            f"paused:{name}": float(found is not None and found.paused),
            f"oldest_waiting:{name}": max(self.now() - oldest, 0) / 1000 if oldest else 0.0,
        }

    async def _oldest_pending_age(self) -> int:
        """ms; 0 if none is pending. Damaged records are skipped."""
        now = self.now()
        ids = await self._dashboard.pending_longest(MOST_OLD)
        found = await asyncio.gather(*(self._times(self.keys("refund", each)) for each in ids))
        ages = [
            now - int(at) for pair in found for at in pair if at and at.isdigit() and len(at) < 16 and int(at) <= now
        ]
        return max(ages, default=0)

    async def _times(self, key: str) -> Sequence[bytes | None]:
        with contextlib.suppress(WrongType):
            return list(await self._read("HMGET", key, "created", "seen"))
        return ()


async def measure_each(gauges: Mapping[str, Gauges]) -> dict[str, dict[str, float]]:
    """The sizes of each account. One whose node of a cluster does not answer is left out.

    Raises `StoreUnavailable` if none answers.
    """

    async def measured(each: Gauges) -> dict[str, float] | None:
        try:
            async with asyncio.timeout(LONGEST_MEASURE):
                return await each.measure()
        except (StoreUnavailable, TimeoutError):
            return None

    answers = await asyncio.gather(*map(measured, gauges.values()))
    sizes = {name: found for name, found in zip(gauges, answers, strict=True) if found is not None}
    if not sizes:
        raise StoreUnavailable
    return sizes


async def alerting_words(gauges: Mapping[str, Gauges]) -> dict[str, str]:
    """A word for each kind of problem with subscribers; `ok` if no account has it."""
    problems = await asyncio.gather(*(each.alerting_problems() for each in gauges.values()))
    found = [each for of_account in problems for each in of_account]
    return {
        "subscribers_paused": "paused" if any(each.paused for each in found) else "ok",
        "subscribers_failing": "failing" if any(each.failing for each in found) else "ok",
        "subscribers_dead": "dead_events" if any(each.dead for each in found) else "ok",
    }
