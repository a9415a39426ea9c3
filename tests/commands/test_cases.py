"""`receiver refund close`, `reopen` and `list --open` against a real service, and what the API says of bad input."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.commands.conftest import Run
from tests.commands.kit import REFUND, Server
from tests.http.kit import READER, REFUNDER

OTHER = "S01-5105180-3221187-R022399"


def declined(server: Server) -> None:
    server.seen(state="Declined", reason="AmazonRejected", updated_at=time.time_ns() // 1_000_000)


def post(server: Server, path: str, body: object, token: str = REFUNDER) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"{server.url}/v1/refunds/{REFUND}/{path}",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_case_is_closed_and_reopened(server: Server, run: Run) -> None:
    """The refund says how, by whom and why; a repetition is fine, another closing is refused."""
    declined(server)
    assert REFUND in run("refund", "list", "--open").out
    ran = run("refund", "close", REFUND, "--compensated", "Gift card <b>14 USD</b>", token=REFUNDER)
    assert ran.code == 0, ran
    assert "closed since" in ran.out
    assert "compensated" in ran.out
    assert "Gift card <b>14 USD</b>" in ran.out
    assert "No refund matches." in run("refund", "list", "--open").err
    assert run("refund", "close", REFUND, "--compensated", "Gift card <b>14 USD</b>", token=REFUNDER).code == 0
    ran = run("refund", "close", REFUND, "--not-owed", "returned", token=REFUNDER)
    assert ran.code == 1
    assert "[409 already_closed]" in ran.err
    ran = run("refund", "reopen", REFUND, "--json", token=REFUNDER)
    assert json.loads(ran.out)["resolution"]["state"] == "open"
    history = json.loads(run("refund", "history", REFUND, "--json").out)["revisions"]
    assert [each["resolution"]["state"] for each in history] == ["open", "closed", "open"]
    assert [each["source"] for each in history[1:]] == ["person", "person"]
    assert history[1]["resolution"]["by"] == history[2]["resolution"]["by"] != ""


@pytest.mark.parametrize(
    "wrong",
    [[], ["--not-owed", "a", "--compensated", "b"], ["--compensated", "b", "--note", "c"]],
)
def test_one_way_has_to_be_named(server: Server, run: Run, wrong: list[str]) -> None:
    declined(server)
    ran = run("refund", "close", REFUND, *wrong, token=REFUNDER)
    assert ran.code == 2
    assert "--refunded-elsewhere REFUND" in ran.err


BAD: list[tuple[object, str]] = [
    ({}, "bad_how"),
    ({"how": "reissued", "note": "x"}, "bad_how"),
    ({"how": ["compensated"], "note": "x"}, "bad_how"),
    ({"how": "compensated"}, "bad_note"),
    ({"how": "compensated", "note": ""}, "bad_note"),
    ({"how": "compensated", "note": " \u2003"}, "bad_note"),
    ({"how": "compensated", "note": "a\nb"}, "bad_note"),
    ({"how": "compensated", "note": "\ud800"}, "bad_note"),
    ({"how": "compensated", "note": "x" * 501}, "bad_note"),
    ({"how": "compensated", "note": 7}, "bad_note"),
    ({"how": "compensated", "note": "x", "refundId": OTHER}, "bad_refund_id"),
    ({"how": "refunded_elsewhere"}, "bad_refund_id"),
    ({"how": "refunded_elsewhere", "refundId": "a b"}, "bad_refund_id"),
    ({"how": "compensated", "note": "x", "by": "me"}, "unknown_field"),
]


def test_bad_input_is_named_and_changes_nothing(server: Server, run: Run) -> None:
    declined(server)
    for body, reason in BAD:
        status, problem = post(server, "close", body)
        assert (status, problem["reason"]) == (400, reason), body
    assert REFUND in run("refund", "list", "--open").out


def test_the_note_may_have_five_hundred_characters_of_any_script(server: Server) -> None:
    declined(server)
    status, body = post(server, "close", {"how": "not_owed", "note": "返" * 500})
    assert (status, body["resolution"]["note"]) == (200, "返" * 500)


def test_it_needs_the_scope_refund(server: Server) -> None:
    declined(server)
    for path, body in (("close", {"how": "not_owed", "note": "x"}), ("reopen", {})):
        status, problem = post(server, path, body, READER)
        assert (status, problem["reason"]) == (403, "scope_missing")


def test_the_summary_counts_what_is_open(server: Server, run: Run) -> None:
    """Closed cases are not counted; pending refunds are counted separately."""
    declined(server)
    server.seen(OTHER)
    found = summary(server)
    assert found["openDeclines"]["count"] == 1
    assert found["openDeclines"]["amounts"] == [{"amount": "14.00", "currencyCode": "USD"}]
    assert found["openDeclines"]["reasons"][0]["reasonCode"] == "AmazonRejected"
    assert found["pending"]["count"] == 1
    assert (found["conflicts"], found["unclear"], found["reserved"]) == (0, 0, 0)
    assert run("refund", "close", REFUND, "--not-owed", "returned", token=REFUNDER).code == 0
    assert summary(server)["openDeclines"]["count"] == 0


def summary(server: Server) -> dict[str, Any]:
    request = urllib.request.Request(f"{server.url}/v1/summary", headers={"Authorization": f"Bearer {READER}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found
