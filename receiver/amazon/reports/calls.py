"""Pure. Builds the calls of Amazon's Reports API, and reads their answers.

    Create Report           asks for a report of a period; 201 with its id
    Get Report By Id        its state; with the id of its document once it is completed
    Get Reports             reports that exist, newest first, in pages
    Get Report Document     an address from which the document can be downloaded for 30 seconds

Source: https://developer.amazon.com/docs/amazon-pay-api-v2/reports.html. Reports of settlement data cannot be
requested: Amazon makes one with each settlement. The sandbox has only one type, which has to be requested. Reports are
kept for 90 days. Amazon publishes no limits for these calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote, urlencode

from receiver.amazon.answers import judge, unintelligible, wrong_object
from receiver.amazon.calls import Endpoint, request_to
from receiver.amazon.fields import Fields, as_word
from receiver.amazon.reports.reader import REPORT_TYPES, SETTLEMENTS
from receiver.errors import Malformed
from receiver.exchange import Request, Response
from receiver.ledger.timestamps import format_basic, parse_time

SANDBOX_SETTLEMENTS = "_GET_FLAT_FILE_OFFAMAZONPAYMENTS_SANDBOX_SETTLEMENT_DATA_"
KINDS = {**{name: kind for kind, name in REPORT_TYPES.items()}, SANDBOX_SETTLEMENTS: SETTLEMENTS}
"""Amazon's type → `refunds` or `settlements`."""
MOST_IN_A_PAGE = 100
LONGEST_URL = 8_192
OBJECT_ID = re.compile(r"[A-Za-z0-9._:~-]{1,256}")
"""The id of a report or a document. No document gives a pattern; this one needs no escaping in a path."""
PAGE_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
DOWNLOAD_URL = re.compile(r"https?://[\x21-\x7e]+")


class Status(StrEnum):
    """`processingStatus` of a report. Any other word counts as in progress."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    """There is no data, or a person cancelled it."""


@dataclass(frozen=True, slots=True)
class ReportInfo:
    """A report as Amazon describes it. Times in ms; 0 if Amazon gives none."""

    report_id: str
    report_type: str
    status: str
    document_id: str = ""
    start: int = 0
    end: int = 0
    created_at: int = 0

    @property
    def kind(self) -> str:
        """`refunds` or `settlements`; empty for any other type."""
        return KINDS.get(self.report_type, "")

    @property
    def is_finished(self) -> bool:
        """Whether its state will not change any more."""
        return self.status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class ReportPage(NamedTuple):
    """One page of reports. `next_token` is empty on the last one."""

    reports: Sequence[ReportInfo]
    next_token: str


def create_report(endpoint: Endpoint, report_type: str, start: int, end: int, idempotency_key: str) -> Request:
    """`POST /reports`, unsigned. Repeating the same values under the same key requests no second report."""
    body = f'{{"reportType":"{report_type}","startTime":"{format_basic(start)}","endTime":"{format_basic(end)}"}}'
    request = request_to(endpoint, "POST", "reports", body.encode("ascii"))
    return request.with_headers(x_amz_pay_idempotency_key=idempotency_key)


def get_report(endpoint: Endpoint, report_id: str) -> Request:
    """`GET /reports/{id}`, unsigned."""
    return request_to(endpoint, "GET", f"reports/{quote(report_id, safe='')}")


def get_reports(endpoint: Endpoint, report_type: str, since: int, next_token: str = "") -> Request:
    """`GET /reports`, unsigned: reports that were completed since this time (ms). A token is the only parameter."""
    wanted = {
        "createdSince": format_basic(since),
        "pageSize": str(MOST_IN_A_PAGE),
        "processingStatuses": Status.COMPLETED.value,
        "reportTypes": report_type,
    }
    query = urlencode({"nextToken": next_token} if next_token else wanted, quote_via=quote, safe="")
    return request_to(endpoint, "GET", f"reports?{query}")


def get_report_document(endpoint: Endpoint, document_id: str) -> Request:
    """`GET /report-documents/{id}`, unsigned."""
    return request_to(endpoint, "GET", f"report-documents/{quote(document_id, safe='')}")


def read_created(response: Response) -> str:
    """The id of the requested report. Raises like `read_report`."""
    return Fields(response, judge(response)).required("reportId", _as_object_id)


def read_report(response: Response, report_id: str) -> ReportInfo:
    """The report in an answer to Get Report By Id.

    Raises like `answers.judge`; also `AmazonOutcomeUnknown` with `amazon_unintelligible`, or `amazon_wrong_report` for
    an answer about another report.
    """
    found = _report(Fields(response, judge(response)))
    if found.report_id != report_id:
        wrong_object(response, "report")
    return found


def read_reports(response: Response) -> ReportPage:
    """One page of Get Reports. Raises like `read_report`."""
    fields = Fields(response, judge(response))
    listed = fields.values.get("reports")
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        unintelligible(response, "it has no list of reports")
    reports = [_report(Fields(response, each)) for each in listed]
    token = fields.values.get("nextToken")
    if token in (None, ""):
        return ReportPage(reports, "")
    if not isinstance(token, str) or not PAGE_TOKEN.fullmatch(token):
        unintelligible(response, "its nextToken cannot be read")
    return ReportPage(reports, token)


def read_report_document(response: Response) -> str:
    """The address of a document, valid for 30 seconds. Raises like `read_report`; also for a compressed document."""
    fields = Fields(response, judge(response))
    url = fields.required("url", _as_url)
    how = fields.values.get("compressionAlgorithm")
    if how not in (None, "", "N/A"):
        unintelligible(response, "the document is compressed, which Amazon does not do by its documentation")
    return url


def _report(fields: Fields) -> ReportInfo:
    return ReportInfo(
        report_id=fields.required("reportId", _as_object_id),
        report_type=fields.required("reportType", as_word),
        status=fields.required("processingStatus", as_word),
        document_id=fields.optional("reportDocumentId", _as_object_id, ""),
        start=fields.optional("startTime", parse_time, 0),
        end=fields.optional("endTime", parse_time, 0),
        created_at=fields.optional("createdTime", parse_time, 0),
    )


def _as_object_id(value: object) -> str:
    if not isinstance(value, str) or not OBJECT_ID.fullmatch(value):
        raise Malformed("It is not an id.", reason="bad_id")
    return value


def _as_url(value: object) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_URL or not DOWNLOAD_URL.fullmatch(value):
        raise Malformed("It is not an address.", reason="bad_url")
    return value
