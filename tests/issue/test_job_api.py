"""Jobs for many declines over HTTP and by the command: what a caller sends, and what is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.http.kit import READER
from tests.issue.counter import Counter, Ran, shop
from tests.kit.processes import until
from tests.service.stage import Amazon

Shop = tuple[Counter, Amazon]
REJECTED = {"reason": "AmazonRejected"}


@pytest.fixture
async def open_shop(redis: Any, valkey_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    async with shop(valkey_url, tmp_path) as found:
        yield found


async def declined(counter: Counter, amazon: Amazon, count: int) -> list[str]:
    """Refunds that Amazon has declined, because the balance is negative; it is repaid afterwards."""
    amazon.set_balance("negative")
    made = [amazon.start_refund("14.00", "USD") for _ in range(count)]
    amazon.move()
    for each in made:
        await counter.shows(each, "Declined")
    amazon.set_balance("repaid")
    return made


async def job(counter: Counter, job_id: str, query: str = "") -> Any:
    status, found, _ = await counter.call("GET", f"/v1/jobs/{job_id}{query}")
    assert status == 200, found
    return found


async def reaches(counter: Counter, job_id: str, state: str) -> Any:
    async def there() -> Any:
        found = await job(counter, job_id)
        return found if found["state"] == state else None

    return await until(there, f"the job is {state}")


async def start(counter: Counter, body: dict[str, Any]) -> Any:
    status, found, headers = await counter.call("POST", "/v1/refunds/retry", body)
    assert status == 202, found
    assert headers["Location"] == f"/v1/jobs/{found['id']}?account=us"
    return found


async def test_a_job_is_planned_started_and_followed(open_shop: Shop) -> None:
    counter, amazon = open_shop
    made = await declined(counter, amazon, 3)
    await counter.call("POST", f"/v1/refunds/{made[0]}/close", {"how": "compensated", "note": "gift card"})
    asked = {**REJECTED, "since": "2020-01-01T00:00:00Z"}
    status, plan, _ = await counter.call("POST", "/v1/refunds/retry", {**asked, "dryRun": True})
    assert (status, plan["count"], plan["unfinishedJob"]) == (200, 2, None)
    assert plan["sums"] == [{"amount": "28.00", "currencyCode": "USD"}]
    (left_out,) = plan["leftOut"]
    assert (left_out["reason"], left_out["refundIds"]) == ("closed", [made[0]])
    assert len(amazon.refunds) == 3, "nothing was started"
    started = await start(counter, asked)
    assert (started["state"], started["total"], started["requestedBy"]) == ("running", 2, "refunder")
    done = await reaches(counter, started["id"], "done")
    assert (done["reissued"], done["failed"], done["waiting"]) == (2, 0, 0)
    assert {each["refundId"] for each in done["refunds"]} == set(made[1:])
    assert {each["retriedBy"] for each in done["refunds"]} == set(amazon.refunds) - set(made)
    assert (await job(counter, started["id"], "?after=1"))["refunds"] == done["refunds"][1:]
    status, problem, _ = await counter.call("POST", "/v1/refunds/retry", asked)
    assert (status, problem["reason"]) == (409, "nothing_to_reissue")


async def test_selected_refunds_are_reissued(open_shop: Shop) -> None:
    """As the dashboard names them, each once."""
    counter, amazon = open_shop
    made = await declined(counter, amazon, 3)
    started = await start(counter, {"refundIds": [made[2], made[0], made[2]]})
    done = await reaches(counter, started["id"], "done")
    assert {each["refundId"] for each in done["refunds"]} == {made[0], made[2]}
    await reaches(counter, (second := await start(counter, {"refundIds": [made[1]]}))["id"], "done")
    pages, cursor = [], ""
    for _ in range(2):
        status, page, _ = await counter.call("GET", f"/v1/jobs?limit=1{cursor}")
        assert (status, page["unreadable"]) == (200, [])
        pages += [each["id"] for each in page["jobs"]]
        cursor = f"&cursor={page['nextCursor']}"
    assert (pages, page["nextCursor"]) == ([second["id"], started["id"]], None)
    assert (await counter.call("GET", "/v1/jobs?cursor=next"))[1]["reason"] == "bad_cursor"
    ran = await counter.run("refund", "jobs")
    assert [line.split()[2:6] for line in ran.out.splitlines()[1:]] == [
        [second["id"], "done", "1", "of"],
        [started["id"], "done", "2", "of"],
    ], ran.out


async def test_a_job_that_is_declined_again_waits_for_a_person(open_shop: Shop) -> None:
    """The account has no second one meanwhile. Resumed, it goes on; cancelled, it ends."""
    counter, amazon = open_shop
    await declined(counter, amazon, 12)
    amazon.set_balance("negative")
    started = await start(counter, REJECTED)

    async def first_ones() -> bool:
        return bool((await job(counter, started["id"]))["reissued"] == 10)

    await until(first_ones, "ten are reissued")
    status, problem, _ = await counter.call("POST", "/v1/refunds/retry", REJECTED)
    assert (status, problem["reason"], problem["job"]) == (409, "job_running", started["id"])
    amazon.move()
    for each in (await job(counter, started["id"]))["refunds"]:
        await counter.shows(each["retriedBy"], "Declined")
    paused = await reaches(counter, started["id"], "paused")
    assert paused["reason"] == "declined_again"
    ran = await counter.run("refund", "retry", "--reason", "amazonrejected", "--yes")
    assert ran.code == 4, ran.err
    assert "has an unfinished job" in ran.err
    assert "Paused: Amazon declined the first 10 reissues again" in ran.err
    amazon.set_balance("repaid")
    ran = await counter.run("refund", "job", started["id"], "--resume")
    assert (ran.code, ran.out.count("reissued as")) == (0, 12), ran.err
    for verb in ("resume", "cancel"):
        status, problem, _ = await counter.call("POST", f"/v1/jobs/{started['id']}/{verb}")
        assert (status, problem["reason"]) == (409, "job_ended")


async def test_a_job_is_cancelled(open_shop: Shop) -> None:
    counter, amazon = open_shop
    await declined(counter, amazon, 11)
    started = await start(counter, REJECTED)
    ran = await counter.run("refund", "job", started["id"], "--cancel")
    assert ran.code == 5, ran.err
    assert (await job(counter, started["id"]))["state"] == "cancelled"
    assert (await counter.call("POST", f"/v1/jobs/{started['id']}/cancel"))[0] == 200


BAD: dict[str, tuple[Any, int, str]] = {
    "nothing named": ({}, 400, "selection_needed"),
    "both named": ({**REJECTED, "refundIds": ["S01-1"]}, 400, "selection_needed"),
    "no ids": ({"refundIds": []}, 400, "bad_refund_id"),
    "bad id": ({"refundIds": ["a/b"]}, 400, "bad_refund_id"),
    "no list": ({"refundIds": "S01-1"}, 400, "bad_refund_id"),
    "too many ids": ({"refundIds": ["S01-1"] * 1001}, 400, "bad_refund_id"),
    "bad reason": ({"reason": "a b"}, 400, "bad_parameter"),
    "unknown reason": ({"reason": "AmazonRejectd"}, 400, "unknown_reason"),
    "bad since": ({"since": "yesterday"}, 400, "bad_since"),
    "bad total": ({**REJECTED, "maxTotal": {"amount": "x", "currencyCode": "USD"}}, 400, "bad_amount"),
    "bad currency": ({**REJECTED, "maxTotal": {"amount": "1", "currencyCode": "U$D"}}, 400, "bad_currency"),
    "bad dry run": ({**REJECTED, "dryRun": "yes"}, 400, "bad_parameter"),
    "unknown field": ({**REJECTED, "dryrun": True}, 400, "unknown_field"),
    "unknown account": ({**REJECTED, "account": "eu"}, 404, "no_such_account"),
    "nothing declined": (REJECTED, 409, "nothing_to_reissue"),
}


async def test_bad_input_is_named(open_shop: Shop) -> None:
    counter, _ = open_shop
    for what, (body, status, reason) in BAD.items():
        found, problem, _ = await counter.call("POST", "/v1/refunds/retry", body)
        assert (found, problem["reason"]) == (status, reason), what
        assert "Unknown field: dryrun. Did you mean dryRun?" in problem["detail"] or reason != "unknown_field"
    for path, status, reason in (("a%20b", 400, "bad_job_id"), ("nothing", 404, "no_such_job")):
        found, problem, _ = await counter.call("GET", f"/v1/jobs/{path}")
        assert (found, problem["reason"]) == (status, reason)
    assert (await counter.call("POST", "/v1/refunds/retry", REJECTED, token=READER))[0] == 403


async def test_the_command_shows_first_what_it_would_do(open_shop: Shop) -> None:
    counter, amazon = open_shop
    await declined(counter, amazon, 2)

    async def retry(*words: str) -> Ran:
        return await counter.run("refund", "retry", *words)

    ran = await retry("--reason", "amazonrejected", "--dry-run")
    assert (ran.code, ran.out) == (0, "Would reissue 2 refunds: 28.00 USD (account us)\n")
    ran = await retry("--since", "1h", "--max-total", "20.00 usd", "--dry-run")
    assert "Would reissue 1 refund: 14.00 USD" in ran.out
    assert "over_max_total" in ran.out
    assert len(amazon.refunds) == 2
    ran = await retry("--reason", "AmazonRejected")
    assert (ran.code, "Re-run with --yes" in ran.err) == (2, True)
    ran = await retry("--reason", "AmazonRejected", "--yes", "--json")
    assert ran.code == 0
    assert ran.out.count('"outcome":"reissued"') == 2
    ran = await retry("--reason", "AmazonRejected", "--yes")
    assert (ran.code, "Nothing was reissued" in ran.err) == (0, True)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--yes",),
        ("S01-1", "--reason", "AmazonRejected"),
        ("S01-1", "--dry-run"),
        ("--reason", "AmazonRejected", "--besides", "S01-1"),
        ("--reason", "AmazonRejected", "--max-total", "5000"),
        ("--reason", "AmazonRejected", "--max-total", "many USD"),
        ("--since", "yesterday"),
    ],
)
async def test_wrong_usage_is_exit_code_2(open_shop: Shop, words: tuple[str, ...]) -> None:
    counter, amazon = open_shop
    ran = await counter.run("refund", "retry", *words)
    assert (ran.code, ran.out) == (2, "")
    assert not amazon.refunds
