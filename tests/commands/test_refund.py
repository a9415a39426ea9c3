"""`receiver refund` against a real service: what it prints, and how it ends."""

from __future__ import annotations

import json
import threading
import urllib.request
from typing import Any

import pytest
from typer.testing import CliRunner

from receiver.client import calls
from receiver.commands.cli import app
from receiver.ledger.dispute import Dispute
from receiver.ledger.money import Money
from tests.commands.conftest import Run
from tests.commands.kit import REFUND, Server
from tests.http.kit import ADMIN, READER, REFUNDER
from tests.kit.clock import T0


def widths(text: str) -> int:
    """Columns of the longest line."""
    return max(map(len, text.splitlines()))


def test_get_shows_a_decline_that_cannot_be_overlooked(server: Server, run: Run) -> None:
    """In capitals with its reason, on standard output, with exit code 0; nothing on standard error."""
    server.seen(state="Declined", reason="AmazonRejected", description="Amazon has rejected the refund. " * 4)
    ran = run("refund", "get", REFUND)
    assert (ran.code, ran.err) == (0, "")
    assert "DECLINED AmazonRejected" in ran.out
    assert "14.00 USD" in ran.out
    assert "2025-10-09 08:53:20 UTC" in ran.out
    assert widths(ran.out) <= 80


def test_get_json_is_the_answer_of_the_api(server: Server, run: Run) -> None:
    """Byte for byte, on one line."""
    server.seen(description="Ça n’a pas marché: 返金")
    request = urllib.request.Request(f"{server.url}/v1/refunds/{REFUND}", headers={"Authorization": f"Bearer {READER}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        body = answer.read().decode()
    ran = run("refund", "get", REFUND, "--json")
    assert (ran.code, ran.out) == (0, body + "\n")


def test_get_of_an_unknown_refund_is_exit_code_1(run: Run) -> None:
    """The reason goes to standard error, and nothing to standard output."""
    ran = run("refund", "get", REFUND)
    assert (ran.code, ran.out) == (1, "")
    assert "[404 no_such_refund]" in ran.err
    assert f"`receiver refund refresh {REFUND}`" in ran.err


def test_get_of_another_object_says_what_it_is(run: Run) -> None:
    """The id of a charge looks almost like that of a refund."""
    for command in ("get", "history", "retry"):
        token = REFUNDER if command == "retry" else READER
        ran = run("refund", command, "S01-5105180-3221187-C056351", "--account", "us", token=token)
        assert "is the id of a charge" in ran.err
        assert "`receiver charge show S01-5105180-3221187-C056351`" in ran.err


def test_get_wait_ends_when_the_refund_is_final(server: Server, run: Run) -> None:
    """Long before the time is over, although it was not known at first."""
    later = threading.Timer(0.5, lambda: server.seen(state="Refunded"))
    later.start()
    ran = run("refund", "get", REFUND, "--wait", "60", "--json")
    later.join()
    assert ran.code == 0, ran
    assert json.loads(ran.out)["statusDetails"]["state"] == "Refunded"
    assert ran.err == ""


def test_get_wait_ends_with_what_there_is(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refund that is still pending is exit code 0, with a remark. Long waits are made of short ones."""
    monkeypatch.setattr(calls, "WAIT_STEP", 1)
    assert run("refund", "get", REFUND, "--wait", "2").code == 1
    server.seen()
    ran = run("refund", "get", REFUND, "--wait", "2")
    assert ran.code == 0
    assert "RefundInitiated" in ran.out
    assert "Not final after 2 s." in ran.err


def test_list_filters_in_any_case(server: Server, run: Run) -> None:
    """`--state declined` is Declined: a filter that matches nothing because of its case would hide declines."""
    server.seen("S01-1", "Declined", reason="AmazonRejected")
    server.seen("S01-2", "Declined", reason="ProcessingFailure", charge="C-2")
    server.seen("S01-3", "Refunded")
    server.seen("S01-4")

    def ids(*args: str) -> list[str]:
        return [each["refundId"] for each in json.loads(run("refund", "list", "--json", *args).out)["refunds"]]

    assert ids("--state", "declined") == ["S01-2", "S01-1"]
    assert ids("--state", "PENDING") == ["S01-4"]
    assert ids("--reason", "amazonrejected") == ["S01-1"]
    assert ids("--charge", "C-2") == ["S01-2"]
    assert ids("--since", "1h") == ["S01-4", "S01-3", "S01-2", "S01-1"]
    assert ids("--since", "2100-01-01") == []
    assert ids("--since", "2100-01-01T00:00:00+02:00") == []
    assert ids("--account", "eu") == []


def test_list_is_a_table_of_80_columns(server: Server, run: Run) -> None:
    """One account fits on one line each; several get a column. Nothing but the table is on standard output."""
    server.seen("S01-5105180-3221187-R000001", "Declined", reason="ProcessingFailure")
    server.seen("S01-5105180-3221187-R000002", "Refunded")
    ran = run("refund", "list")
    lines = ran.out.splitlines()
    assert len(lines) == 3, ran
    assert lines[0].split() == ["Changed", "UTC", "Refund", "Amount", "State"]
    assert lines[2].endswith("S01-5105180-3221187-R000001  14.00 USD  DECLINED ProcessingFailure")
    assert widths(ran.out) <= 80
    server.seen("S01-5105180-3221187-R000003", account="eu")
    ran = run("refund", "list")
    assert ran.out.splitlines()[0].endswith("Account")
    assert widths(ran.out) <= 80


def test_list_all_goes_through_every_page(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each refund once, under one heading; as JSON one object a page."""
    monkeypatch.setattr(calls, "MOST_PER_PAGE", 3)
    names = [f"S01-{number}" for number in range(8)]
    for name in names:
        server.seen(name)
    ran = run("refund", "list", "--all")
    assert [line.split()[2] for line in ran.out.splitlines()[1:]] == names[::-1], ran
    pages = [json.loads(line) for line in run("refund", "list", "--all", "--json").out.splitlines()]
    assert [len(page["refunds"]) for page in pages] == [3, 3, 2]
    assert [each["refundId"] for page in pages for each in page["refunds"]] == names[::-1]


def test_list_limit_counts_refunds_not_pages(server: Server, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads pages until it has that many, and says that there may be more."""
    monkeypatch.setattr(calls, "MOST_PER_PAGE", 3)
    for number in range(8):
        server.seen(f"S01-{number}")
    ran = run("refund", "list", "--limit", "5")
    assert len(ran.out.splitlines()) == 1 + 5
    assert "--all" in ran.err
    assert run("refund", "list", "--limit", "20").err == ""


def test_an_empty_list_is_said_on_standard_error(run: Run) -> None:
    """Standard output stays empty, for scripts."""
    ran = run("refund", "list", "--state", "declined")
    assert (ran.code, ran.out) == (0, "")
    assert "No refund matches." in ran.err


def test_history_shows_every_revision(server: Server, run: Run) -> None:
    """Oldest first, within 80 columns."""
    server.seen()
    server.seen(state="Declined", reason="ProcessingFailure")
    ran = run("refund", "history", REFUND)
    first, second, folded = ran.out.splitlines()[1:]
    assert first.split()[0] == "1"
    assert first.endswith("notification  RefundInitiated")
    assert "2025-10-09 08:53:20" in first
    assert second.endswith("notification  DECLINED")
    assert folded.split() == ["ProcessingFailure"]
    assert widths(ran.out) <= 80
    assert len(json.loads(run("refund", "history", REFUND, "--json").out)["revisions"]) == 2


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "chargeback, open (400.00 USD, Fraudulent, blocks refunds, 2025-10-09 08:53:20 UTC)"),
        (
            {"state": "ActionRequired", "deadline": T0 + 1_000},
            "chargeback, open (400.00 USD, Fraudulent, ActionRequired, answer by 2025-10-09 08:53:21 UTC, blocks "
            "refunds, 2025-10-09 08:53:20 UTC)",
        ),
        (
            {"state": "Closed", "resolution": "MerchantWon", "asked_at": T0},
            "chargeback, ended (400.00 USD, Fraudulent, Closed, MerchantWon, 2025-10-09 08:53:20 UTC)",
        ),
    ],
)
def test_history_names_the_disputes(server: Server, run: Run, changes: dict[str, Any], line: str) -> None:
    """The state of each, and whether it blocks refunds."""
    server.seen()
    dispute = Dispute(
        dispute_id="S01-5105180-3221187-B000001",
        charge_permission_id="S01-5105180-3221187",
        amount=Money.parse("400.00", "USD"),
        reason="Fraudulent",
        first_told_at=T0,
        told_at=T0,
        **changes,
    )
    server.run(server.service.store.of("us").disputes.record(dispute, message_id="m", digest="d"))
    shown = run("refund", "history", REFUND).out.splitlines()[-1]
    assert shown == f"Dispute S01-5105180-3221187-B000001: {line}"


def test_refresh_makes_the_refund_due(server: Server, run: Run) -> None:
    """The service has it in its list of what to ask Amazon about; the token needs the scope."""
    refused = run("refund", "refresh", REFUND, "--account", "us")
    assert refused.code == 1
    assert "[403 scope_missing]" in refused.err
    ran = run("refund", "refresh", REFUND, "--account", "us", token=REFUNDER)
    assert (ran.code, ran.err) == (0, "")
    assert REFUND in ran.out
    assert server.run(server.service.store.of("us").gauges.measure())["refreshed"] == 1
    noted = run("refund", "refresh", REFUND, "--account", "us", "--json", token=ADMIN)
    assert json.loads(noted.out)["refresh"] == "noted"


def test_a_refund_of_several_accounts_needs_the_account(server: Server, run: Run) -> None:
    """The message names the option; with it the answer is clear."""
    server.seen(account="us")
    server.seen(account="eu", state="Refunded")
    ran = run("refund", "get", REFUND)
    assert ran.code == 1
    assert "Give --account NAME." in ran.err
    assert "Refunded" in run("refund", "get", REFUND, "--account", "eu").out


def test_an_id_that_is_none_never_becomes_a_path(run: Run) -> None:
    """It is wrong usage, and nothing is sent."""
    for text in ("../subscribers", "a/b", "", "x" * 65, "a?b"):
        for command in ("get", "history", "refresh", "watch"):
            assert run("refund", command, text).code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("create", "S01-1", "5.00", "USD", "--key", "a\udcff"),
        ("create", "S01-1", "5.00", "USD", "--reference", "a\udcff"),
        ("create", "S01-1", "5\udcff", "USD"),
        ("list", "--order", "a\udcff"),
        ("list", "--account", "a\udcff"),
    ],
)
def test_bytes_that_are_no_text_are_wrong_usage(words: tuple[str, ...]) -> None:
    """Two keys that differ in such bytes alone must not be sent as one."""
    ran = CliRunner().invoke(app, ["refund", *words], env={"RECEIVER_TOKEN": "a-token"})
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "not UTF-8 text" in ran.stderr


@pytest.mark.parametrize("text", ["yesterday", "3x", "2026-01-31T12:00:00", "2026-02-30", "99999999999999999999d"])
def test_an_unusable_time_is_wrong_usage(run: Run, text: str) -> None:
    """Also one without its zone: it would mean something else on another machine."""
    assert run("refund", "list", "--since", text).code == 2


@pytest.mark.parametrize("key", ["", " ", " refund-1", "refund-1 "])
def test_an_empty_key_is_not_replaced_by_one_made_up(key: str) -> None:
    """`--key "$KEY"` where the variable is not set: each call would make another refund."""
    words = ["refund", "create", "S01-1", "5.00", "USD", "--key", key]
    ran = CliRunner().invoke(app, words, env={"RECEIVER_TOKEN": "a-token"})
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "--key is empty" in ran.stderr
