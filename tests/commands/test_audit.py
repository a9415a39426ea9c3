"""`receiver audit export` and `GET /v1/audit` in pages, against a running service with two accounts."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from receiver.client.api import Api
from receiver.client.errors import not_the_api
from receiver.commands import audit
from receiver.commands.audit import COLUMNS
from receiver.http import audit as audit_api
from receiver.http.audit import AuditEntryJson
from receiver.ledger.audit import Action, Actor, AuditEntry
from tests.commands.conftest import Run
from tests.commands.kit import Server
from tests.http.kit import ADMIN

T = 1_790_000_000_000
Place = tuple[int, int, str]


def act(server: Server, at: int, number: int = 0, account: str = "us", user: str = "ann", **more: str) -> Place:
    """An act as a script would append it, at this ms after `T`."""
    entry = AuditEntry(action=Action.REFUND_REFRESH, actor=Actor("orders", user, "req"), **more)  # type: ignore[arg-type]
    fields = {"entry": msgspec.json.encode(entry)}
    redis = server.service.store.connection.client
    server.run(redis.xadd(f"refunds:{{{account}}}:audit", fields, id=f"{T + at}-{number}"))
    return T + at, number, account


def place(entry: dict[str, Any]) -> Place:
    ms, _, number = entry["id"].partition("-")
    return int(ms), int(number), entry["account"]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_are_as_the_api_has_them(server: Server, admin: Run) -> None:
    """Newest first, of both accounts, with every key."""
    made = [act(server, 1), act(server, 2, account="eu"), act(server, 3, refund_id="R1")]
    ran = admin("audit", "export")
    assert ran.code == 0, ran
    found = lines(ran.out)
    assert [place(each) for each in found] == made[::-1]
    assert list(found[0]) == [field.encode_name for field in msgspec.structs.fields(AuditEntryJson)]
    assert found[0] == {
        "id": f"{T + 3}-0",
        "account": "us",
        "time": "2026-09-21T14:13:20.003Z",
        "action": "refund.refresh",
        "token": "orders",
        "user": "ann",
        "outcome": "done",
        "refundId": "R1",
        **dict.fromkeys(("refundRequestId", "chargeId", "subscriber", "jobId", "eventId", "count")),
        "fields": [],
        "requestId": "req",
    }
    assert set(COLUMNS) == set(found[0]), "a column for each"
    assert "3 entries. The next export: --since 2026-09-21T14:13:10.003Z" in ran.err


def test_csv_has_every_entry_and_no_formula(server: Server, admin: Run, tmp_path: Path) -> None:
    """For a spreadsheet, a person's name is untrusted text."""
    act(server, 1, user="=cmd|' /C calc'!A0")
    act(server, 2, refund_id="R1")
    file = tmp_path / "audit.csv"
    ran = admin("audit", "export", "--format", "csv", "--output", str(file))
    assert (ran.code, ran.out) == (0, ""), ran
    rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"))))
    assert [each["refundId"] for each in rows] == ["R1", ""]
    assert rows[1]["user"].startswith("'=cmd")
    assert list(tmp_path.iterdir()) == [file]


def test_filters(server: Server, admin: Run) -> None:
    made = [act(server, 1, refund_id="R1"), act(server, 2, account="eu", user="bob"), act(server, 9, user="bob")]

    def found(*args: str) -> list[Place]:
        ran = admin("audit", "export", *args)
        assert ran.code == 0, ran
        return [place(each) for each in lines(ran.out)]

    assert found("--refund", "R1") == made[:1]
    assert found("--actor", "bob") == [made[2], made[1]]
    assert found("--actor", "bob", "--account", "eu") == made[1:2]
    assert found("--since", "2026-09-21T14:13:20.002Z", "--until", "2026-09-21T14:13:20.009Z") == made[1:2]
    assert admin("audit", "export", "--since", "2d", "--until", "1d").out == ""
    assert admin("audit", "export", "--actor", "x" * 129).code == 1
    assert admin("audit", "export", "--refund", "R 1").code == 1


def test_an_export_that_was_cut_goes_on_exactly(
    server: Server, admin: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command continues where the first part ends. Nothing is missing or repeated, and acts since then are
    left out."""
    monkeypatch.setattr(audit, "MOST_PER_PAGE", 2)
    made = [act(server, at, account=account) for at in range(4) for account in ("us", "eu")]
    file = tmp_path / "audit.jsonl"
    args, call, asked = ("audit", "export", "--output", str(file)), Api.call, list[str]()

    async def cut(self: Any, method: str, path: str, **more: Any) -> Any:
        asked.append(path)
        if len(asked) == 3:
            raise not_the_api()
        return await call(self, method, path, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Api, "call", cut)
        ran = admin(*args)
    assert (ran.code, file.exists()) == (3, False)
    assert "has 4 entries. Run the same command to continue" in ran.err
    with (tmp_path / "audit.jsonl.part").open("a") as part:
        part.write('{"id":"half')
    newer = act(server, 50)
    other = admin(*args, "--actor", "ann")
    assert (other.code, "another export" in other.err) == (2, True)
    ran = admin(*args)
    assert ran.code == 0, ran
    found = lines(file.read_text())
    assert sorted(map(place, found)) == sorted(made)
    assert [each["time"] for each in found] == sorted((each["time"] for each in found), reverse=True)
    following = admin(*["audit", "export", "--since"], ran.err.split("--since ")[1].strip())
    assert newer in map(place, lines(following.out))


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 200])
@pytest.mark.parametrize("examined", [1, 1000])
def test_pages_of_several_accounts_have_everything_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, admin: Run, limit: int, examined: int
) -> None:
    """Also where ids are equal, where a filter leaves little, and where the scan ends the page."""
    monkeypatch.setattr(audit_api, "MOST_EXAMINED", examined)
    monkeypatch.setattr("receiver.store.audit.CHUNK", 2)
    monkeypatch.setattr(audit, "MOST_PER_PAGE", limit)
    made = [act(server, at // 3, at % 3, account, user="ann") for at in range(9) for account in ("us", "eu")]
    more = [act(server, 100 + at, account="eu", user="bob") for at in range(7)]

    def by(actor: str) -> list[Place]:
        return sorted((each for each in (made if actor == "ann" else [*made, *more])), reverse=True)

    for args, expected in ((("--actor", "ann"), by("ann")), ((), by(""))):
        ran = admin("audit", "export", *args)
        assert ran.code == 0, ran
        assert [place(each) for each in lines(ran.out)] == expected


def test_a_cursor_is_of_its_filters(server: Server, admin: Run) -> None:
    """An altered one, or one of another list, is refused."""
    for at in range(3):
        act(server, at)

    async def asked(query: str) -> Any:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{server.url}/v1/audit?limit=1{query}", headers=headers) as answer,
        ):
            return await answer.json(content_type=None)

    cursor = server.run(asked(""))["nextCursor"]
    assert server.run(asked(f"&cursor={cursor}"))["entries"][0]["id"] == f"{T + 1}-0"
    for query in (f"&cursor={cursor}&actor=ann", f"&cursor={cursor[:-2]}AA", "&cursor=x"):
        assert server.run(asked(query))["reason"] == "bad_cursor"


def test_a_damaged_entry_is_named(server: Server, admin: Run) -> None:
    act(server, 1)
    server.run(server.service.store.connection.client.xadd("refunds:{us}:audit", {"entry": "?"}, id=f"{T + 2}-0"))
    ran = admin("audit", "export")
    assert (ran.code, len(lines(ran.out))) == (0, 1)
    assert f"Damaged, and left out: us/{T + 2}-0." in ran.err


def test_it_needs_the_scope_admin(run: Run) -> None:
    ran = run("audit", "export")
    assert (ran.code, "scope_missing" in ran.err) == (1, True)
