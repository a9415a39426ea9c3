"""`receiver reconcile` on files, against a running service."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.simulator.app import Simulator, system_clock
from tests.amazon import reports
from tests.commands.conftest import Ran, Run
from tests.commands.kit import BOUND, REFUND, Server
from tests.http.kit import READER, REFUNDER
from tests.kit.forks import FORKS

OTHER = "S01-5105180-3221187-R022312"
UNKNOWN = "S01-5105180-3221187-R022399"


def written(folder: Path, name: str, text: str, encoding: str = "utf-8") -> str:
    file = folder / name
    file.write_bytes(text.encode(encoding))
    return str(file)


def test_files_are_compared_and_what_differs_is_shown_in_every_form(server: Server, run: Run, tmp_path: Path) -> None:
    """A report of refund data and one of settlement data, in other encodings; lines that cannot be read are refused."""
    server.seen(REFUND, "Refunded")
    server.seen(OTHER, "Declined")
    refunds = written(
        tmp_path,
        "refunds.csv",
        reports.refunds(
            [
                reports.refund_row(REFUND, "Declined"),
                reports.refund_row(UNKNOWN, amount="=1+1"),
                reports.refund_row(UNKNOWN, "Completed", "15.00"),
                "not-an-id,x",
            ]
        ),
        "utf-16",
    )
    capture = reports.settlement_row(UNKNOWN.replace("-R", "-C"), kind="Capture")
    settled = reports.settlements([reports.settlement_row(OTHER), capture])
    settlement = written(tmp_path, "=settlement.txt", settled.replace('","', '"\t"').replace(",", "\t"), "cp932")

    def ran(*args: str) -> Ran:
        return run("reconcile", refunds, settlement, "--account", "us", *args, token=REFUNDER)

    expected = [
        {"finding": "state_differs", "refundId": REFUND, "here": "Refunded", "there": "Declined", "line": 2},
        {"finding": "unknown_here", "refundId": UNKNOWN, "there": "Refunded 15.00 USD", "line": 4},
        {
            "finding": "settled_but_declined",
            "refundId": OTHER,
            "here": "Declined",
            "there": "settled 14.00 USD",
            "line": 7,
        },
    ]
    for args in (["--json"], ["--format", "jsonl"]):
        answer = ran(*args)
        found = [json.loads(line) for line in answer.out.splitlines()]
        assert [{name: each[name] for name in wanted} for each, wanted in zip(found, expected, strict=True)] == expected
        assert answer.code == 1
        assert found[0]["advice"]["actions"]
    assert f"{refunds}, line 3: amount '=1+1' cannot be read" in " ".join(answer.err.split("\n"))
    assert "line 5: 'not-an-id' is not a refund id" in answer.err
    assert "3 rows, 3 differences, 2 lines refused, 1 not about refunds" in answer.err
    rows = list(csv.DictReader(io.StringIO(ran("--format", "csv").out)))
    assert [(each["finding"], each["refundId"], each["report"]) for each in rows] == [
        ("state_differs", REFUND, "refunds.csv"),
        ("unknown_here", UNKNOWN, "refunds.csv"),
        ("settled_but_declined", OTHER, "'=settlement.txt"),
    ]
    table = ran().out
    assert all(word in table for word in ("state_differs", "Declined", "refunds.csv"))
    listed = run("reconcile", settlement, "--account", "us", "--dry-run", token=REFUNDER)
    assert (listed.code, listed.out) == (0, "1 rows, 0 differences, 0 lines refused, 1 not about refunds\n")


def test_what_agrees_is_no_difference(server: Server, run: Run, tmp_path: Path) -> None:
    server.seen(REFUND, "Refunded")
    file = written(tmp_path, "refunds.csv", reports.refunds([reports.refund_row(REFUND)]))
    answer = run("reconcile", file, "--account", "us", token=REFUNDER)
    assert (answer.code, answer.out) == (0, "1 rows, 0 differences, 0 lines refused, 0 not about refunds\n")


def test_a_run_that_cannot_work_says_why_before_it_compares(server: Server, run: Run, tmp_path: Path) -> None:
    """A file that is no report, or of another merchant; no file; a token without the scope; an unnamed account."""
    good = written(tmp_path, "refunds.csv", reports.refunds([reports.refund_row(UNKNOWN)]))
    other = written(tmp_path, "s.csv", reports.settlements([reports.settlement_row(UNKNOWN)]).replace("A2Z", "A2Y"))
    rubbish = written(tmp_path, "image.csv", "\x89PNG\r\n\x1a\n" * 50, "latin-1")
    us = ("--account", "us")
    for args, token, code, words in (
        ((good, rubbish, *us), REFUNDER, 2, "image.csv: This is neither a report"),
        ((good, str(tmp_path / "missing.csv"), *us), REFUNDER, 2, "missing.csv: cannot be read"),
        ((other, *us), REFUNDER, 1, "other_merchant"),
        ((good, "--account", "eu"), REFUNDER, 1, "other_environment"),
        ((good, *us), READER, 1, "scope_missing"),
        ((good,), REFUNDER, 1, "account_needed"),
        ((good, "--account", "uss"), REFUNDER, 1, "no_such_account"),
    ):
        answer = run("reconcile", *args, token=token)
        assert (answer.code, answer.out) == (code, ""), args
        assert words in " ".join(answer.err.split())
    counts = server.run(server.service.store.of("us").findings.counts())
    assert not any(counts.values())


@pytest.fixture
def amazon(server: Server) -> Iterator[Simulator]:
    """A live account's Amazon, in the loop of the service, with one refund that the service does not know.

    Its clock is behind, so the refund was not made in the second in which the report is requested."""

    async def start() -> Simulator:
        simulator = Simulator(environment="live", outcome_delay=0, throttle={}, now=lambda: system_clock() - 5_000)
        await simulator.start()
        simulator.start_refund("12.00", "USD")
        return simulator

    found = server.run(start())
    yield found
    server.run(found.stop())


def test_reports_are_fetched_through_amazons_api(amazon: Simulator, valkey_url: str, tmp_path: Path) -> None:
    """With the settings of the service, and without a token. Findings are shown as with files."""
    key = tmp_path / "key.pem"
    key.write_bytes(amazon.merchant_private_key_pem)
    environment = {
        "RECEIVER_ACCOUNT__NAME": "eu",
        "RECEIVER_ACCOUNT__MERCHANT_ID": amazon.merchant_id,
        "RECEIVER_ACCOUNT__REGION": "na",
        "RECEIVER_ACCOUNT__PUBLIC_KEY_ID": amazon.public_key_id,
        "RECEIVER_ACCOUNT__PRIVATE_KEY_FILE": str(key),
        "RECEIVER_ACCOUNT__TOPIC_ARNS": amazon.topic_arn,
        "RECEIVER_ACCOUNT__ENDPOINT": amazon.base_url,
        "RECEIVER_REDIS__URL": valkey_url,
    }

    def ran(*args: str) -> subprocess.CompletedProcess[str]:
        command, env = [*FORKS.command(), "reconcile", *args], {**os.environ, **environment}
        return subprocess.run(command, check=False, capture_output=True, text=True, env=env, timeout=BOUND)

    found = ran("--since", "1h", "--json")
    assert found.returncode == 1, found.stderr
    [finding] = map(json.loads, found.stdout.splitlines())
    [refund_id] = amazon.refunds
    assert (finding["finding"], finding["refundId"], finding["account"]) == ("unknown_here", refund_id, "eu")
    assert "1 rows, 1 differences" in found.stderr
    for args, why in (
        ([], "Give either files, or --since"),
        (["--since", "1h", "x.csv"], "Give either files, or --since"),
        (["--since", "91d"], "Amazon keeps reports for 90 days"),
        (["--since", "7"], "has no unit"),
        (["--since", "7d", "--account", "us"], "the settings have no account 'us'"),
    ):
        wrong = ran(*args)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert why in wrong.stderr
