"""Sessions of the dashboard that several processes share: what one begins another knows, and can end."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.requests import HTTPConnection

from receiver.http.api.auth import Caller
from receiver.http.dashboard import sessions as sessions_module
from receiver.http.dashboard.sessions import COOKIE, LASTS_MS
from receiver.http.dashboard.shared import SharedSessions
from receiver.settings.sections import Scope
from tests.kit.clock import T0, ManualClock

CALLER = Caller("people", frozenset({Scope.READ, Scope.ADMIN}), ("us", "eu"))


def browser(session_id: str) -> HTTPConnection:
    """A request with this cookie."""
    cookie = f"{COOKIE}={session_id}".encode()
    return HTTPConnection(
        {"type": "http", "scheme": "http", "method": "GET", "path": "/", "headers": [(b"cookie", cookie)]}
    )


def test_what_one_process_begins_another_knows_and_ends(tmp_path: Path) -> None:
    """With all that the token may; the cookie's id is nowhere in the folder, and others cannot read it."""
    clock = ManualClock()
    one, two = SharedSessions(clock, tmp_path), SharedSessions(clock, tmp_path)
    assert one.form_key == two.form_key
    session_id = one.begin(CALLER)
    found = two.of(browser(session_id))
    assert found is not None
    assert (found.caller, found.ends_at) == (CALLER, T0 + LASTS_MS)
    assert found == one.of(browser(session_id))
    assert two.reader(browser(session_id)) == CALLER
    assert not any(
        session_id in path.name or session_id.encode() in path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file()
    )
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
    two.end(browser(session_id))
    assert one.of(browser(session_id)) is None


def test_a_session_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time is over, or when there are too many; an unknown cookie is none."""
    clock = ManualClock()
    sessions = SharedSessions(clock, tmp_path)
    monkeypatch.setattr(sessions_module, "MOST_SESSIONS", 3)
    ids = [sessions.begin(CALLER) for _ in range(4)]
    assert [sessions.of(browser(each)) is not None for each in ids] == [False, True, True, True]
    assert sessions.of(browser("unknown")) is None
    assert sessions.of(browser("../form.key")) is None
    clock.tick(LASTS_MS)
    assert [sessions.of(browser(each)) for each in ids] == [None] * 4
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["form.key"]
    sessions.begin(CALLER)
    (of_token,) = tmp_path.glob("*.token")
    assert len(list(of_token.iterdir())) == 1
