"""`receiver refund export`, `receiver refund import` and `receiver prune`, against a running service."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from receiver.client.api import Api
from receiver.client.errors import not_the_api
from receiver.commands.refund import export, importing
from receiver.commands.refund.export import COLUMNS, FORMULA, csv_row
from receiver.commands.refund.importing import read_ids
from receiver.errors import ConfigurationError
from tests.commands.conftest import Ran, Run
from tests.commands.kit import REFUND, Server
from tests.http.kit import READER, REFUNDER
from tests.kit.forks import FORKS
from tests.kit.processes import PROJECT

HEAD = ",".join(COLUMNS)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def ids(numbers: Sequence[int]) -> list[str]:
    return [f"S01-{number}" for number in numbers]


def test_the_columns_are_in_their_order() -> None:
    """Programs read them by place: a new one comes at the end."""
    assert HEAD == (
        "account,refundId,chargeId,orderReference,state,reasonCode,reasonDescription,amount,currencyCode,"
        "lastUpdatedTimestamp,creationTimestamp,softDescriptor,releaseEnvironment,refundType,final,conflict,retryable,"
        "retryOf,retryRoot,retriedBy,revision,firstSeenAt,changedAt,source,unreadFields,"
        "resolution,resolutionAt,resolutionHow,resolutionBy,resolutionUser,resolutionNote,resolutionRefundId"
    )


def test_csv_has_every_refund(server: Server, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several pages, latest change first, with the amount as Amazon wrote it; the file is whole or not there."""
    monkeypatch.setattr(export, "MOST_PER_PAGE", 2)
    for number in range(5):
        server.seen(f"S01-{number}", "Declined", reason="AmazonRejected", description='=HYPERLINK("x")')
    server.seen("S01-9", "Refunded", account="eu")
    file = tmp_path / "refunds.csv"
    ran = run("refund", "export", "--since", "1d", "--state", "declined", "--account", "us", "--output", str(file))
    assert (ran.code, ran.out) == (0, ""), ran
    found = rows(file.read_text("utf-8"))
    assert [each["refundId"] for each in found] == ids([4, 3, 2, 1, 0])
    assert {(each["amount"], each["currencyCode"], each["final"]) for each in found} == {("14.00", "USD", "true")}
    assert {each["reasonDescription"] for each in found} == {'\'=HYPERLINK("x")'}
    assert list(tmp_path.iterdir()) == [file]
    assert "5 refunds" in ran.err


def test_json_lines_are_as_the_api_has_them(server: Server, run: Run) -> None:
    """On standard output, with both accounts, and only within the period."""
    server.seen("S01-1", description="=1+1")
    server.seen("S01-2", account="eu")
    ran = run("refund", "export", "--since", "1d", "--format", "jsonl")
    listed = json.loads(run("refund", "list", "--json").out)["refunds"]
    assert [json.loads(line) for line in ran.out.splitlines()] == listed
    empty = run("refund", "export", "--since", "2d", "--until", "1d")
    assert (empty.code, empty.out.strip()) == (0, HEAD)


def test_an_export_that_was_cut_goes_on(
    server: Server, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command, where the part ends; half a row behind that is cut off; nothing is missing or twice."""
    monkeypatch.setattr(export, "MOST_PER_PAGE", 2)
    for number in range(6):
        server.seen(f"S01-{number}")
    file = tmp_path / "refunds.csv"
    asked: list[str] = []
    call = Api.call

    async def cut(self: Any, method: str, path: str, **more: Any) -> Any:
        asked.append(path)
        if len(asked) == 3:
            raise not_the_api()
        return await call(self, method, path, **more)

    args = ("refund", "export", "--since", "1d", "--output", str(file))
    with monkeypatch.context() as patched:
        patched.setattr(Api, "call", cut)
        ran = run(*args)
    assert ran.code == 3
    assert "has 4 refunds. Run the same command to continue" in ran.err
    assert not file.exists()
    with (tmp_path / "refunds.csv.part").open("a") as part:
        part.write("us,S01-half")
    server.seen("S01-7")
    other = run(*args, "--state", "Declined")
    assert other.code == 2
    assert "another export" in other.err
    ran = run(*args)
    assert ran.code == 0, ran
    assert [each["refundId"] for each in rows(file.read_text())] == ids([5, 4, 3, 2, 1, 0])
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", "＝1"])
def test_no_cell_begins_as_a_formula(text: str) -> None:
    (row,) = csv.reader(io.StringIO(csv_row([text]), newline=""))
    assert row == ["'" + text.replace("=", "'=") if text[0].isspace() else "'" + text]


SPLIT = {
    "x;=1+1": "x;'=1+1",
    "x\t=1+1": "x\t'=1+1",
    "x|@SUM(A1)": "x|'@SUM(A1)",
    "x\n=1+1": "x\n'=1+1",
    "x\r\n-1+1": "x\r\n'-1+1",
    "x; +1": "x; '+1",
    'x;"=1+1"': 'x;"\'=1+1"',
    "x;＝1": "x;'＝1",
    "=1;=2|-3": "'=1;'=2|'-3",
    ";;=1": ";;'=1",
}
"""Untrusted text → the text that is written for it."""


@pytest.mark.parametrize(("text", "written"), SPLIT.items(), ids=map(repr, SPLIT))
def test_no_cell_becomes_a_formula_where_a_spreadsheet_splits_elsewhere(text: str, written: str) -> None:
    """It splits the lines of the file, which has commas, at a semicolon, a tab or a bar, with and without quotes."""
    line = csv_row(["us", text, "R-2"])
    assert next(csv.reader(io.StringIO(line, newline=""))) == ["us", written, "R-2"]
    for separator in (",", ";", "\t", "|"):
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
            table = csv.reader(io.StringIO(line, newline=""), delimiter=separator, quoting=quoting)
            pieces = [cell.lstrip().strip('"').lstrip() for row in table for cell in row]
            assert not [piece for piece in pieces if piece.startswith(FORMULA)], (separator, quoting)


PLAIN = ["14.00", "S01-5105180-3221187-R022311", "2026-01-31T12:00:00Z", "a-b+c@d=e", "x;y|z", "100 %; 5-10 days", ""]


@pytest.mark.parametrize("text", PLAIN)
def test_numbers_dates_and_ids_stand_as_they_are(text: str) -> None:
    assert next(csv.reader(io.StringIO(csv_row(["us", text])))) == ["us", text]


def test_a_negative_amount_can_be_read() -> None:
    """As text, like every amount."""
    assert csv_row(["us", "-14.00", "EUR"]) == "us,'-14.00,EUR\r\n"


def test_an_output_that_cannot_be_written_is_said(run: Run, tmp_path: Path) -> None:
    ran = run("refund", "export", "--since", "1d", "--output", str(tmp_path / "no" / "file"))
    assert ran.code == 2
    assert "cannot be written" in ran.err


REPORT = """"SettlementStartDate","2026-01-01T00:00:00"
"SettlementEndDate","2026-01-31T00:00:00"

"TransactionPostedDate","SettlementId","Amazon Transaction Id","SellerReferenceId","TransactionType","TransactionAmount"
"2026-01-02","1","P01-1234567-1234567-C000001","a","Capture","10.00"
"2026-01-03","1","P01-1234567-1234567-R000001","b","Refund","-10.00"
"2026-01-03","1","P01-1234567-1234567-R000002","b, c","Refund","-1.00"
"2026-01-03","1","P01-1234567-1234567-R000001","b","Refund","-10.00"
"2026-01-04","1","P01-1234567-1234567-C000002","b","Refund","-10.00"
"2026-01-04","1","","b","Refund","-10.00"
"""
REAL = ["P01-1234567-1234567-R000001", "P01-1234567-1234567-R000002"]


def test_a_settlement_report_is_read() -> None:
    """The head comes after lines about the report; only refunds count; commas or tabs."""
    for text in (REPORT, REPORT.replace('","', '"\t"').replace("Amazon Transaction Id", "AmazonTransactionId")):
        found = read_ids([text.encode()])
        assert (found.ids, found.others, found.repeated) == (REAL, 1, 1)
        assert found.bad == [
            "line 9: 'P01-1234567-1234567-C000002' is not a refund id: those have an R before the last six digits",
            "line 10: the id is missing",
        ]


def test_an_id_with_an_r_is_a_refund_whatever_its_row_is_called() -> None:
    """Claims and chargebacks have other types, and reports of other countries translate the types."""
    rows = [("Capture", "C000001"), ("A-to-z Guarantee", "R000001"), ("Chargeback", "R000002"), ("返金", "R000003")]
    text = "AmazonTransactionId,TransactionType\n" + "".join(
        f"P01-1234567-1234567-{id_},{kind}\n" for kind, id_ in rows
    )
    found = read_ids([text.encode()])
    assert found.ids == [f"P01-1234567-1234567-R00000{number}" for number in (1, 2, 3)]
    assert (found.others, found.bad) == (1, [])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("not-an-id", "'not-an-id' is not a refund id: those look like S01-5105180-3221187-R022311"),
        ("P01-1234567-1234567", "'P01-1234567-1234567' is not a refund id: those have an R before the last six digits"),
        ("p01-1234567-1234567-R000001", "'p01-1234567-1234567-R000001' is not a refund id"),
        ("IHDR\x00\x1b[2J", r"'IHDR\\x00\\x1b\[2J' is not a refund id"),
        ("a" * 100, rf"'{'a' * 40}\\u2026' is not a refund id"),
    ],
)
def test_only_what_has_the_form_of_a_refund_id_is_taken(line: str, why: str) -> None:
    """Each other line is named with the reason, and shown so that it cannot harm a terminal."""
    found = read_ids([f"{REAL[0]}\n{line}\n".encode()])
    assert found.ids == REAL[:1]
    assert re.match(f"line 2: {why}", found.bad[0])


def test_lists_and_other_tables_are_read() -> None:
    """One id a line with remarks; a named column; an export of our own."""
    assert read_ids([f"# old ones\n{REAL[0]}\n\n  {REAL[1]}  \nno id!\n".encode()]).ids == REAL
    assert read_ids([f"Order;The Refund\n1;{REAL[0]}\n".encode()], "the refund").ids == REAL[:1]
    assert read_ids([f"{HEAD}\r\nus,{REAL[0]},C-1\r\n".encode()]).ids == REAL[:1]
    assert read_ids([b""]).ids == []
    with pytest.raises(ConfigurationError, match="first 40 lines have no header"):
        read_ids([f"a,b\n1,{REAL[0]}\n".encode()], "c")


def test_a_quotation_mark_that_nobody_closes_is_refused() -> None:
    """Otherwise all following rows would become one cell, and their refunds would be skipped silently. Only its own
    line is refused."""
    last = "P01-1234567-1234567-R000003"
    text = f'refundId,note\n{REAL[0]},"5"" long"\n{REAL[1]},"5 inch\n{last},\n'
    found = read_ids([text.encode()])
    assert (found.ids, found.bad) == (
        [REAL[0], last],
        ["line 3: a quotation mark is not closed, or text follows it"],
    )


def test_a_separator_of_lines_inside_of_a_cell_ends_no_row() -> None:
    """Only CR and LF do: a buyer's text may contain other separators of Unicode."""
    assert read_ids([f"refundId,note\n{REAL[0]},a\u2028b\x0bc\n{REAL[1]},\n".encode()]).ids == REAL


@pytest.mark.parametrize(
    ("raw", "code", "says"),
    [
        (f"refundId\n{REAL[0]}\n".encode("utf-16"), 0, "1 would be imported"),
        (f"\ufeffrefundId\r\n{REAL[0]}\r\n".encode(), 0, "1 would be imported"),
        (b"a" * 200_000, 1, "1 bad"),
        (b" \r\n", 2, "is empty"),
        (b"# mine\nid;amount\n1;2\n", 2, "Name the column with --column. Its columns are: id, amount."),
    ],
)
def test_files_of_other_programs(run: Run, tmp_path: Path, raw: bytes, code: int, says: str) -> None:
    """Excel's Unicode text; a byte order mark; binary data; an empty file."""
    file = tmp_path / "ids"
    file.write_bytes(raw)
    ran = run("refund", "import", str(file), "--dry-run")
    assert ran.code == code, ran.err
    assert says in ran.out + ran.err


def test_import_takes_refunds_in(server: Server, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each becomes a hint; --dry-run makes none; a second run does no harm."""
    file = tmp_path / "settlement.csv"
    file.write_text(REPORT, "utf-8")

    def asked_for() -> list[str]:
        key = "refunds:{us}:refreshed"
        return sorted(each.decode() for each in server.run(server.service.store._read("ZRANGE", key, 0, -1)))

    args = ("refund", "import", str(file), "--account", "us", "--rate", "100", "--json")
    ran = run(*args, "--dry-run", token=REFUNDER)
    assert (ran.code, json.loads(ran.out)["ids"], asked_for()) == (1, 2, [])
    for _ in range(2):
        ran = run(*args, token=REFUNDER)
        told = json.loads(ran.out)
        assert (ran.code, told["accepted"], told["refused"], len(told["bad"])) == (1, 2, [], 2)
        assert asked_for() == REAL


def test_import_stops_where_no_line_would_fare_better(run: Run, tmp_path: Path) -> None:
    """A token without the scope; several accounts without a name; an account that does not exist."""
    file = tmp_path / "ids"
    file.write_text("\n".join(REAL), "utf-8")
    for args, token in ((["--dry-run"], READER), ([], REFUNDER)):
        ran = run("refund", "import", str(file), "--account", "uss", *args, token=token)
        assert (ran.code, ran.out) == (1, "")
        assert "no_such_account" in ran.err
    ran = run("refund", "import", str(file))
    assert (ran.code, ran.out) == (1, "")
    assert "scope_missing" in ran.err
    ran = run("refund", "import", str(file), token=REFUNDER)
    assert (ran.code, ran.out) == (1, "")
    assert "Give --account NAME" in ran.err
    assert "0 of 2 were accepted" in ran.err


async def test_the_rate_is_kept() -> None:
    """The maximum per second, however fast the service is."""
    import asyncio

    from receiver.exchange import Response

    times: list[float] = []

    async def send(*_: Any, **__: Any) -> Response:
        times.append(asyncio.get_running_loop().time())
        return Response(202, {"content-type": "application/json"}, b'{"refundId": "x", "account": "us"}')

    api = Api(send, "http://127.0.0.1", "token")
    assert (await importing.refresh_all(api, ids(range(5)), 50)).accepted == 5
    assert times[-1] - times[0] >= 4 / 50 - 0.005


@pytest.fixture
def config(valkey_url: str) -> dict[str, str]:
    """The settings of `prune`, on the Valkey of the service."""
    from tests.commands.test_cli import account

    return {**account(), "RECEIVER_ACCOUNT__NAME": "us", "RECEIVER_REDIS__URL": valkey_url}


def prune(config: dict[str, str], *args: str) -> Ran:
    """In its own process: the command sets up the log of its process."""
    environment = {**os.environ, "COLUMNS": "200", **config}
    command = [*FORKS.command(), "prune", *args]
    ran = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def age(server: Server, *refunds: str, days: int = 500) -> None:
    """Make refunds that old."""
    store = server.service.store
    then = store.now() - days * 86_400_000

    async def do() -> None:
        for refund_id in refunds:
            refund = await store.of("us").refunds.get(refund_id)
            assert refund is not None
            key = f"refunds:{{us}}:refund:{refund_id}"
            await store._writes.call(("HSET", key, "changed", then, "seen", then))
            await store._writes.call(("ZADD", f"refunds:{{us}}:state:{refund.state}", then, refund_id))
            await store._writes.call(("ZREM", "refunds:{us}:due", refund_id))

    server.run(do())


def test_prune_removes_what_is_old_and_settled(server: Server, run: Run, config: dict[str, str]) -> None:
    """First in a dry run, with the same counts; what stays is counted by its reason."""
    old = ids(range(5))
    for refund_id in old:
        server.seen(refund_id, "Refunded")
    server.seen("S01-pending")
    server.seen("S01-young", "Declined")
    server.seen("S01-asked", "Declined")
    age(server, *old, "S01-pending", "S01-asked")
    run("refund", "refresh", "S01-asked", "--account", "us", token=REFUNDER)
    for more, dry in ((["--dry-run"], True), ([], False)):
        result = prune(config, "--older-than", "400d", "--json", *more)
        assert result.code == 0, result
        told = json.loads(result.out)
        counts = {"pruned": 5, "kept": {"scheduled": 1}, "auditEntries": 0}
        assert told == {"dryRun": dry, "accounts": [{"account": "us", **counts}]}
    listed = json.loads(run("refund", "list", "--json").out)["refunds"]
    assert {each["refundId"] for each in listed} == {"S01-pending", "S01-young", "S01-asked"}
    again = prune(config, "--older-than", "400d")
    assert again.out.splitlines() == ["us: 0 refunds removed", "us: 1 refund kept: a poll of Amazon is due"]


@pytest.mark.parametrize(("older_than", "left"), [("30d", 3), ("400d", 3), ("500d", 4)])
def test_prune_removes_old_entries_of_the_audit_trail(
    server: Server, run: Run, config: dict[str, str], older_than: str, left: int
) -> None:
    """None younger than 400 days, as long as a request is kept; and none of `--refund`."""
    redis, now = server.service.store.connection.client, server.service.store.now()
    for days in (600, 450, 399, 31):
        server.run(redis.xadd("refunds:{us}:audit", {"entry": "{}"}, id=f"{now - days * 86_400_000}-0"))
    run("refund", "refresh", REFUND, "--account", "us", token=REFUNDER)
    prune(config, "--refund", "S01-1")
    assert server.run(redis.xlen("refunds:{us}:audit")) == 5
    told = [json.loads(prune(config, "--older-than", older_than, "--json", *dry).out) for dry in (["--dry-run"], [])]
    assert [each["accounts"][0]["auditEntries"] for each in told] == [5 - left, 5 - left]
    assert server.run(redis.xlen("refunds:{us}:audit")) == left


def test_prune_of_one_refund_says_why_it_stays(server: Server, config: dict[str, str]) -> None:
    """However young it is, if it is settled."""
    server.seen("S01-1")
    server.seen("S01-2", "Refunded")
    age(server, "S01-2", days=0)
    kept = prune(config, "--refund", "S01-1")
    assert (kept.code, kept.out.splitlines()[-1]) == (1, "us: 1 refund kept: not final")
    assert prune(config, "--refund", "S01-2").code == 0
    gone = prune(config, "--refund", "S01-2")
    assert (gone.code, gone.out.splitlines()[-1]) == (1, "us: 1 refund kept: not found")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "either --older-than"),
        (["--older-than", "400d", "--refund", "S01-1"], "either --older-than"),
        (["--older-than", "29d"], "30d or more"),
        (["--older-than", "400"], "400 has no unit. Write 400d for days"),
        (["--older-than", "old"], "span of time"),
        (["--refund", "no id!"], "a refund id is"),
        (["--older-than", "400d", "--account", "jp"], "no account 'jp'"),
    ],
)
def test_prune_wrongly_called_is_exit_code_2(config: dict[str, str], args: list[str], says: str) -> None:
    result = prune(config, *args)
    assert (result.code, result.out) == (2, "")
    assert says in result.err


def test_prune_without_a_store_says_so(config: dict[str, str], tmp_path: Path) -> None:
    """An embedded one that does not run; a Redis that is not there."""
    embedded = {**config, "RECEIVER_REDIS__URL": "", "RECEIVER_DATA_DIR": str(tmp_path)}
    result = prune(embedded, "--older-than", "400d")
    assert (result.code, "Start `receiver serve` first" in result.err) == (2, True)
    result = prune({**config, "RECEIVER_REDIS__URL": "redis://127.0.0.1:1"}, "--older-than", "400d")
    assert (result.code, "unreachable" in result.err) == (3, True)


def test_repair_sets_a_key_aside_and_says_how_to_undo_it(server: Server, config: dict[str, str]) -> None:
    """What money depends on is left alone until a person has compared."""
    key, charge = "refunds:{us}:refund:S01-9", "refunds:{us}:charge:C"

    def repair(*args: str) -> Ran:
        environment = {**os.environ, "COLUMNS": "200", **config}
        command = [*FORKS.command(), "repair", *args]
        ran = subprocess.run(
            command, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    server.run(server.service.store._write("SADD", key, "not ours"))
    server.run(server.service.store._write("HSET", charge, "x", "y"))
    done = repair(key, "--json")
    kept = json.loads(done.out)["keptAt"]
    assert (done.code, kept.startswith("refunds:{us}:replaced:")) == (0, True)
    assert server.run(server.service.store._read("SMEMBERS", kept))
    again = repair(key)
    assert (again.code, again.out.strip()) == (1, f"There is no {key}. Nothing was changed.")
    refused = repair(charge)
    assert refused.code == 2
    assert "Seller Central" in refused.err
    assert repair(charge, "--part", "x", "--compared").code == 0
    assert repair("refunds:{us}:nobody").code == 2
