"""HTTP. Bearer tokens (RFC 6750): the caller, its scopes, the accounts it may see, and the person behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import structlog
from starlette.requests import HTTPConnection

from receiver.errors import Forbidden, NotFound, Unauthorized
from receiver.http.forwarded import user_of
from receiver.http.headers import values_of
from receiver.http.limits import SignInLimit
from receiver.ledger.audit import Actor
from receiver.settings.sections import Scope, TokenSettings

LONGEST_TOKEN = 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """The token's name and rights. `accounts` are those that it may see, in the order of the configuration.

    `digest` is the start of the token's digest: another token of the same name and rights is another caller.
    """

    name: str
    scopes: frozenset[Scope]
    accounts: tuple[str, ...]
    digest: str = field(default="", repr=False)

    def need(self, *scopes: Scope) -> None:
        """Raise `Forbidden` unless the token has one of the scopes; none includes another."""
        if self.scopes.isdisjoint(scopes):
            wanted = " or ".join(scopes)
            raise Forbidden(f"The token {self.name} lacks the scope {wanted}.", reason="scope_missing")

    def seen(self, account: str | None) -> tuple[str, ...]:
        """The accounts to search. Raises `NotFound` for one that does not exist or that the token may not see."""
        if account is None:
            return self.accounts
        if account not in self.accounts:
            raise NotFound("Account not found, or not visible to the token.", reason="no_such_account")
        return (account,)


class Tokens:
    """All configured tokens; only their digests are kept here.

    `session` identifies the caller by a dashboard session if no token was sent; that allows reading only.
    """

    def __init__(
        self,
        tokens: Iterable[TokenSettings],
        accounts: Sequence[str],
        attempts: SignInLimit | None = None,
        session: Callable[[HTTPConnection], Caller | None] = lambda _: None,
    ) -> None:
        self._attempts = SignInLimit(0) if attempts is None else attempts
        self._session = session
        self._accounts = accounts
        self.replace(tokens)

    def replace(self, tokens: Iterable[TokenSettings]) -> None:
        """Replaces all tokens. A session or a stream of one that is no longer there ends."""
        self._callers = {bytes.fromhex(token.sha256): _caller(token, self._accounts) for token in tokens}
        self._known = frozenset(self._callers.values())

    @property
    def count(self) -> int:
        return len(self._callers)

    def knows(self, caller: Caller) -> bool:
        """Whether the caller's token is still configured, with the same rights."""
        return caller in self._known

    def identify(self, request: HTTPConnection) -> Caller:
        """Identifies the caller.

        Raises `Unauthorized` (`token_missing`, `token_unknown`), or `TooManyAttempts` after too many unknown tokens.
        """
        headers = values_of(request.scope["headers"], b"authorization")
        by_session = None if headers else self._session(request)
        caller = by_session or self._presented(request, headers)
        log_actor(request, caller)
        return caller

    def admits(self, request: HTTPConnection) -> bool:
        """Whether this request would still be identified: its session may have ended, its token may be gone."""
        headers = values_of(request.scope["headers"], b"authorization")
        return sha256(_bearer(headers)).digest() in self._callers if headers else self._session(request) is not None

    def _presented(self, request: HTTPConnection, headers: list[str]) -> Caller:
        token = _bearer(headers)
        self._attempts.check(request)
        try:
            return self.known(token)
        except Unauthorized:
            self._attempts.failed(request)
            raise

    def known(self, token: bytes) -> Caller:
        """Finds the caller by the SHA-256 digest of its token.

        The time of a look-up depends on digests alone. It reveals nothing about a configured token: no one can make a
        token whose digest resembles a given one. Raises `Unauthorized`: `token_unknown`.
        """
        caller = self._callers.get(sha256(token).digest())
        if caller is None:
            raise Unauthorized("The bearer token is not recognised.", reason="token_unknown")
        return caller


def actor_of(request: HTTPConnection, caller: Caller) -> Actor:
    """Who acts by this request: the token, and the person whom a trusted proxy names."""
    return Actor(caller.name, user_of(request), structlog.contextvars.get_contextvars().get("request_id", ""))


def log_actor(request: HTTPConnection, caller: Caller) -> None:
    """Name the token and the person in the further log lines of this request."""
    user = user_of(request)
    structlog.contextvars.bind_contextvars(token_name=caller.name, **({"user": user} if user else {}))


def _caller(token: TokenSettings, accounts: Sequence[str]) -> Caller:
    allowed = accounts if token.accounts is None else [name for name in accounts if name in token.accounts]
    return Caller(token.name, token.scopes, tuple(allowed), token.sha256.lower()[:32])


def _bearer(headers: Sequence[str]) -> bytes:
    scheme, _, token = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > LONGEST_TOKEN:
        raise Unauthorized("Send a token: `Authorization: Bearer …`.", reason="token_missing")
    return token.encode("utf-8", "surrogateescape")
