"""`receiver notification`: what was not understood, listed and shown, and safe for a terminal."""

from __future__ import annotations

import json
import uuid

import pytest

from receiver.ledger.notification import UnrecognizedNotification
from tests.commands.conftest import Run
from tests.commands.kit import REFUND, Server

ID = str(uuid.UUID(int=7))
MESSAGE = f"new: {REFUND}\n\x1b]0;owned\x07 second line\n"


def keep(server: Server, id_: str = ID, ago: int = 1000) -> None:
    at = server.service.store.now() - ago
    kept = UnrecognizedNotification("d" * 64, id_, "arn:topic", at - 1, at, "It is new.", ("us",), (REFUND,), 1, 9)
    server.run(server.service.store.of("us").notifications.keep(kept, MESSAGE))


def test_none_is_said(server: Server, admin: Run) -> None:
    """On standard error: there is no result."""
    ran = admin("notification", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "every notification was understood." in ran.err


def test_they_are_listed_and_one_is_shown(server: Server, admin: Run) -> None:
    """With what was not understood, the refunds that the message names, and its text."""
    keep(server)
    keep(server, str(uuid.UUID(int=8)), 0)
    listed = admin("notification", "list", "--limit", "1")
    assert listed.code == 0
    assert "Showing 1." in listed.err
    assert [
        each["notificationId"] for each in json.loads(admin("notification", "list", "--json").out)["notifications"]
    ] == [
        str(uuid.UUID(int=8)),
        ID,
    ]
    shown = admin("notification", "show", ID)
    assert shown.code == 0
    assert REFUND in shown.out
    assert "It is new." in shown.out
    assert shown.out.endswith(f"new: {REFUND}\n\\x1b]0;owned\\x07 second line\n")
    assert json.loads(admin("notification", "show", ID, "--json").out)["message"] == MESSAGE


@pytest.mark.parametrize(("id_", "code"), [("../x", 2), ("x", 1), (str(uuid.UUID(int=9)), 1)])
def test_an_id_that_is_not_there(admin: Run, id_: str, code: int) -> None:
    assert admin("notification", "show", id_).code == code


def test_it_is_for_administrators(server: Server, run: Run) -> None:
    """Amazon's messages may contain a buyer's text."""
    keep(server)
    for command in (("list",), ("show", ID)):
        ran = run("notification", *command)
        assert (ran.code, ran.out) == (1, "")
        assert "scope_missing" in ran.err
