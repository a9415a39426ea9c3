"""HTTP. The Reports API: Create Report, Get Reports, Get Report By Id, Get Report Document, and the download.

Paths, fields and states are those of Amazon's page "Reports". The download needs no signature of the merchant: its
address is signed, and expires, like those of the storage that Amazon uses.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from receiver.simulator.api import Answer, Api, corrupt, refuse_by
from receiver.simulator.checks import IDEMPOTENCY_KEY, Asked
from receiver.simulator.engine import CallRecord, Engine
from receiver.simulator.faults import Fault, invalid_value
from receiver.simulator.reports.book import COMPLETED, STATUSES, TYPES, Report
from receiver.simulator.shapes import basic_time, need, only, read_key, read_object, read_time

VALID = 30_000
"""ms for which the address of a document is valid (Amazon's page "Reports")."""
DEFAULT_PAGE, MOST_PAGE = 10, 100
DOWNLOAD = "download_report"
PARAMETERS = {"reportTypes", "processingStatuses", "createdSince", "createdUntil", "pageSize"}


class ReportsApi:
    def __init__(self, engine: Engine, api: Api) -> None:
        self._engine, self._api = engine, api
        self._secret = engine.ids.uuid().encode()
        self._pages: dict[str, tuple[list[Report], int]] = {}

    def routes(self) -> list[BaseRoute]:
        """The calls and the download."""
        return [
            *self._api.route("POST", "/reports", "create_report", self.create),
            *self._api.route("GET", "/reports", "get_reports", self.listed),
            *self._api.route("GET", "/reports/{id}", "get_report", self.get),
            *self._api.route("GET", "/report-documents/{id}", "get_report_document", self.document),
            Route("/report-files/{id}", self.download),
        ]

    def create(self, asked: Asked, _: str) -> Answer:
        key, found = read_key(asked.header(IDEMPOTENCY_KEY)), read_object(asked.body)
        only(found, {"reportType", "startTime", "endTime"})
        report_type = str(need(found, "reportType"))
        if report_type not in TYPES:
            raise invalid_value("reportType", "there is no such type")
        start, end = (read_time(name, str(need(found, name))) for name in ("startTime", "endTime"))
        return Answer(201, {"reportId": self._engine.reports.create(report_type, start, end, key).report_id})

    def listed(self, asked: Asked, _: str) -> Answer:
        """Get Reports, newest first."""
        given = dict(parse_qsl(asked.query, keep_blank_values=True))
        if "nextToken" in given:
            if given.keys() != {"nextToken"} or given["nextToken"] not in self._pages:
                raise invalid_value("nextToken", "it is unknown, or not the only parameter")
            found, size = self._pages.pop(given["nextToken"])
        else:
            found, size = self._selected(given), _page_size(given.get("pageSize", str(DEFAULT_PAGE)))
        body: dict[str, object] = {"reports": [report_json(each) for each in found[:size]]}
        if found[size:]:
            body["nextToken"] = token = self._engine.ids.uuid()
            self._pages[token] = (found[size:], size)
        return Answer(200, body)

    def get(self, _: Asked, report_id: str) -> Answer:
        return Answer(200, report_json(self._engine.reports.get(report_id)))

    def document(self, asked: Asked, document_id: str) -> Answer:
        """Get Report Document. The address names the host that was called."""
        self._engine.reports.document(document_id)
        expires = self._engine.now() + VALID
        query = f"Expires={expires}&Signature={self._signature(document_id, expires)}"
        url = f"http://{asked.header('host')}/report-files/{document_id}?{query}"
        return Answer(200, {"reportDocumentId": document_id, "url": url, "compressionAlgorithm": "N/A"})

    async def download(self, request: Request) -> Response:
        """The document itself: 403 once the address has expired, and for one that was changed."""
        engine, document_id, given = self._engine, request.path_params["id"], request.query_params
        rule = engine.fault_injection.take(DOWNLOAD, document_id)
        reason = ""
        try:
            refuse_by(rule)
            expires = given.get("Expires", "")
            signed = self._signature(document_id, int(expires)) if expires.isdecimal() else ""
            if not signed or not hmac.compare_digest(signed, given.get("Signature", "")):
                raise Fault(403, "SignatureDoesNotMatch", "The address was changed.", "signature")
            if int(expires) < engine.now():
                raise Fault(403, "AccessDenied", "Request has expired", "expired")
            content = engine.reports.document(document_id)
            response = await corrupt(engine, rule, Response(content, media_type="text/plain"), request)
        except Fault as fault:
            body = f"<Error><Code>{fault.reason_code}</Code><Message>{fault.message}</Message></Error>"
            response, reason = Response(body, fault.status, media_type="application/xml"), fault.word
        trick = str(rule.trick) if rule is not None else ""
        engine.calls.append(CallRecord(engine.now(), DOWNLOAD, document_id, response.status_code, reason, trick))
        return response

    def _signature(self, document_id: str, expires: int) -> str:
        return hmac.new(self._secret, f"{document_id} {expires}".encode(), hashlib.sha256).hexdigest()

    def _selected(self, given: dict[str, str]) -> list[Report]:
        only(given, PARAMETERS)
        types = _words(given, "reportTypes", TYPES)
        statuses = _words(given, "processingStatuses", STATUSES)
        times: dict[str, Callable[[int, int], bool]] = {
            "createdSince": lambda created, at: created >= at,
            "createdUntil": lambda created, at: created <= at,
        }
        limits = [(fits, read_time(name, given[name])) for name, fits in times.items() if name in given]
        return [
            each
            for each in self._engine.reports.all()
            if each.report_type in types
            and each.status in statuses
            and all(fits(each.created_at, at) for fits, at in limits)
        ]


def report_json(report: Report) -> dict[str, object]:
    """A report as in Amazon's answers. What is not known yet is absent."""
    finished = {"processingEndTime": basic_time(report.finished_at)} if report.finished_at else {}
    document = {"reportDocumentId": report.document_id} if report.status == COMPLETED else {}
    return {
        "reportId": report.report_id,
        "reportType": report.report_type,
        "startTime": basic_time(report.start),
        "endTime": basic_time(report.end),
        "createdTime": basic_time(report.created_at),
        "processingStatus": report.status,
        "processingStartTime": basic_time(report.created_at),
        **finished,
        **document,
    }


def _words(given: dict[str, str], name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(given[name].split(",")) if given.get(name) else known
    if unknown := [word for word in words if word not in known]:
        raise invalid_value(name, f"there is no {unknown[0][:64]!r}")
    return words


def _page_size(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_PAGE:
        raise invalid_value("pageSize", f"it is 1 to {MOST_PAGE}")
    return int(text)
