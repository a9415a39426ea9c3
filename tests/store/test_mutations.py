"""A protection that could be taken out without a test failing would be decoration: each is taken out here."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from receiver.amazon.account import Account
from receiver.errors import StoreUnavailable
from receiver.service import system_clock
from receiver.store import Store
from receiver.store.redis import base, scripts
from receiver.store.redis.pipeline import Pipeline
from receiver.track.record import Recorder
from tests.kit.clock import ManualClock
from tests.store import test_commit, test_connection, test_queues, test_requests, test_schedule, test_upkeep


def without(monkeypatch: pytest.MonkeyPatch, name: str, protection: str, instead: str) -> None:
    """Run `<name>.lua` without one of its lines."""
    real = scripts.script(name)
    source = real.source.decode()
    assert source.count(protection) == 1, "the protection has been rewritten: rewrite its check"
    changed = source.replace(protection, instead).encode()
    mutant = replace(real, source=changed, sha=hashlib.sha1(changed, usedforsecurity=False).hexdigest())
    monkeypatch.setattr(base, "script", lambda each: mutant if each == name else scripts.script(each))


async def fails(test: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        await test()


async def test_without_the_claims_token_a_slow_sender_settles_what_another_holds(
    store: Store, redis: Any, account: Account, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "finish_delivery", "not score or tonumber(score) ~= tonumber(token)", "false")
    await fails(lambda: test_queues.test_a_sender_slower_than_its_lease_settles_nothing(store, redis, account, clock))


async def test_without_the_claims_token_a_late_sender_revives_a_removed_lane(
    store: Store, redis: Any, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "finish_delivery", "not score or tonumber(score) ~= tonumber(token)", "false")
    await fails(
        lambda: test_queues.test_a_removed_subscriber_takes_its_lane_along_and_no_late_worker_revives_it(
            store, redis, account
        )
    )


async def test_without_the_claims_token_a_slow_worker_reschedules_what_another_holds(
    store: Store, redis: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "reschedule", "not holds_claim(KEYS[1], ARGV[1], ARGV[2])", "false")
    await fails(lambda: test_schedule.test_a_worker_that_settles_after_its_lease_changes_nothing(store, redis, clock))


async def test_without_the_lease_two_workers_ask_about_the_same_refund(
    store: Store, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "claim", "redis.call('ZADD', KEYS[3], score, refund)", "")
    await fails(lambda: test_schedule.test_a_claim_is_a_lease_and_its_score_is_the_token(store, redis, ManualClock()))


async def test_without_the_revision_check_twenty_writers_tell_things_twice(
    recorder: Recorder, store: Store, redis: Any, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "commit", "(redis.call('HGET', write.keys[1], 'revision') or '0') ~= write.expected", "false")
    await fails(lambda: test_commit.test_twenty_writers_make_one_event_of_each_kind(recorder, store, redis, account))


async def test_without_the_version_check_a_new_subscriber_is_forgotten(
    recorder: Recorder, store: Store, redis: Any, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "commit", "(redis.call('HGET', KEYS[4], ':version') or '0') ~= ARGV[1]", "false")
    await fails(
        lambda: test_commit.test_a_subscriber_added_between_decision_and_commit_is_not_forgotten(
            recorder, store, redis, account, monkeypatch
        )
    )


async def test_without_the_trim_guard_an_owed_event_is_lost(
    store: Store, account: Account, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "trim", "if id and id < cut then", "if false then")
    clock.ms = system_clock()
    await fails(lambda: test_upkeep.test_the_stream_is_not_cut_past_what_is_owed(store, account, clock))


async def test_without_its_cursor_a_backfill_owes_things_twice(
    store: Store, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "backfill", " or redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[3]", "")
    await fails(
        lambda: test_upkeep.test_what_was_delivered_during_a_backfill_is_not_owed_again(store, account, monkeypatch)
    )


async def test_without_the_version_check_the_last_one_is_paused_by_an_old_list(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "subscribe", "redis.call('HGET', KEYS[1], ':version') ~= ARGV[5]", "false")
    await fails(lambda: test_upkeep.test_a_change_by_an_old_roster_is_refused(store))


@pytest.mark.parametrize(
    ("protection", "instead"),
    [
        ("outcome ~= 'done' and (not ours or", "outcome ~= 'done' and ("),
        ("if ours then\n  redis.call('ZREM'", "if true then\n  redis.call('ZREM'"),
    ],
)
async def test_without_the_claims_token_a_slow_worker_settles_a_request_that_another_tries(
    store: Store, redis: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, protection: str, instead: str
) -> None:
    without(monkeypatch, "finish_request", protection, instead)
    await fails(lambda: test_requests.test_who_lost_his_claim_settles_nothing_but_a_2xx(store, redis, clock))


async def test_without_the_claims_token_a_slow_worker_begins_a_try_that_another_makes(
    store: Store, redis: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "begin_try", "not holds_claim(KEYS[2], ARGV[1], ARGV[2]) or", "")
    await fails(lambda: test_requests.test_who_lost_his_claim_settles_nothing_but_a_2xx(store, redis, clock))


@pytest.mark.parametrize("protection", ["owner == ARGV[2]", "if owner then"])
async def test_without_its_owner_a_reservation_is_made_again_or_taken_for_anothers(
    store: Store, redis: Any, monkeypatch: pytest.MonkeyPatch, protection: str
) -> None:
    without(monkeypatch, "reserve", protection, "false" if protection.startswith("owner") else "if false then")
    test = test_requests.test_what_is_run_twice_is_written_once
    if protection == "if owner then":
        await fails(lambda: test_requests.test_another_owner_is_told_what_there_is(store, redis))
    else:
        await fails(lambda: test(store, redis))


async def test_without_sending_the_source_a_forgotten_script_stops_the_work(
    store: Store, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Pipeline.call

    async def by_hash_only(self: Pipeline, command: Any, script: Any = None, *, repeatable: bool = True) -> Any:
        return await real(self, command, None, repeatable=repeatable)

    monkeypatch.setattr(Pipeline, "call", by_hash_only)
    with pytest.raises(StoreUnavailable):
        await test_connection.test_a_script_that_redis_has_forgotten_is_sent_again(store, redis)


async def test_a_claim_that_is_sent_again_leases_twice(
    store: Store, valkey_url: str, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Pipeline.call

    async def always(self: Pipeline, command: Any, script: Any = None, *, repeatable: bool = True) -> Any:
        return await real(self, command, script)

    monkeypatch.setattr(Pipeline, "call", always)
    with tempfile.TemporaryDirectory(prefix="rv-") as folder, pytest.raises(pytest.fail.Exception):
        await test_connection.test_a_claim_whose_answer_is_lost_is_not_sent_again(store, valkey_url, Path(folder))


@pytest.fixture
def recorder(store: Store) -> Recorder:
    return Recorder(store, lambda: 0.0)
