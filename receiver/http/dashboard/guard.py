"""HTTP. The frame of every dashboard page: the session, the CSRF token of a form, and errors as pages."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
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
from receiver.http.api.operations import Call
from receiver.http.dashboard.pages import Pages
from receiver.http.dashboard.sessions import Session, Sessions, same
from receiver.settings.sections import Scope

MOST_FORM, FORM_TIMEOUT, MOST_FIELDS = 8 * 1024, 10.0, 20
OWN_PAGE: Final = re.compile(r"/(?:(?:refunds|jobs|subscribers)(?:[/?][^\\\s\x00-\x1f]*)?)?")
"""Where a redirect after signing in may lead: dashboard pages only."""
AGAIN_AFTER: Final = 10
"""Seconds after which a page reloads while the store is unavailable."""


@dataclass(frozen=True, slots=True)
class Visit(Call):
    """A request of a signed-in browser. `form` are the fields that it sent."""

    session: Session
    form: Mapping[str, str]


Handler = Callable[[Visit], Awaitable[Response]]


class PageFrame:
    """Shows pages to signed-in users."""

    def __init__(self, pages: Pages, sessions: Sessions) -> None:
        self._pages, self._sessions = pages, sessions

    def page(self, path: str, handler: Handler, *scopes: Scope) -> Route:
        """The route of a page. The token needs one of the scopes, if there are any."""
        return self._route("GET", path, handler, scopes)

    def form(self, path: str, handler: Handler, *scopes: Scope) -> Route:
        """The route of a form. Checks its CSRF token first."""
        return self._route("POST", path, handler, scopes)

    def _route(self, method: str, path: str, handler: Handler, scopes: Sequence[Scope]) -> Route:
        async def answered(request: Request) -> Response:
            session = self._sessions.of(request)
            if session is None:
                return self._to_sign_in(request)
            log_actor(request, session.caller)
            form = await read_own_form(request, session) if method == "POST" else {}
            if scopes:
                session.caller.need(*scopes)
            return await handler(Visit(request, session.caller, session, form))

        return Route(path, answered, methods=[method])

    def render(
        self, template: str, visit: Visit | None, values: Mapping[str, Any], *, at: str = "", status: int = 200
    ) -> Response:
        """A page of the dashboard; `at` is its menu entry."""
        return self._pages.render(
            template, {**self._around(visit.session if visit else None), "at": at, **values}, status
        )

    def problem(self, request: Request, error: Exception) -> Response:
        """An error as a page."""
        if isinstance(error, StoreUnavailable):
            detail, wait = "The store is not responding. Nothing is lost. This page reloads automatically.", AGAIN_AFTER
            wanted = error.retry_after or wait
            return self._problem(request, error.status, detail, error.reason, again=wait, wait=wanted)
        if isinstance(error, ReceiverError):
            return self._problem(request, error.status, str(error), error.reason, wait=error.retry_after or 0)
        if isinstance(error, HTTPException):
            lost, refused = "There is no page at this address.", "This address does not accept this method."
            detail = lost if error.status_code == 404 else refused
            answer = self._problem(request, error.status_code, detail, "no_such_page")
            answer.headers.update(error.headers or {})
            return answer
        return self._problem(request, 500, "Internal error. See the service's log.", "internal_error")

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


async def read_own_form(request: Request, session: Session) -> dict[str, str]:
    """The fields of a form of this session. Raises `Forbidden` for one of another page or session, `BadRequest`."""
    need_own_page(request)
    fields = await read_form(request)
    if not same(fields.get("csrf", ""), session.csrf):
        raise Forbidden("This form belongs to another session. Go back and reload the page.", reason="csrf")
    return fields


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
