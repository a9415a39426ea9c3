"""HTTP. Sessions of the dashboard in a folder, for processes that share a port: any of them may get the next request.

A file for each session, named by the digest of the cookie's id. The folder is the service's alone, and gone with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec
from starlette.requests import HTTPConnection

from receiver.http.auth import Caller
from receiver.http.dashboard.sessions import LASTS_MS, MOST_SESSIONS, Session, Sessions, cookie_name, digest

FORM_KEY, SUFFIX = "form.key", ".session"


class SharedSessions(Sessions):
    """All sessions of the processes that share the folder; `now` is ms."""

    def __init__(self, now: Callable[[], int], folder: Path) -> None:
        super().__init__(now)
        self._folder = folder
        with contextlib.suppress(FileExistsError):
            fresh = folder / f"{digest(self._chance()).hex()}.new"
            fresh.write_bytes(self.form_key)
            fresh.chmod(0o600)
            try:
                (folder / FORM_KEY).hardlink_to(fresh)
            finally:
                fresh.unlink()
        self.form_key = (folder / FORM_KEY).read_bytes()

    def begin(self, caller: Caller) -> str:
        """Begin one; returns the id for the cookie."""
        session_id = self._chance()
        there = sorted(self._folder.glob(f"*{SUFFIX}"), key=_made_at)
        for oldest in there[: max(0, len(there) + 1 - MOST_SESSIONS)]:
            oldest.unlink(missing_ok=True)
        path, fresh = self._path(session_id), self._folder / f"{digest(self._chance()).hex()}.new"
        session = Session(caller, self._chance(), self._now() + LASTS_MS)
        fresh.touch(0o600)
        fresh.write_bytes(msgspec.json.encode(session))
        fresh.replace(path)
        return session_id

    def of(self, connection: HTTPConnection) -> Session | None:
        """The session of the cookie, as long as it lasts."""
        path = self._path(connection.cookies.get(cookie_name(connection), ""))
        try:
            session = msgspec.json.decode(path.read_bytes(), type=Session)
        except FileNotFoundError:
            return None
        if session.ends_at <= self._now():
            path.unlink(missing_ok=True)
            return None
        return session

    def end(self, connection: HTTPConnection) -> None:
        """Sign out."""
        self._path(connection.cookies.get(cookie_name(connection), "")).unlink(missing_ok=True)

    def _path(self, session_id: str) -> Path:
        return self._folder / f"{digest(session_id).hex()}{SUFFIX}"


def _made_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
