"""HTTP. `/sign-in` and `/sign-out`: exchanges a token for a session.

The form has a CSRF token before there is a session: otherwise another site could sign a user in with its own token. A
random cookie must match a keyed digest of it in the form.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import structlog
from starlette.requests import Request
from starlette.responses import Response

from receiver.errors import Forbidden, Unauthorized
from receiver.http.api.auth import LONGEST_TOKEN, Tokens, log_actor
from receiver.http.dashboard.guard import PageFrame, Visit, need_own_page, own_page, read_form, see_other
from receiver.http.dashboard.sessions import LASTS_MS, Sessions, cookie_name, new_id, same
from receiver.http.limits import SignInLimit, address_of

log = structlog.get_logger()

FORM_COOKIE = "-form"
FORM_LASTS = 3600
BURST, EVERY = 5, 30.0
"""Failed sign-ins of one client: this many at once, then one more per this time (seconds)."""


class SigningIn:
    """The handlers. `now` is ms."""

    def __init__(self, frame: PageFrame, sessions: Sessions, tokens: Tokens, now: Callable[[], int]) -> None:
        self._frame, self._sessions, self._tokens = frame, sessions, tokens
        self._limit = SignInLimit(BURST, EVERY, timer=lambda: now() / 1000)
        self._key = sessions.form_key

    async def show(self, request: Request) -> Response:
        if self._sessions.of(request):
            return see_other(own_page(request.query_params.get("next", "/")))
        return self._form(request, own_page(request.query_params.get("next", "/")))

    async def sign_in(self, request: Request) -> Response:
        """`POST /sign-in`: the cookie, or 401, or 429 after too many failures."""
        need_own_page(request)
        fields = await read_form(request)
        seed = request.cookies.get(cookie_name(request) + FORM_COOKIE, "")
        if not seed or not same(fields.get("csrf", ""), self._digest(seed)):
            raise Forbidden("Reload the sign-in page. Your browser must allow cookies.", reason="csrf")
        following, client = own_page(fields.get("next", "/")), request.client.host if request.client else ""
        if wait := self._limit.wait(address_of(request)):
            log.warning("dashboard.sign_in_limited", client=client)
            answer = self._form(request, following, f"Too many failed attempts. Try again in {wait} s.", 429)
            answer.headers["Retry-After"] = str(wait)
            return answer
        token = fields.get("token", "").strip()
        try:
            if not token or len(token) > LONGEST_TOKEN:
                raise Unauthorized(reason="token_missing")
            caller = self._tokens.known(token.encode())
        except Unauthorized as error:
            self._limit.failed(request)
            log.warning("dashboard.sign_in_failed", client=client, reason=error.reason)
            return self._form(request, following, "Token not recognised. Check that you copied all of it.", 401)
        log_actor(request, caller)
        log.info("dashboard.signed_in", client=client)
        self._sessions.end(request)
        answer = see_other(following)
        _set(answer, request, cookie_name(request), self._sessions.begin(caller), LASTS_MS // 1000)
        return answer

    async def sign_out(self, visit: Visit) -> Response:
        """`POST /sign-out`: ends the session on the server, even if the browser keeps the cookie."""
        request, answer = visit.request, see_other("/sign-in")
        self._sessions.end(request)
        answer.delete_cookie(cookie_name(request), path="/", secure=_secure(request), httponly=True, samesite="strict")
        return answer

    def _form(self, request: Request, following: str, error: str = "", status: int = 200) -> Response:
        name = cookie_name(request) + FORM_COOKIE
        seed = request.cookies.get(name, "") or new_id()
        values = {"form_csrf": self._digest(seed), "next": following, "error": error}
        answer = self._frame.render("sign_in.html", None, values, status=status)
        _set(answer, request, name, seed, FORM_LASTS)
        return answer

    def _digest(self, seed: str) -> str:
        return hmac.new(self._key, seed.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _set(answer: Response, request: Request, name: str, value: str, seconds: int) -> None:
    answer.set_cookie(name, value, max_age=seconds, path="/", secure=_secure(request), httponly=True, samesite="strict")
