"""HTTP. Dashboard sessions in the memory of one process.

A cookie contains a random id. Only its digest is kept, so nothing stored here opens a session. A session can see and do
whatever its token allows.
"""

from __future__ import annotations

import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from starlette.requests import HTTPConnection

from receiver.http.api.auth import Caller

LASTS_MS: Final = 12 * 3_600_000
MOST_SESSIONS, MOST_OF_TOKEN = 1_000, 100
"""In total, and per token. Beyond the limit the oldest session ends: of the same token at its own limit, else of the
token with the most sessions."""
COOKIE, SECURE_COOKIE = "receiver-session", "__Host-receiver-session"
"""Over https the prefix makes browsers reject a cookie set by another host or path (RFC 6265bis, 4.1.3.2)."""
READ_METHODS: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in browser. `csrf` goes into every form; `ends_at` is ms."""

    caller: Caller
    csrf: str
    ends_at: int


def new_id() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def same(one: str, other: str) -> bool:
    """Compares two secrets in constant time."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


class Sessions:
    """All sessions of this process. `now` is ms."""

    def __init__(self, now: Callable[[], int], random: Callable[[], str] = new_id) -> None:
        self._now, self._random = now, random
        self.form_key = secrets.token_bytes(32)
        """Signs the sign-in form, for which there is no session yet."""
        self.is_known: Callable[[Caller], bool] = lambda _: True
        """Whether the token of a session is still configured. If not, the session ends."""
        self._found: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self, caller: Caller) -> str:
        """Begins a session; returns the id for the cookie."""
        session_id = self._random()
        self._make_room(caller.name)
        self._found[digest(session_id)] = Session(caller, self._random(), self._now() + LASTS_MS)
        return session_id

    def _make_room(self, token: str) -> None:
        counts = Counter(session.caller.name for session in self._found.values())
        if (ending := ends_for(token, counts)) is not None:
            del self._found[next(key for key, session in self._found.items() if session.caller.name == ending)]

    def of(self, connection: HTTPConnection) -> Session | None:
        """The session of the cookie, unless it has ended."""
        key = digest(connection.cookies.get(cookie_name(connection), ""))
        session = self._found.get(key)
        if session is not None and self._has_ended(session):
            del self._found[key]
            return None
        return session

    def _has_ended(self, session: Session) -> bool:
        return session.ends_at <= self._now() or not self.is_known(session.caller)

    def end(self, connection: HTTPConnection) -> None:
        self._found.pop(digest(connection.cookies.get(cookie_name(connection), "")), None)

    def reader(self, connection: HTTPConnection) -> Caller | None:
        """The caller that reads the API with the cookie instead of a token: the dashboard's own script, which only
        reads."""
        own = connection.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        if connection.scope.get("method") not in READ_METHODS or not own:
            return None
        session = self.of(connection)
        return session.caller if session else None


def ends_for(token: str, counts: Counter[str]) -> str | None:
    """The token whose oldest session ends to make room for a new one of this token; None: there is room."""
    if counts[token] >= MOST_OF_TOKEN:
        return token
    return counts.most_common(1)[0][0] if counts.total() >= MOST_SESSIONS else None


def cookie_name(connection: HTTPConnection) -> str:
    """The cookie's name for the scheme that the browser used."""
    return SECURE_COOKIE if connection.url.scheme == "https" else COOKIE


def digest(session_id: str) -> bytes:
    """The stored form of a session id."""
    return sha256(session_id.encode("utf-8", "replace")).digest()
