"""HTTP. Dashboard sessions in a folder, for processes that share a port: any of them may get the next request.

Each session is a file, named by the digest of the cookie's id. A link to it in the folder of its token serves to count
the token's sessions. The folder belongs to the service alone, and is removed with it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
from starlette.requests import HTTPConnection

from receiver.http.api.auth import Caller
from receiver.http.dashboard.sessions import LASTS_MS, Session, Sessions, cookie_name, digest, ends_for

FORM_KEY, SUFFIX, FOLDER = "form.key", ".session", ".token"


class SharedSessions(Sessions):
    """All sessions of the processes that share the folder; `now` is ms."""

    def __init__(self, now: Callable[[], int], folder: Path) -> None:
        super().__init__(now)
        self._folder = folder
        with contextlib.suppress(FileExistsError):
            fresh = folder / f"{digest(self._random()).hex()}.new"
            fresh.touch(0o600)
            fresh.write_bytes(self.form_key)
            try:
                (folder / FORM_KEY).hardlink_to(fresh)
            finally:
                fresh.unlink()
        self.form_key = (folder / FORM_KEY).read_bytes()

    def begin(self, caller: Caller) -> str:
        """Begins a session; returns the id for the cookie."""
        session_id = self._random()
        self._make_room(caller.name)
        path, fresh = self._path(session_id), self._folder / f"{digest(self._random()).hex()}.new"
        session = Session(caller, self._random(), self._now() + LASTS_MS)
        fresh.touch(0o600)
        fresh.write_bytes(msgspec.json.encode(session))
        self._of_token(caller.name).mkdir(0o700, exist_ok=True)
        (self._of_token(caller.name) / path.name).hardlink_to(fresh)
        fresh.replace(path)
        return session_id

    def _make_room(self, token: str) -> None:
        found = {folder.name: self._sessions_in(folder) for folder in self._folder.glob(f"*{FOLDER}")}
        mine = self._of_token(token).name
        ending = ends_for(mine, Counter({name: len(paths) for name, paths in found.items()}))
        if ending is not None:
            oldest = found[ending][0]
            (self._folder / oldest.name).unlink(missing_ok=True)
            oldest.unlink(missing_ok=True)

    def _sessions_in(self, folder: Path) -> list[Path]:
        """The links to a token's sessions, oldest first. Removes links whose session has ended."""
        found = []
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if status.st_nlink > 1:
                    found.append((status.st_mtime_ns, path))
                else:
                    path.unlink()
        return [path for _, path in sorted(found)]

    def _of_token(self, token: str) -> Path:
        return self._folder / f"{digest(token).hex()}{FOLDER}"

    def of(self, connection: HTTPConnection) -> Session | None:
        """The session of the cookie, unless it has ended."""
        path = self._path(connection.cookies.get(cookie_name(connection), ""))
        try:
            session = msgspec.json.decode(path.read_bytes(), type=Session)
        except FileNotFoundError:
            return None
        if self._has_ended(session):
            path.unlink(missing_ok=True)
            return None
        return session

    def end(self, connection: HTTPConnection) -> None:
        self._path(connection.cookies.get(cookie_name(connection), "")).unlink(missing_ok=True)

    def _path(self, session_id: str) -> Path:
        return self._folder / f"{digest(session_id).hex()}{SUFFIX}"
