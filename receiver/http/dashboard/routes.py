"""HTTP. The dashboard's routes, and its error pages for browsers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.http.api.auth import Tokens
from receiver.http.api.subscribers import SubscriberApi
from receiver.http.dashboard.cases import CasePages
from receiver.http.dashboard.findings import FindingPage
from receiver.http.dashboard.guard import PageFrame
from receiver.http.dashboard.jobs import JobPages
from receiver.http.dashboard.overview import OverviewPage
from receiver.http.dashboard.pages import Pages
from receiver.http.dashboard.refund_list import RefundList
from receiver.http.dashboard.refunds import RefundPages
from receiver.http.dashboard.requests import RequestPages
from receiver.http.dashboard.sessions import Sessions
from receiver.http.dashboard.signing_in import SigningIn
from receiver.http.dashboard.subscribers import SubscriberPages
from receiver.http.limits import Reads, Refreshes
from receiver.http.problems import answer_to
from receiver.issue.issuer import Issuer
from receiver.settings.sections import Scope
from receiver.store import Store

log = structlog.get_logger()

MACHINES: Final = ("/v1", "/ipn", "/fps", "/healthz", "/readyz", "/metrics", "/openapi.json")
"""Below these paths every error is JSON."""


class Dashboard:
    """Built once. `now` is ms since the epoch, UTC; `issuers` by account; `seller_central` as in the settings."""

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        sessions: Sessions,
        issuers: Mapping[str, Issuer],
        now: Callable[[], int],
        refreshes: Refreshes,
        reads: Reads,
        subscribers: SubscriberApi,
        seller_central: str = "",
    ) -> None:
        self._pages = Pages()
        self._frame = PageFrame(self._pages, sessions)
        self._signing_in = SigningIn(self._frame, sessions, tokens, now)
        self._overview = OverviewPage(self._frame, store, now)
        self._list = RefundList(self._frame, store, reads)
        self._refunds = RefundPages(self._frame, store, issuers, now, refreshes, seller_central)
        self._cases = CasePages(self._frame, store, issuers)
        self._jobs = JobPages(self._frame, store, issuers)
        self._requests = RequestPages(issuers)
        self._findings = FindingPage(self._frame, store)
        self._subscribers = SubscriberPages(self._frame, store, now, subscribers)

    def routes(self) -> list[Route]:
        """Pages, form targets and static files; with the scopes of which the token needs one."""
        page, form, refunds, subscribers = self._frame.page, self._frame.form, self._refunds, self._subscribers
        return [
            page("/", self._overview.show),
            Route("/sign-in", self._signing_in.show, methods=["GET"]),
            Route("/sign-in", self._signing_in.sign_in, methods=["POST"]),
            form("/sign-out", self._signing_in.sign_out),
            page("/refunds", self._list.show, Scope.READ),
            page("/refunds/{refund_id}", refunds.one),
            form("/refunds/{refund_id}/refresh", refunds.refresh, Scope.REFUND, Scope.ADMIN),
            page("/refunds/{refund_id}/retry", refunds.ask_retry, Scope.REFUND),
            form("/refunds/{refund_id}/retry", refunds.retry, Scope.REFUND),
            *self._of_cases_and_jobs(),
            form("/requests/{request_id}/repeat", self._requests.repeat, Scope.REFUND),
            page("/findings", self._findings.show, Scope.READ),
            page("/subscribers", subscribers.many, Scope.ADMIN),
            form("/subscribers/{name}/test", subscribers.test, Scope.ADMIN),
            page("/subscribers/{name}/pause", subscribers.ask_pause, Scope.ADMIN),
            form("/subscribers/{name}/pause", subscribers.pause, Scope.ADMIN),
            form("/subscribers/{name}/resume", subscribers.resume, Scope.ADMIN),
            form("/subscribers/{name}/redrive", subscribers.redrive, Scope.ADMIN),
            Route("/static/{name}", self._pages.static, methods=["GET"]),
        ]

    def _of_cases_and_jobs(self) -> list[Route]:
        page, form, cases, jobs = self._frame.page, self._frame.form, self._cases, self._jobs
        return [
            page("/refunds/{refund_id}/close", cases.ask_close, Scope.REFUND),
            form("/refunds/{refund_id}/close", cases.close, Scope.REFUND),
            form("/refunds/{refund_id}/reopen", cases.reopen, Scope.REFUND),
            form("/jobs", jobs.start, Scope.REFUND),
            page("/jobs/new", jobs.ask, Scope.REFUND),
            page("/jobs/{job_id}", jobs.one, Scope.REFUND),
            form("/jobs/{job_id}/resume", jobs.resume, Scope.REFUND),
            form("/jobs/{job_id}/cancel", jobs.cancel, Scope.REFUND),
        ]

    def answer_to(self, request: Request, error: Exception) -> Response:
        """The answer to an error: a page under the paths of pages, else JSON. An unknown path gets a page only in a
        browser."""
        is_page = not isinstance(error, HTTPException) or "text/html" in request.headers.get("accept", "")
        if request.url.path.startswith(MACHINES) or not is_page:
            return answer_to(request, error)
        try:
            return self._frame.problem(request, error)
        except Exception as another:
            log.exception("http.failed", method=request.method, route=request.url.path)
            return answer_to(request, another)
