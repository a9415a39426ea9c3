"""Edge: Redis. Jobs that reissue many refunds: one unfinished job of an account at a time, kept for 30 days after its
end.

| key | type | holds |
|---|---|---|
| `{a}:job:<id>` | hash | the job: its selection, state and counts |
| `{a}:job_todo:<id>` | hash | refund → its place and tries, while it has no outcome |
| `{a}:job_outcomes:<id>` | list | the outcomes, in their order |
| `{a}:jobs` | zset | running job → when to work on it; a claimed one: the end of its lease |
| `{a}:current_job` | string | the unfinished job |
| `{a}:job_list` | zset | job → when it was created |
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from receiver.ledger.audit import Action, Actor, AuditEntry, Outcome
from receiver.ledger.declines.job import REISSUED, UNFINISHED, Item, Job, JobState, Selection
from receiver.ledger.money import Money
from receiver.store.redis.base import Args
from receiver.store.redis.damage import RecordUnreadable, WrongType
from receiver.store.redis.wakeups import News
from receiver.store.requests.requests import Attempt, Claims

KEPT_FOR = 30 * 86_400_000
"""ms after its end."""
ITEM, DAMAGED = msgspec.json.Decoder(Item), "no refund of a job"

JobPlace = tuple[int, str]
"""(when it was created in ms, id). Lists are in descending order of it."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a job that never changes."""

    selection: Selection
    actor: Actor
    created_at: int
    total: int
    sums: tuple[Money, ...]


class JobStore(Claims[Job]):
    kind, schedule, noun = "job", "jobs", "a job"

    async def create(self, job: Job, items: Iterable[Item]) -> str:
        """Save a job. If the account has an unfinished one, its id is returned and nothing is written; else empty."""
        spec = Spec(selection=job.selection, actor=job.actor, created_at=job.created_at, total=job.total, sums=job.sums)
        fields: Args = ["spec", msgspec.json.encode(spec)]
        fields += ["state", job.state, "changed_at", job.changed_at]
        lines = [text for item in items for text in (item.root, msgspec.json.encode(item))]
        act = AuditEntry(
            action=Action.JOB_START, actor=job.actor, job=job.id, outcome=Outcome.ACCEPTED, count=job.total
        )
        args = [job.id, job.created_at, len(fields), *fields, *lines]
        unfinished = await self._script("create_job", args, audit=act, job=job.id)
        self._written(News.JOB)
        return str(unfinished.decode())

    def _record(self, id_: str, raw: Mapping[bytes, bytes]) -> Job:
        text = {name.decode(): value.decode() for name, value in raw.items()}
        spec = msgspec.structs.asdict(msgspec.json.decode(text["spec"], type=Spec))
        return msgspec.convert({**text, **spec, "id": id_, "account": self.account}, Job, strict=False)

    async def page(self, below: JobPlace | None, limit: int) -> list[Job | str]:
        """At most `limit` jobs, newest first, below this place; for a damaged one, its id.

        Jobs that have expired are removed from the list.
        """
        key = self.keys("job_list")
        listed = self._scored(key, await self._read("ZRANGE", key, 0, -1, "WITHSCORES"))
        found: list[Job | str] = []
        for place in sorted(((at, job_id) for job_id, at in listed), reverse=True):
            if len(found) < limit and (below is None or place < below):
                try:
                    job = await self.get(place[1])
                except (RecordUnreadable, WrongType):
                    found.append(place[1])
                    continue
                if job is None:
                    await self._write("ZREM", key, place[1])
                else:
                    found.append(job)
        return found

    async def current(self) -> str:
        """The id of the unfinished job; empty if there is none."""
        found: bytes | None = await self._read("GET", self.keys("current_job"))
        return found.decode() if found else ""

    async def todo(self, job_id: str) -> list[Item]:
        """The refunds without an outcome, in the order of the job."""
        key = self.keys("job_todo", job_id)
        raw: dict[bytes, bytes] = await self._read("HGETALL", key)
        return sorted(self._lines(key, raw.values(), DAMAGED, ITEM.decode), key=lambda item: item.number)

    async def outcomes(self, job_id: str, after: int = 0, limit: int = -1) -> list[Item]:
        """At most `limit` outcomes from number `after` on, in the order in which they came."""
        key = self.keys("job_outcomes", job_id)
        lines = await self._read("LRANGE", key, after, after + limit - 1 if limit > 0 else -1)
        return self._lines(key, lines, DAMAGED, ITEM.decode)

    async def record(self, attempt: Attempt, items: Sequence[Item], *, lease: int) -> Attempt | None:
        """Record the outcomes of some refunds. Returns the renewed claim; None if it is no longer ours."""
        now = self.now()
        args: Args = [attempt.id, attempt.token, now + lease, now]
        for item in items:
            counter = "" if not item.outcome else "reissued" if item.outcome == REISSUED else "failed"
            args += [item.root, msgspec.json.encode(item), counter]
        held = await self._script("record_job", args, repeatable=False, job=attempt.id)
        return Attempt(attempt.id, now + lease) if held else None

    async def move(
        self,
        job_id: str,
        state: JobState,
        *,
        of: Collection[JobState],
        at: int | None = None,
        token: int | None = None,
        fields: Mapping[str, str | int] | None = None,
        audit: AuditEntry | None = None,
    ) -> JobState | None:
        """Change the state of a job that is in one of the states `of`, and work on it at `at` (ms; None: never).

        `token` is that of the claim; None if a person does it: then `audit` is written with it. Returns the state
        before; None if there is no such job or the claim is no longer ours. If that state is not in `of`, nothing was
        written.
        """
        more = {"changed_at": self.now(), **(fields or {})}
        args: Args = [
            job_id,
            "" if token is None else token,
            f",{','.join(sorted(of))},",
            state,
            "" if at is None else at,
            "" if state in UNFINISHED else KEPT_FOR,
            *(text for pair in more.items() for text in pair),
        ]
        before = await self._script("move_job", args, audit=audit, job=job_id)
        self._written(News.JOB)
        return JobState(before.decode()) if before else None
