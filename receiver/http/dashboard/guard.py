"""HTTP. The frame of every dashboard page: the session, the CSRF token of a form, and errors as pages."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, quote

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from receiver.errors import BadRequest, Forbidden, ReceiverError, StoreUnavailable
from receiver.http.api.auth import log_actor
from receiver.http.api.bodies import read_whole
from receiver.http.dashboard.pages import Pages
from receiver.http.dashboard.sessions import Session, Sessions, same
from receiver.settings.sections import Scope

log = structlog.get_logger()

Handler = Callable[[Request, Session], Awaitable[Response]]
MOST_FORM, FORM_TIMEOUT, MOST_FIELDS = 8 * 1024, 10.0, 20
OWN_PAGE: Final = re.compile(r"/(?:(?:refunds|jobs|subscribers)(?:[/?][^\\\s\x00-\x1f]*)?)?")
"""Where a redirect after signing in may lead: dashboard pages only."""
AGAIN_AFTER: Final = 10
"""Seconds after which a page reloads while the store is unavailable."""


class PageFrame:
    """Shows pages to signed-in users."""

    def __init__(self, pages: Pages, sessions: Sessions) -> None:
        self._pages, self._sessions = pages, sessions

    def page(self, path: str, handler: Handler, *scopes: Scope) -> Route:
        """The route of a page. The token needs one of the scopes, if there are any."""

        async def shown(request: Request, session: Session) -> Response:
            if scopes:
                session.caller.need(*scopes)
            return await handler(request, session)

        return self._route("GET", path, shown)

    def form(self, path: str, handler: Handler, *scopes: Scope) -> Route:
        """The route of a form. Checks its CSRF token first. Its fields are `request.state.form`."""

        async def sent(request: Request, session: Session) -> Response:
            need_own_page(request)
            fields = await read_form(request)
            if not same(fields.get("csrf", ""), session.csrf):
                raise Forbidden("This form belongs to another session. Go back and reload the page.", reason="csrf")
            if scopes:
                session.caller.need(*scopes)
            request.state.form = fields
            return await handler(request, session)

        return self._route("POST", path, sent)

    def _route(self, method: str, path: str, handler: Handler) -> Route:
        async def answered(request: Request) -> Response:
            return await self.guarded(request, lambda: self._signed_in(request, handler))

        return Route(path, answered, methods=[method])

    def render(
        self, template: str, session: Session | None, values: Mapping[str, Any], *, at: str = "", status: int = 200
    ) -> Response:
        """A page of the dashboard; `at` is its menu entry."""
        return self._pages.render(template, {**self._around(session), "at": at, **values}, status)

    async def guarded(self, request: Request, work: Callable[[], Awaitable[Response]]) -> Response:
        """The response of `work`, or its error as a page."""
        try:
            return await work()
        except ReceiverError as error:
            if error.status >= 500:
                log.error("http.unavailable", reason=error.reason, status=error.status, detail=error.detail)
            return self.problem(request, error)
        except HTTPException as error:
            return self.refused(request, error)
        except Exception:
            log.exception("http.failed", method=request.method, route=request.url.path)
            return self._problem(request, 500, "Internal error. See the service's log.", "internal_error")

    def problem(self, request: Request, error: ReceiverError) -> Response:
        again = AGAIN_AFTER if isinstance(error, StoreUnavailable) else 0
        detail = (
            "The store is not responding. Nothing is lost. This page reloads automatically." if again else str(error)
        )
        wait = error.retry_after or again
        return self._problem(request, error.status, detail, error.reason, again=again, wait=wait)

    def refused(self, request: Request, error: HTTPException) -> Response:
        """A router error as a page: unknown address, or wrong method."""
        detail = (
            "There is no page at this address."
            if error.status_code == 404
            else "This address does not accept this method."
        )
        answer = self._problem(request, error.status_code, detail, "no_such_page")
        answer.headers.update(error.headers or {})
        return answer

    def _problem(
        self, request: Request, status: int, detail: str, reason: str, *, again: int = 0, wait: int = 0
    ) -> Response:
        values = {"status": status, "phrase": HTTPStatus(status).phrase, "detail": detail, "reason": reason}
        http_request_id = structlog.contextvars.get_contextvars().get("request_id", "")
        values |= {"again": again if request.method == "GET" else 0, "request_id": http_request_id, "at": ""}
        headers = {"Retry-After": str(wait)} if wait else {}
        return self._pages.render(
            "problem.html", {**self._around(self._sessions.of(request)), **values}, status, headers
        )

    async def _signed_in(self, request: Request, handler: Handler) -> Response:
        session = self._sessions.of(request)
        if session is None:
            return self._to_sign_in(request)
        log_actor(request, session.caller)
        return await handler(request, session)

    def _to_sign_in(self, request: Request) -> Response:
        here = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
        if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
            # A strict cookie is not sent with a link from another site, such as a chat; it is sent from this page.
            return self._pages.render("onward.html", {**self._around(None), "at": "", "here": own_page(here)})
        following = f"?next={quote(here, safe='')}" if request.method == "GET" and here != "/" else ""
        return see_other(f"/sign-in{following}")

    def _around(self, session: Session | None) -> dict[str, Any]:
        caller = session.caller if session else None
        return {
            "caller": caller,
            "csrf": session.csrf if session else "",
            "scopes": {str(scope) for scope in caller.scopes} if caller else set(),
            "several": len(caller.accounts) > 1 if caller else False,
        }


def see_other(path: str) -> Response:
    """Redirects to the path, with GET."""
    return RedirectResponse(path, 303)


def own_page(path: str) -> str:
    """The path if it is a dashboard page, otherwise the first page."""
    return path if len(path) <= 1024 and OWN_PAGE.fullmatch(path) else "/"


def need_own_page(request: Request) -> None:
    """Raises `Forbidden` if the browser says that another site, or another host of this one, sent the form."""
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise Forbidden("The form was not sent by a page of this service.", reason="csrf")


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, each given once. Raises `BadRequest`."""
    raw = await read_whole(request, "form", MOST_FORM, FORM_TIMEOUT)
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise BadRequest("The body is not a valid form.", reason="bad_form") from None
    if len({name for name, _ in pairs}) < len(pairs):
        raise BadRequest("A form field was given more than once.", reason="bad_form")
    return dict(pairs)
