"""Amazon's reports as files: every encoding and notation, rubbish refused line by line, constant memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.amazon.reports.lines import LONGEST_LINE
from receiver.amazon.reports.reader import Heading, Other, Refused, read
from receiver.amazon.reports.values import parse_amount, parse_when
from receiver.errors import Malformed
from receiver.ledger.money import Money
from receiver.ledger.reconciliation.rows import RefundRow, SettlementRow
from receiver.ledger.timestamps import parse_time
from tests.amazon import reports

IDS = [f"P03-1234567-1234567-R{number:06d}" for number in range(6)]
AT = parse_time("20261101T110000Z")
SETTLEMENT = reports.settlements(
    [
        reports.settlement_row("P03-1234567-1234567-C000009", "500", "JPY", "Capture"),
        reports.settlement_row(IDS[1], "-500", "JPY"),
        reports.settlement_row(IDS[2], "△1,200", "JPY", "A-to-z Guarantee"),
        reports.settlement_row(IDS[3], "(８４００)", "JPY", "返金"),
        reports.settlement_row("", "-481", "JPY", "Transfer"),
    ]
)


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp932"])
def test_a_settlement_report_is_read_in_every_encoding(encoding: str, delimiter: str) -> None:
    """Whole, and byte by byte. The lines before the header name the merchant and the period."""
    text = SETTLEMENT
    if delimiter == "\t":
        text = text.replace('","', '"\t"').replace("TransactionPostedDate,", "TransactionPostedDate\t")
        text = "\n".join(
            line.replace(",", "\t") if line.startswith("Trans") else line.replace('"', "")
            for line in text.split("\r\n")
        )
    raw = text.encode(encoding)
    found = list(read([raw]))
    assert found == list(read(raw[at : at + 1] for at in range(len(raw))))
    day = 86_400_000
    assert found[0] == Heading("settlements", reports.SELLER, parse_time("20261101T000000Z"), AT - AT % day + 7 * day)
    rows = [each for each in found if isinstance(each, SettlementRow)]
    assert [(row.refund_id, str(row.amount)) for row in rows] == [
        (IDS[1], "500 JPY"),
        (IDS[2], "1200 JPY"),
        (IDS[3], "8400 JPY"),
    ]
    assert {(row.settlement_id, row.posted_at) for row in rows} == {("5044561311", AT)}
    assert [each for each in found if isinstance(each, Other)] == [Other(7), Other(11)]


def test_a_report_of_refund_data_is_read() -> None:
    """Amazon's older words for states; columns in another order and spelling; a European amount."""
    found = list(
        read(
            [
                reports.refunds(
                    [
                        reports.refund_row(IDS[0], "Completed", "1.234,50", "EUR"),
                        reports.refund_row(IDS[1], "Declined", "14.00", "USD", reason="AmazonRejected"),
                    ]
                ).encode(),
                b"",
            ]
        )
    )
    assert found == [
        Heading("refunds"),
        RefundRow(
            refund_id=IDS[0],
            state="Refunded",
            amount=Money.parse("1234.50", "EUR"),
            created_at=AT - 3_600_000,
            updated_at=AT,
            line=2,
        ),
        RefundRow(
            refund_id=IDS[1],
            state="Declined",
            amount=Money.parse("14.00", "USD"),
            created_at=AT - 3_600_000,
            updated_at=AT,
            reason_code="AmazonRejected",
            line=3,
        ),
    ]
    other = f"Refund Status;Amazon Refund Id\nPending;{IDS[2]}\n"
    assert list(read([other.encode()]))[1:] == [RefundRow(refund_id=IDS[2], state="RefundInitiated", line=2)]


def test_rubbish_is_refused_line_by_line() -> None:
    """Each line with its number and the reason, and nothing of it can harm a terminal. All others are read."""
    rows = [
        reports.refund_row("not-an-id"),
        reports.refund_row(IDS[0], amount="a lot"),
        reports.refund_row(IDS[1], currency=""),
        reports.refund_row(IDS[2], updated="yesterday"),
        reports.refund_row(IDS[3], state=""),
        f'"{IDS[4]}","never closed',
        reports.refund_row(IDS[4]).replace('"ref"', '"two\r\nlines"'),
        reports.refund_row("P03-1234567-1234567-C000001"),
        reports.refund_row("\x1b[2J"),
        "x" * (LONGEST_LINE + 1),
        reports.refund_row(IDS[5]) + ",surplus",
        "\x89PNG",
        reports.refund_row(IDS[5]),
    ]
    found = list(read([reports.refunds(rows).encode()]))[1:]
    refused = {each.line: each.reason for each in found if isinstance(each, Refused)}
    assert refused == {
        2: "'not-an-id' is not a refund id: those look like S01-5105180-3221187-R022311",
        3: "amount 'a lot' cannot be read",
        4: "currency '' cannot be read",
        5: "timestamp '2026-11-01T10:00:00+0000 yesterday' cannot be read",
        6: "the state is missing",
        7: "a quotation mark is not closed, or text follows it",
        10: "'P03-1234567-1234567-C000001' is not a refund id: those have an R before the last six digits",
        11: r"'\x1b[2J' is not a refund id: those look like S01-5105180-3221187-R022311",
        12: "the line is too long",
        13: "the row has more columns than the header",
        14: r"'\x89PNG' is not a refund id: those look like S01-5105180-3221187-R022311",
    }
    assert [row.refund_id for row in found if isinstance(row, RefundRow)] == [IDS[4], IDS[5]]


@pytest.mark.parametrize(
    "text",
    [reports.refunds([reports.refund_row(IDS[0])]), reports.settlements([reports.settlement_row(IDS[0], "-1234.50")])],
)
def test_a_file_that_is_cut_off_is_incomplete(text: str) -> None:
    """Half a row is refused, and not read as a smaller amount."""
    whole = list(read([text.encode()]))[-1]
    assert isinstance(whole, RefundRow | SettlementRow)
    last = text.rstrip("\r\n").rpartition("\n")[2]
    columns = max(last.count(","), last.count("\t"))
    end = len(text.rstrip("\r\n"))
    for cut in range(end - len(last) + 1, end):
        piece = text[:cut].rpartition("\n")[2]
        found = list(read([text[:cut].encode()]))[-1]
        if max(piece.count(","), piece.count("\t")) < columns:
            assert isinstance(found, Refused), piece


@pytest.mark.parametrize("raw", [b"", b"\x89PNG\r\n\x1a\n" * 100, b"refundId\n", b"a,b\n1,2\n", b"{}"])
def test_what_is_no_report_is_refused_as_a_whole(raw: bytes) -> None:
    with pytest.raises(Malformed, match="neither a report") as raised:
        list(read([raw]))
    assert raised.value.reason == "not_a_report"


@pytest.mark.parametrize(
    ("text", "currency", "amount"),
    [
        ("1,234.50", "USD", "1234.50 USD"),
        ("1.234,50", "EUR", "1234.50 EUR"),
        ("1 234,50", "EUR", "1234.50 EUR"),
        ("1\u202f234,50 €", "", "1234.50 EUR"),
        ("1'234.50", "EUR", "1234.50 EUR"),
        ("-14,00", "EUR", "14.00 EUR"),
        ("14.5", "USD", "14.50 USD"),
        ("1,234", "JPY", "1234 JPY"),
        ("1.234", "EUR", "1234.00 EUR"),
        ("1,234,567", "JPY", "1234567 JPY"),
        ("￥１，２３４", "", "1234 JPY"),
        ("△500", "JPY", "500 JPY"),
        ("500円", "JPY", "500 JPY"),
        ("500.00", "jpy", "500 JPY"),
        ("(14.00)", "GBP", "14.00 GBP"),
        ("USD -14.00", "", "14.00 USD"),
        ("14.00-", "USD", "14.00 USD"),
        ("1.234", "KWD", "1.234 KWD"),
    ],
)
def test_amounts_are_read_in_every_notation(text: str, currency: str, amount: str) -> None:
    assert str(parse_amount(text, currency)) == amount


@pytest.mark.parametrize(
    ("text", "currency"),
    [("", "USD"), ("14", ""), ("14", "US"), ("1,23,4", "USD"), ("1.2.3", "USD"), ("NaN", "USD"), ("1e5", "USD")],
)
def test_other_amounts_are_refused(text: str, currency: str) -> None:
    with pytest.raises(Malformed):
        parse_amount(text, currency)


def test_times_without_a_zone_tell_nothing() -> None:
    assert [parse_when(each) for each in ("", "2026-11-01", "2026/11/01 20:00")] == [0, 0, 0]
    for text in ("2026-11-01T20:00:00+0900", "2026-11-01T11:00:00-0000", "2026/11/01 11:00:00 UTC", "20261101T110000Z"):
        assert parse_when(text) == AT
    with pytest.raises(Malformed):
        parse_when("yesterday")


def test_memory_does_not_grow_with_the_file() -> None:
    """Neither with its rows nor with the length of a line that never ends."""

    def chunks() -> Iterator[bytes]:
        yield reports.refunds([]).encode()
        for number in range(200):
            yield "".join(f"{reports.refund_row(IDS[number % 6])}\r\n" for _ in range(10)).encode()
        for _ in range(200):
            yield b"x" * 65_536

    tracemalloc.start()
    try:
        count = sum(1 for _ in read(chunks()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (count, peak < 2_000_000) == (2_002, True)


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=200), max_size=6), st.sampled_from(["refunds", "settlements"]))
def test_no_bytes_break_the_reader(chunks: list[bytes], kind: str) -> None:
    head = reports.refunds([]) if kind == "refunds" else reports.settlements([])
    heading, *rest = read([head.encode(), *chunks])
    assert isinstance(heading, Heading)
    assert all(isinstance(each, (Refused, Other, RefundRow, SettlementRow)) for each in rest)
