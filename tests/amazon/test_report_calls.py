"""The calls of the Reports API: how they are built, and that only Amazon's documented answers are believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from receiver.amazon.calls import Endpoint, Region
from receiver.amazon.reports.calls import (
    ReportInfo,
    create_report,
    get_report,
    get_report_document,
    get_reports,
    read_created,
    read_report,
    read_report_document,
    read_reports,
)
from receiver.errors import AmazonError, AmazonNotFound, AmazonOutcomeUnknown, AmazonRefusesUs
from receiver.exchange import Response
from receiver.ledger.reconciliation.report_run import RESUMABLE, ReportRun, planned
from tests.kit.clock import T0

LIVE = Endpoint(Region.EU, "live", "LIVE-TESTKEY")
TYPE = "_GET_FLAT_FILE_OFFAMAZONPAYMENTS_REFUND_DATA_"
REPORT = {"reportId": "A1", "reportType": TYPE, "processingStatus": "COMPLETED", "reportDocumentId": "D1"}
DAY = 86_400_000


def answer(body: object, status: int = 200) -> Response:
    return Response(status, {}, json.dumps(body).encode())


def test_the_calls_are_those_of_amazons_page() -> None:
    made = create_report(LIVE, TYPE, T0, T0 + 1000, "key")
    assert (made.method, made.url) == ("POST", "https://pay-api.amazon.eu/v2/reports")
    times = {"startTime": "20251009T085320Z", "endTime": "20251009T085321Z"}
    assert json.loads(made.body) == {"reportType": TYPE, **times}
    assert made.headers["x-amz-pay-idempotency-key"] == "key"
    assert get_report(LIVE, "A1").url == "https://pay-api.amazon.eu/v2/reports/A1"
    assert get_report_document(LIVE, "D1").url == "https://pay-api.amazon.eu/v2/report-documents/D1"
    assert get_reports(LIVE, TYPE, T0).url.partition("?")[2] == (
        f"createdSince=20251009T085320Z&pageSize=100&processingStatuses=COMPLETED&reportTypes={TYPE}"
    )
    assert get_reports(LIVE, TYPE, T0, "a b/+").url.endswith("?nextToken=a%20b%2F%2B")


def test_documented_answers_are_read() -> None:
    info = ReportInfo("A1", TYPE, "COMPLETED", "D1")
    assert read_created(answer({"reportId": "A1"}, 201)) == "A1"
    assert read_report(answer(REPORT), "A1") == info
    assert read_reports(answer({"reports": [REPORT], "nextToken": "t"})) == ([info], "t")
    assert read_reports(answer({"reports": [], "nextToken": None})) == ([], "")
    document = {"reportDocumentId": "D1", "url": "https://s3.example/x?y=z", "compressionAlgorithm": "N/A"}
    assert read_report_document(answer(document)) == "https://s3.example/x?y=z"
    assert not ReportInfo("A1", TYPE, "IN_QUEUE").is_finished


@pytest.mark.parametrize(
    ("read", "body", "status", "kind"),
    [
        (read_created, {}, 201, AmazonOutcomeUnknown),
        (read_created, {"reportId": "../x"}, 201, AmazonOutcomeUnknown),
        (read_created, {"reasonCode": "UnauthorizedAccess", "message": ""}, 403, AmazonRefusesUs),
        (read_created, {"reasonCode": "InvalidParameterValue", "message": ""}, 400, AmazonRefusesUs),
        (lambda got: read_report(got, "A2"), REPORT, 200, AmazonOutcomeUnknown),
        (lambda got: read_report(got, "A1"), {"reasonCode": "ResourceNotFound", "message": ""}, 404, AmazonNotFound),
        (lambda got: read_report(got, "A1"), {**REPORT, "processingStatus": ""}, 200, AmazonOutcomeUnknown),
        (read_reports, {"reports": {}}, 200, AmazonOutcomeUnknown),
        (read_reports, {"reports": [1]}, 200, AmazonOutcomeUnknown),
        (read_reports, {"reports": [], "nextToken": 7}, 200, AmazonOutcomeUnknown),
        (read_report_document, {"url": "ftp://x"}, 200, AmazonOutcomeUnknown),
        (read_report_document, {"url": "https://x/\n"}, 200, AmazonOutcomeUnknown),
        (read_report_document, {"url": "https://x/", "compressionAlgorithm": "GZIP"}, 200, AmazonOutcomeUnknown),
    ],
)
def test_no_other_answer_is_believed(read: Any, body: object, status: int, kind: type[AmazonError]) -> None:
    with pytest.raises(kind):
        read(answer(body, status))


def test_an_unfinished_run_is_continued_while_it_covers_what_is_wanted() -> None:
    new = planned(None, 7 * DAY, T0)
    assert (new.start, new.end) == (T0 - 7 * DAY, T0)
    assert planned(new, 7 * DAY, T0 + DAY // 2) is new
    assert planned(new, 3 * DAY, T0) is new
    assert planned(new, 8 * DAY, T0) is not new
    assert planned(new, 7 * DAY, new.end + RESUMABLE + 1) is not new


def test_the_same_request_has_the_same_key() -> None:
    run = ReportRun(start=1, end=2, began_at=3)
    assert run.idempotency_key("us", TYPE) == ReportRun(start=1, end=2, began_at=9).idempotency_key("us", TYPE)
    others = [
        run.idempotency_key("eu", TYPE),
        ReportRun(start=1, end=2, began_at=3, attempt=1).idempotency_key("us", TYPE),
    ]
    assert len({run.idempotency_key("us", TYPE), *others}) == 3
    assert len(others[0]) == 32
